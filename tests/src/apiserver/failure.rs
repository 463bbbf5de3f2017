//! What the server answers when it refuses: a `Status`.

use serde_json::{Value, json};

use super::kind::Kind;

/// The answer to a request.
pub(super) type Answer<T> = Result<T, Failure>;

/// A refusal.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    /// The HTTP status.
    pub(super) code: u16,
    /// The machine's word for it.
    pub(super) reason: &'static str,
    /// What a person reads.
    pub(super) message: String,
    /// `details` of the `Status`.
    pub(super) details: Value,
}

/// One thing wrong with an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cause {
    /// The machine's word for it, `FieldValueInvalid`.
    pub(super) reason: &'static str,
    /// Where.
    pub(super) field: String,
    /// What a person reads, without the field.
    pub(super) message: String,
}

impl Failure {
    pub(super) fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: Value::Null }
    }

    fn about(code: u16, reason: &'static str, message: String, kind: &Kind, name: &str) -> Self {
        let details = json!({"name": name, "group": kind.group, "kind": kind.plural});
        Self { code, reason, message, details }
    }

    pub(super) fn not_found(kind: &Kind, name: &str) -> Self {
        let message = format!("{} \"{name}\" not found", kind.qualified());
        Self::about(404, "NotFound", message, kind, name)
    }

    pub(super) fn already_exists(kind: &Kind, name: &str) -> Self {
        let message = format!("{} \"{name}\" already exists", kind.qualified());
        Self::about(409, "AlreadyExists", message, kind, name)
    }

    pub(super) fn conflict(kind: &Kind, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} \"{name}\": {why}", kind.qualified());
        Self::about(409, "Conflict", message, kind, name)
    }

    pub(super) fn modified(kind: &Kind, name: &str) -> Self {
        let why =
            "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(kind, name, why)
    }

    pub(super) fn forbidden(kind: &Kind, name: &str, why: &str) -> Self {
        let quoted = if name.is_empty() { String::new() } else { format!(" \"{name}\"") };
        let message = format!("{}{quoted} is forbidden: {why}", kind.qualified());
        Self::about(403, "Forbidden", message, kind, name)
    }

    pub(super) fn invalid(kind: &Kind, name: &str, causes: &[Cause]) -> Self {
        let texts: Vec<String> =
            causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
        let all = match texts.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let message = format!("{} \"{name}\" is invalid: {all}", kind.qualified_kind());
        let causes: Vec<Value> = causes
            .iter()
            .map(|cause| json!({"reason": cause.reason, "field": cause.field, "message": cause.message}))
            .collect();
        let details = json!({"name": name, "group": kind.group, "kind": kind.kind, "causes": causes});
        Self { code: 422, reason: "Invalid", message, details }
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    pub(super) fn method_not_allowed() -> Self {
        Self::new(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
    }

    pub(super) fn unknown_path() -> Self {
        Self::new(404, "NotFound", "the server could not find the requested resource")
    }

    pub(super) fn unsupported_media(given: &str, known: &str) -> Self {
        let message = format!(
            "the body of the request was in an unknown format ({given:?}) - accepted media types include: {known}"
        );
        Self::new(415, "UnsupportedMediaType", message)
    }

    pub(super) fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// What a real server might do, and this one does not.
    pub(super) fn not_implemented(what: impl AsRef<str>) -> Self {
        Self::new(501, "NotImplemented", format!("the API double does not know {}", what.as_ref()))
    }

    /// The `Status`.
    pub(super) fn status(&self) -> Value {
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        });
        if let (Some(status), false) = (status.as_object_mut(), self.details.is_null()) {
            status.insert("details".to_owned(), self.details.clone());
        }
        status
    }
}

impl Cause {
    pub(super) fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { reason: "FieldValueInvalid", field: field.into(), message: message.into() }
    }

    pub(super) fn required(field: impl Into<String>, message: &str) -> Self {
        let message = if message.is_empty() {
            "Required value".to_owned()
        } else {
            format!("Required value: {message}")
        };
        Self { reason: "FieldValueRequired", field: field.into(), message }
    }

    pub(super) fn forbidden(field: impl Into<String>, message: &str) -> Self {
        Self { reason: "FieldValueForbidden", field: field.into(), message: format!("Forbidden: {message}") }
    }
}
