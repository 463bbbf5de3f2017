//! As much of the `OpenAPI` documents as clients ask for before they write: which kinds there are, and that the server itself
//! refuses unknown fields. Without that a client wants whole schemas, to check objects by itself.

use serde_json::{Map, Value, json};

use super::failure::{Answer, Failure};
use super::kind::Kind;
use super::kinds::Kinds;

/// The document at a path below `/openapi/v3`; the list of documents at none.
pub(super) fn answer(kinds: &Kinds, parts: &[&str]) -> Answer<Value> {
    let path = parts.join("/");
    if path.is_empty() {
        let entry = |kind: &Kind| {
            let path = of_version(kind);
            let url = format!("/openapi/v3/{path}");
            (path, json!({"serverRelativeURL": url}))
        };
        let paths: Map<String, Value> = kinds.iter().map(|kind| entry(kind)).collect();
        return Ok(json!({"paths": paths}));
    }
    let paths: Map<String, Value> =
        kinds.iter().filter(|kind| of_version(kind) == path).map(|kind| operations(kind)).collect();
    if paths.is_empty() {
        return Err(Failure::unknown_path());
    }
    Ok(json!({"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": "double"}, "paths": paths}))
}

/// `api/v1`, or `apis/GROUP/VERSION`.
fn of_version(kind: &Kind) -> String {
    let root = if kind.group.is_empty() { "api" } else { "apis" };
    format!("{root}/{}", kind.api_version())
}

/// Where objects of a kind are patched.
fn operations(kind: &Kind) -> (String, Value) {
    let within = if kind.namespaced { "namespaces/{namespace}/" } else { "" };
    let patch = json!({
        "parameters": [{"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}],
        "responses": {},
        "x-kubernetes-action": "patch",
        "x-kubernetes-group-version-kind": {"group": kind.group, "version": kind.version, "kind": kind.kind},
    });
    (format!("/{}/{within}{}/{{name}}", of_version(kind), kind.plural), json!({"patch": patch}))
}
