//! The language `networking.k8s.io/v1` `NetworkPolicy`: objects as they stand in manifests or come from the API,
//! turned into the common form. Follows the API's documentation and validation; a field it does not know refuses
//! the object, since what it would have restricted cannot be guessed.

use std::sync::Arc;

use serde_json::Value;

mod api;
mod compile;
mod isolation;
#[cfg(test)]
mod tests;

pub use isolation::isolation_of;

use crate::labels::{self, syntax};
use crate::rules::PolicyObject;
use crate::selector::{FieldError, LabelSelector, Requirement, Selector};

/// The kind, first part of every origin.
pub const KIND: &str = "NetworkPolicy";
/// The API group and version that [`parse`] reads.
pub const API_VERSION: &str = "networking.k8s.io/v1";

/// A `NetworkPolicy` that is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{}", .name.as_ref().map(|name| format!("{name}: ")).unwrap_or_default(), joined(.errors))]
pub struct InvalidNetworkPolicy {
    /// `NetworkPolicy/namespace/name`, where readable.
    pub name: Option<String>,
    /// Everything that is wrong, at least one.
    pub errors: Vec<FieldError>,
}

fn joined(errors: &[FieldError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Decodes a `NetworkPolicy` from the raw object. An absent namespace is `default`.
///
/// # Errors
/// [`InvalidNetworkPolicy`] with path and value of each field that is wrong, unknown fields included.
pub fn parse(raw: &Value) -> Result<PolicyObject, InvalidNetworkPolicy> {
    let refused = |errors| InvalidNetworkPolicy { name: name_of(raw), errors };
    let object: api::NetworkPolicy = serde_path_to_error::deserialize(raw).map_err(|error| {
        let path = error.path().to_string();
        refused(vec![FieldError::new(path, error.into_inner().to_string())])
    })?;
    let mut errors = object.check_header();
    let policy = compile::compile(&object, &mut errors);
    if errors.is_empty() { Ok(policy) } else { Err(refused(errors)) }
}

/// `NetworkPolicy/namespace/name` of a raw object, where it can be read.
#[must_use]
pub fn name_of(raw: &Value) -> Option<String> {
    let metadata = raw.get("metadata")?;
    let name = metadata.get("name")?.as_str()?;
    let namespace = match metadata.get("namespace") {
        None | Some(Value::Null) => api::DEFAULT_NAMESPACE,
        Some(namespace) => namespace.as_str()?,
    };
    (syntax::is_subdomain(name) && syntax::is_dns_label(namespace))
        .then(|| origin_of(namespace, name).to_string())
}

fn origin_of(namespace: &str, name: &str) -> Arc<str> {
    format!("{KIND}/{namespace}/{name}").into()
}

/// The selector of the subject: never outside the policy's namespace, whatever its expressions say.
fn subject(selector: Option<&LabelSelector>, namespace: &str, errors: &mut Vec<FieldError>) -> Selector {
    let compiled = selector
        .map(|selector| selector.compile(labels::OBJECT_PREFIX, "spec.podSelector", errors))
        .unwrap_or_default();
    compiled.and(Requirement::is(labels::NAMESPACE, namespace))
}
