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

use crate::labels;
use crate::object::{InvalidObject, KindOfObject};
use crate::rules::PolicyObject;
use crate::selector::{FieldError, LabelSelector, Requirement, Selector};

/// The kind, first part of every origin.
pub const KIND: &str = "NetworkPolicy";
/// The API group and version that [`parse`] reads.
pub const API_VERSION: &str = "networking.k8s.io/v1";

const OF_OBJECT: KindOfObject = KindOfObject { api_version: API_VERSION, name: KIND, namespaced: true };

/// Decodes a `NetworkPolicy` from the raw object. An absent namespace is `default`.
///
/// # Errors
/// [`InvalidObject`] with path and value of each field that is wrong, unknown fields included.
pub fn parse(raw: &Value) -> Result<PolicyObject, InvalidObject> {
    let object: api::NetworkPolicy = OF_OBJECT.decode(raw)?;
    let mut errors = OF_OBJECT.check(&object.api_version, &object.kind, &object.metadata);
    let policy = compile::compile(&object, &mut errors);
    if errors.is_empty() { Ok(policy) } else { Err(OF_OBJECT.refused(raw, errors)) }
}

/// `NetworkPolicy/namespace/name` of a raw object, where it can be read.
#[must_use]
pub fn name_of(raw: &Value) -> Option<String> {
    OF_OBJECT.name_of(raw)
}

fn origin_of(namespace: &str, name: &str) -> Arc<str> {
    OF_OBJECT.origin(namespace, name).into()
}

/// The selector of the subject: never outside the policy's namespace, whatever its expressions say.
fn subject(selector: Option<&LabelSelector>, namespace: &str, errors: &mut Vec<FieldError>) -> Selector {
    let compiled = selector
        .map(|selector| selector.compile(labels::OBJECT_PREFIX, "spec.podSelector", errors))
        .unwrap_or_default();
    compiled.and(Requirement::is(labels::NAMESPACE, namespace))
}
