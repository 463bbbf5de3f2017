//! The languages `cilium.io/v2` `CiliumNetworkPolicy` and `CiliumClusterwideNetworkPolicy`, turned into the common form.
//! Follows Cilium's documentation and, where that is silent, its implementation. A field that is not known refuses the
//! object, since what it would have restricted cannot be guessed; one that is known and not supported refuses it too.

use std::sync::Arc;

use serde_json::Value;

mod api;
mod compile;
mod isolation;
mod selector;
#[cfg(test)]
mod tests;

pub use isolation::isolation_of;

use crate::object::{InvalidObject, KindOfObject};
use crate::rules::PolicyObject;
use crate::selector::FieldError;

/// The API group and version that [`parse`] reads.
pub const API_VERSION: &str = "cilium.io/v2";

/// One of the two kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `CiliumNetworkPolicy`: governs its namespace.
    Namespaced,
    /// `CiliumClusterwideNetworkPolicy`: governs all of them.
    Clusterwide,
}

impl Kind {
    const fn of_object(self) -> KindOfObject {
        let (name, namespaced) = match self {
            Self::Namespaced => ("CiliumNetworkPolicy", true),
            Self::Clusterwide => ("CiliumClusterwideNetworkPolicy", false),
        };
        KindOfObject { api_version: API_VERSION, name, namespaced }
    }

    /// `Kind/namespace/name` of a raw object, where it can be read.
    #[must_use]
    pub fn name_of(self, raw: &Value) -> Option<String> {
        self.of_object().name_of(raw)
    }
}

/// Decodes a policy from the raw object: one for `spec`, and one for each of `specs`. An absent namespace is `default`.
///
/// # Errors
/// [`InvalidObject`] with path and value of each field that is wrong, unknown fields included.
pub fn parse(kind: Kind, raw: &Value) -> Result<Vec<PolicyObject>, InvalidObject> {
    let of_object = kind.of_object();
    let object: api::Object = of_object.decode(raw)?;
    let mut errors = of_object.check(&object.api_version, &object.kind, &object.metadata);
    let namespace = of_object.namespaced.then(|| object.metadata.namespace());
    let origin = of_object.origin(object.metadata.namespace(), &object.metadata.name);
    let specs = object.specs.as_deref().unwrap_or_default();
    if object.spec.is_none() && specs.is_empty() {
        errors.push(FieldError::new("spec", "is missing"));
    }
    let spec = object.spec.iter().map(|spec| (spec, Arc::from(origin.as_str()), "spec".to_owned()));
    let specs = specs.iter().enumerate().map(|(index, spec)| {
        let path = format!("specs[{index}]");
        (spec, Arc::from(format!("{origin}#{path}")), path)
    });
    let policies = spec
        .chain(specs)
        .map(|(spec, origin, path)| compile::compile(spec, origin, namespace, &path, &mut errors))
        .collect();
    if errors.is_empty() { Ok(policies) } else { Err(of_object.refused(raw, errors)) }
}
