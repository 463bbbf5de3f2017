//! Conversion between wire messages and the types of `policy`: total, and refusing with the resource's name what
//! cannot be converted. Nothing absent is ever read as "everything".

mod address;
mod endpoint;
mod policy;
mod settings;

pub use address::{address_from_wire, address_to_wire, prefix_from_wire, prefix_to_wire};
pub use endpoint::{
    endpoint_from_wire, endpoint_to_wire, identity_from_wire, labels_from_wire, labels_to_wire,
};
pub use policy::{policy_from_wire, policy_to_wire};
pub use settings::{settings_from_wire, settings_to_wire};

/// A resource that cannot be converted: which one, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{resource}: {reason}")]
pub struct InvalidResource {
    /// What was converted, for instance `endpoint 10.0.0.7` or `policy ingress rule 3`.
    pub resource: String,
    /// What is wrong with it, with the value.
    pub reason: String,
}

impl InvalidResource {
    pub(crate) fn new(resource: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { resource: resource.into(), reason: reason.into() }
    }
}
