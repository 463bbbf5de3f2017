//! What happens to an object between a request and the store: it is put in its place, completed and checked.

use serde_json::{Value, json};

use super::crd;
use super::failure::{Answer, Cause, Failure};
use super::kind::{Kind, Shape};
use super::object;
use super::routes::Target;
use super::schema::{self, Schema};
use super::state::State;
use super::write::Writer;
use super::{cel, validate};

pub(super) fn check_type(kind: &Kind, object: &Value) -> Answer<()> {
    let (given, expected) = (object::text(object, "/apiVersion"), kind.api_version());
    if given != expected || object::text(object, "/kind") != kind.kind {
        return Err(Failure::bad_request(format!(
            "the object is a {given:?} {:?}, and the request is about a {expected:?} {:?}",
            object::text(object, "/kind"),
            kind.kind
        )));
    }
    Ok(())
}

/// The object is where the path says.
pub(super) fn place(target: &Target, object: &mut Value) -> Answer<()> {
    let (inside, named) = (object::namespace(object).to_owned(), object::name(object).to_owned());
    if !inside.is_empty() && inside != target.namespace {
        return Err(Failure::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    if !target.name.is_empty() && !named.is_empty() && named != target.name {
        return Err(Failure::bad_request(format!(
            "the name of the object ({named}) does not match the name on the URL ({})",
            target.name
        )));
    }
    if target.kind.namespaced {
        object::set_meta(object, "namespace", target.namespace.clone());
    }
    let prefix = object::text(object, "/metadata/generateName").to_owned();
    if !target.name.is_empty() {
        object::set_meta(object, "name", target.name.clone());
    } else if named.is_empty() && !prefix.is_empty() {
        object::set_meta(object, "name", format!("{prefix}{}", random_suffix()));
    }
    Ok(())
}

fn random_suffix() -> String {
    let letters = b"bcdfghjklmnpqrstvwxz2456789";
    let random: [u8; 5] = rand::random();
    random
        .iter()
        .filter_map(|byte| letters.get(usize::from(*byte) % letters.len()))
        .map(|byte| char::from(*byte))
        .collect()
}

pub(super) fn check_namespace(state: &State, kind: &Kind, namespace: &str) -> Answer<()> {
    if !kind.namespaced {
        return Ok(());
    }
    let namespaces = state.kinds.get("", "v1", "namespaces").ok_or_else(Failure::unknown_path)?;
    let found = state.find(&namespaces, "", namespace)?;
    if object::is_deleting(&found) {
        let why =
            format!("unable to create new content in namespace {namespace} because it is being terminated");
        return Err(Failure::forbidden(kind, "", &why));
    }
    Ok(())
}

pub(super) fn check_name(kind: &Kind, name: &str) -> Answer<()> {
    let cause = if name.is_empty() {
        Cause::required("metadata.name", "name or generateName is required")
    } else {
        // The names of roles may have any characters that a path may have.
        let free = kind.group == "rbac.authorization.k8s.io";
        let label = ["namespaces", "services"].contains(&kind.plural.as_str());
        let valid = if label { pki::is_dns1123_label(name) } else { pki::is_dns1123_subdomain(name) };
        if valid || (free && !name.contains(['/', '%'])) {
            return Ok(());
        }
        let what = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character";
        Cause::invalid("metadata.name", format!("Invalid value: \"{name}\": {what}"))
    };
    Err(Failure::invalid(kind, name, &[cause]))
}

/// What a new object has of the server, and does not have of the client.
pub(super) fn born(kind: &Kind, object: &mut Value) {
    let meta = object::meta_mut(object);
    for key in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "generation"] {
        meta.remove(key);
    }
    object::set_meta(object, "uid", object::new_uid());
    object::set_meta(object, "creationTimestamp", object::now());
    if kind.generation {
        object::set_meta(object, "generation", 1);
    }
    // A node tells its status when it joins.
    if kind.status && kind.plural != "nodes" {
        object::map_mut(object).remove("status");
    }
    let status = match kind.plural.as_str() {
        "namespaces" => {
            let name = object::name(object).to_owned();
            let labels = object::map_mut(object::meta_mut(object).entry("labels").or_insert(Value::Null));
            labels.insert("kubernetes.io/metadata.name".to_owned(), name.into());
            json!({"phase": "Active"})
        }
        "pods" => json!({"phase": "Pending"}),
        _ => return,
    };
    object::map_mut(object).insert("status".to_owned(), status);
}

/// The object is the one that was, and has not changed since the client read it.
pub(super) fn check_same(kind: &Kind, old: &Value, new: &Value) -> Answer<()> {
    let (uid, version) = (object::uid(new), object::text(new, "/metadata/resourceVersion"));
    if !uid.is_empty() && uid != object::uid(old) {
        let why = format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            object::uid(old)
        );
        return Err(Failure::conflict(kind, object::name(old), &why));
    }
    if !version.is_empty() && version != object::text(old, "/metadata/resourceVersion") {
        return Err(Failure::modified(kind, object::name(old)));
    }
    Ok(())
}

/// Puts back what this request may not change.
pub(super) fn keep(kind: &Kind, sub: &str, old: &Value, new: &mut Value) {
    if sub == "status" {
        let status = new.get("status").cloned();
        *new = old.clone();
        object::map_mut(new).remove("status");
        object::map_mut(new).extend(status.map(|status| ("status".to_owned(), status)));
    } else if kind.status {
        object::copy_field(old, new, "status");
    }
    let fixed = [
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "selfLink",
        "resourceVersion",
        "generateName",
        "managedFields",
    ];
    for key in fixed {
        object::copy_meta(old, new, key);
    }
}

/// Whether something but the metadata and the status is another.
pub(super) fn differs(kind: &Kind, old: &Value, new: &Value) -> bool {
    let counted = |key: &&String| key.as_str() != "metadata" && !(kind.status && key.as_str() == "status");
    let keys = |object: &Value| -> Vec<String> {
        object.as_object().into_iter().flat_map(|map| map.keys().filter(counted).cloned()).collect()
    };
    keys(old).iter().chain(&keys(new)).any(|key| old.get(key) != new.get(key))
}

/// Checks an object against its kind; what it does not know is gone, or refused.
pub(super) fn checked(
    kind: &Kind,
    writer: &Writer<'_>,
    old: Option<&Value>,
    object: &Value,
) -> Answer<Value> {
    let strict = match writer.query.text("fieldValidation") {
        "Strict" => true,
        "" | "Warn" | "Ignore" => false,
        other => return Err(Failure::bad_request(format!("fieldValidation is unknown: {other:?}"))),
    };
    let bad = |why: String| {
        Failure::bad_request(format!(
            "{0} in version {1:?} cannot be handled as a {0}: {why}",
            kind.kind, kind.version
        ))
    };
    let mut unknown = Vec::new();
    let mut done = match &kind.shape {
        Shape::Typed(typed) => {
            let known = typed(object.clone()).map_err(bad)?;
            lost("", object, &known, &mut unknown);
            known
        }
        Shape::Custom(schema) => {
            let mut known = object.clone();
            schema.prune("", &mut known, &mut unknown);
            schema.complete(&mut known);
            schema::metadata(&mut known).map_err(bad)?;
            if let (Some(given), Some(kept)) = (object.get("metadata"), known.get("metadata")) {
                lost("metadata", given, kept, &mut unknown);
            }
            known
        }
    };
    if strict && !unknown.is_empty() {
        let unknown: Vec<String> = unknown.iter().map(|field| format!("unknown field \"{field}\"")).collect();
        return Err(bad(format!("strict decoding error: {}", unknown.join(", "))));
    }
    if let Shape::Custom(schema) = &kind.shape {
        valid(kind, schema, old, &done)?;
    }
    if kind.bucket() == crd::bucket() {
        crd::kinds(kind, &done)?;
        crd::established(&mut done);
    }
    Ok(done)
}

/// Checks a custom resource; rules are asked about what is otherwise valid.
fn valid(kind: &Kind, schema: &Schema, old: Option<&Value>, object: &Value) -> Answer<()> {
    let mut causes = Vec::new();
    validate::validate(schema, "", object, &mut causes);
    if causes.is_empty() {
        cel::validate(schema, "", object, old, &mut causes);
    }
    if causes.is_empty() { Ok(()) } else { Err(Failure::invalid(kind, object::name(object), &causes)) }
}

/// The fields that one value has and the other does not.
fn lost(path: &str, before: &Value, after: &Value, found: &mut Vec<String>) {
    if let (Some(before), Some(after)) = (before.as_object(), after.as_object()) {
        for (key, value) in before.iter().filter(|(_, value)| !value.is_null()) {
            let inside = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            match after.get(key) {
                Some(kept) => lost(&inside, value, kept, found),
                None => found.push(inside),
            }
        }
    }
    if let (Some(before), Some(after)) = (before.as_array(), after.as_array()) {
        for (index, (value, kept)) in before.iter().zip(after).enumerate() {
            lost(&format!("{path}[{index}]"), value, kept, found);
        }
    }
}
