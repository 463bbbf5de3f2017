//! The languages of cluster administrators (`policy.networking.k8s.io`): `ClusterNetworkPolicy` v1alpha2, and of
//! v1alpha1 `AdminNetworkPolicy` and `BaselineAdminNetworkPolicy`, which clusters still run. They do not isolate: they
//! stand above and below what namespaces say.

use std::sync::Arc;

use serde_json::Value;

mod api;
mod compile;
mod isolation;
mod overlap;
#[cfg(test)]
mod tests;

pub use isolation::isolation_of;
pub use overlap::shared_priorities;

use crate::object::{InvalidObject, KindOfObject};
use crate::rules::PolicyObject;

/// One of the three kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `ClusterNetworkPolicy`.
    Cluster,
    /// `AdminNetworkPolicy`.
    Admin,
    /// `BaselineAdminNetworkPolicy`.
    Baseline,
}

impl Kind {
    const fn of_object(self) -> KindOfObject {
        let (api_version, name) = match self {
            Self::Cluster => ("policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy"),
            Self::Admin => ("policy.networking.k8s.io/v1alpha1", "AdminNetworkPolicy"),
            Self::Baseline => ("policy.networking.k8s.io/v1alpha1", "BaselineAdminNetworkPolicy"),
        };
        KindOfObject { api_version, name, namespaced: false }
    }

    /// The API group and version that [`parse`] reads.
    #[must_use]
    pub const fn api_version(self) -> &'static str {
        self.of_object().api_version
    }

    /// `Kind/name` of a raw object, where it can be read.
    #[must_use]
    pub fn name_of(self, raw: &Value) -> Option<String> {
        self.of_object().name_of(raw)
    }
}

/// Decodes a policy from the raw object.
///
/// # Errors
/// [`InvalidObject`] with path and value of each field that is wrong, unknown fields included.
pub fn parse(kind: Kind, raw: &Value) -> Result<PolicyObject, InvalidObject> {
    let of_object = kind.of_object();
    let object: api::Object = of_object.decode(raw)?;
    let mut errors = of_object.check(&object.api_version, &object.kind, &object.metadata);
    let origin: Arc<str> = of_object.origin("", &object.metadata.name).into();
    let policy = compile::compile(kind, &object, origin, &mut errors);
    if errors.is_empty() { Ok(policy) } else { Err(of_object.refused(raw, errors)) }
}
