//! Creating, changing and deleting objects.

use std::sync::Arc;

use serde_json::{Value, json};

use super::failure::{Answer, Cause, Failure};
use super::kind::{Kind, Shape};
use super::object;
use super::patch::{self, PatchType};
use super::query::Query;
use super::read::{self, Form};
use super::routes::Target;
use super::selector::Selector;
use super::state::State;

/// What all requests that write may say.
const OPTIONS: [&str; 3] = ["dryRun", "fieldManager", "fieldValidation"];

/// Who writes, and how strictly it is checked.
pub(super) struct Writer<'a> {
    pub(super) query: &'a Query,
}

/// Answers `create`.
pub(super) fn create(
    state: &mut State,
    target: &Target,
    writer: &Writer<'_>,
    mut object: Value,
) -> Answer<Value> {
    writer.query.only(&OPTIONS)?;
    let kind = &target.kind;
    check_type(kind, &object)?;
    place(target, &mut object)?;
    if !object::text(&object, "/metadata/resourceVersion").is_empty() {
        return Err(Failure::bad_request("resourceVersion should not be set on objects to be created"));
    }
    check_namespace(state, kind, object::namespace(&object))?;
    let name = object::name(&object).to_owned();
    check_name(kind, &name)?;
    if state.store.get(&kind.bucket(), object::namespace(&object), &name).is_some() {
        return Err(Failure::already_exists(kind, &name));
    }
    born(kind, &mut object);
    let object = checked(kind, writer, &object)?;
    commit(state, target, writer, object).map(|object| read::shown(kind, &object, Form::Whole).into_owned())
}

/// Answers `update`, of the object or of its status.
pub(super) fn update(
    state: &mut State,
    target: &Target,
    writer: &Writer<'_>,
    object: Value,
) -> Answer<Value> {
    writer.query.only(&OPTIONS)?;
    let old = state.find(&target.kind, &target.namespace, &target.name)?;
    check_type(&target.kind, &object)?;
    change(state, target, writer, &old, object)
}

/// Answers `patch`.
pub(super) fn patch(
    state: &mut State,
    target: &Target,
    writer: &Writer<'_>,
    how: PatchType,
    body: &[u8],
) -> Answer<Value> {
    writer.query.only(&OPTIONS)?;
    let old = state.find(&target.kind, &target.namespace, &target.name)?;
    let shown = read::shown(&target.kind, &old, Form::Whole);
    let patched = patch::patched(how, &shown, body)?;
    change(state, target, writer, &old, patched)
}

/// Makes an object what it is asked to be, as far as that may be asked for.
fn change(
    state: &mut State,
    target: &Target,
    writer: &Writer<'_>,
    old: &Arc<Value>,
    mut new: Value,
) -> Answer<Value> {
    let kind = &target.kind;
    place(target, &mut new)?;
    check_same(kind, old, &new)?;
    let old_shown = read::shown(kind, old, Form::Whole).into_owned();
    keep(kind, &target.sub, &old_shown, &mut new);
    if object::is_deleting(old) {
        let added =
            object::finalizers(&new).iter().any(|finalizer| !object::finalizers(old).contains(finalizer));
        if added {
            let why = "no new finalizers can be added if the object is being deleted";
            return Err(Failure::invalid(
                kind,
                &target.name,
                &[Cause::forbidden("metadata.finalizers", why)],
            ));
        }
    }
    let mut new = checked(kind, writer, &new)?;
    if kind.generation && differs(kind, &old_shown, &new) {
        let generation = old.pointer("/metadata/generation").and_then(Value::as_u64).unwrap_or(0) + 1;
        object::set_meta(&mut new, "generation", generation);
    }
    if new == old_shown {
        return Ok(old_shown);
    }
    let stored = commit(state, target, writer, new)?;
    Ok(read::shown(kind, &stored, Form::Whole).into_owned())
}

/// Stores an object, or removes it if that was all it waited for.
fn commit(state: &mut State, target: &Target, writer: &Writer<'_>, object: Value) -> Answer<Arc<Value>> {
    let kind = &target.kind;
    if writer.query.dry_run()? {
        return Ok(Arc::new(object));
    }
    let object = if kind.plural == "events" { super::events::kept(object) } else { object };
    let waited = object::is_deleting(&object) && object::finalizers(&object).is_empty();
    if waited && !object::text(&object, "/metadata/deletionTimestamp").is_empty() && !lingers(&object) {
        let (namespace, name) = (object::namespace(&object).to_owned(), object::name(&object).to_owned());
        state.remove(&kind.bucket(), &namespace, &name)?;
        return Ok(Arc::new(object));
    }
    state.put(&kind.bucket(), object)
}

/// Whether it is a pod that a node has yet to end.
fn lingers(object: &Value) -> bool {
    object.pointer("/metadata/deletionGracePeriodSeconds").and_then(Value::as_u64).unwrap_or(0) > 0
}

/// Answers `delete`.
pub(super) fn delete(state: &mut State, target: &Target, query: &Query, options: &Value) -> Answer<Value> {
    let asked = Deletion::parse(query, options)?;
    let kind = &target.kind;
    let old = state.find(kind, &target.namespace, &target.name)?;
    asked.check(kind, &old)?;
    match remove(state, kind, &old, &asked)? {
        Some(stays) => Ok(read::shown(kind, &stays, Form::Whole).into_owned()),
        None => Ok(json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Success",
            "details": {"name": target.name, "group": kind.group, "kind": kind.plural, "uid": object::uid(&old)},
        })),
    }
}

/// Answers `deletecollection`.
pub(super) fn delete_all(
    state: &mut State,
    target: &Target,
    query: &Query,
    options: &Value,
) -> Answer<Value> {
    let mut only = DELETE_OPTIONS.to_vec();
    only.extend(["labelSelector", "fieldSelector", "limit"]);
    query.only(&only)?;
    let asked = Deletion::of(query, options)?;
    let kind = &target.kind;
    let selector =
        Selector::parse(kind, &target.namespace, query.text("labelSelector"), query.text("fieldSelector"))?;
    let all: Vec<Arc<Value>> =
        state.store.list(&kind.bucket()).filter(|object| selector.matches(object)).cloned().collect();
    for object in &all {
        remove(state, kind, object, &asked)?;
    }
    let metadata = json!({"resourceVersion": state.store.version().to_string()});
    let items: Vec<Value> =
        all.iter().map(|object| read::shown(kind, object, Form::Whole).into_owned()).collect();
    Ok(read::as_list(kind, Form::Whole, &metadata, &items))
}

/// Removes an object, or marks it where something has to happen first.
pub(super) fn remove(
    state: &mut State,
    kind: &Kind,
    old: &Arc<Value>,
    asked: &Deletion,
) -> Answer<Option<Arc<Value>>> {
    let grace = asked.grace(kind, old);
    if asked.dry_run {
        return Ok(Some(Arc::clone(old)));
    }
    if object::finalizers(old).is_empty() && grace == 0 {
        state.remove(&kind.bucket(), object::namespace(old), object::name(old))?;
        return Ok(None);
    }
    let known = old.pointer("/metadata/deletionGracePeriodSeconds").and_then(Value::as_u64);
    if object::is_deleting(old) && known.is_none_or(|known| known <= grace) {
        return Ok(Some(Arc::clone(old)));
    }
    let mut marked = Value::clone(old);
    object::set_meta(&mut marked, "deletionTimestamp", object::now());
    object::set_meta(&mut marked, "deletionGracePeriodSeconds", grace);
    if kind.generation {
        let generation = old.pointer("/metadata/generation").and_then(Value::as_u64).unwrap_or(0) + 1;
        object::set_meta(&mut marked, "generation", generation);
    }
    state.put(&kind.bucket(), marked).map(Some)
}

const DELETE_OPTIONS: [&str; 3] = ["dryRun", "gracePeriodSeconds", "propagationPolicy"];

/// How something is to be deleted.
#[derive(Debug, Default)]
pub(super) struct Deletion {
    dry_run: bool,
    grace: Option<u64>,
    uid: String,
    version: String,
}

impl Deletion {
    fn parse(query: &Query, options: &Value) -> Answer<Self> {
        query.only(&DELETE_OPTIONS)?;
        Self::of(query, options)
    }

    fn of(query: &Query, options: &Value) -> Answer<Self> {
        let policy = [query.text("propagationPolicy"), object::text(options, "/propagationPolicy")];
        if let Some(other) = policy.into_iter().find(|policy| !["", "Background"].contains(policy)) {
            return Err(Failure::not_implemented(format!("the propagation policy {other:?}")));
        }
        let known =
            ["kind", "apiVersion", "propagationPolicy", "gracePeriodSeconds", "preconditions", "dryRun"];
        let unknown =
            options.as_object().and_then(|map| map.keys().find(|key| !known.contains(&key.as_str())));
        if let Some(unknown) = unknown {
            return Err(Failure::not_implemented(format!("the delete option {unknown:?}")));
        }
        Ok(Self {
            dry_run: query.dry_run()? || !object::list(options, "/dryRun").is_empty(),
            grace: query
                .number("gracePeriodSeconds")?
                .or_else(|| options.get("gracePeriodSeconds")?.as_u64()),
            uid: object::text(options, "/preconditions/uid").to_owned(),
            version: object::text(options, "/preconditions/resourceVersion").to_owned(),
        })
    }

    fn check(&self, kind: &Kind, old: &Value) -> Answer<()> {
        let (uid, version) = (object::uid(old), object::text(old, "/metadata/resourceVersion"));
        for (what, wanted, found) in [("UID", &self.uid, uid), ("ResourceVersion", &self.version, version)] {
            if !wanted.is_empty() && wanted != found {
                let why = format!(
                    "the {what} in the precondition ({wanted}) does not match the {what} in record ({found}). The object might have been deleted and then recreated"
                );
                return Err(Failure::conflict(kind, object::name(old), &why));
            }
        }
        Ok(())
    }

    /// How long a pod's node may take to end it; it is a node that removes pods which run on one.
    fn grace(&self, kind: &Kind, old: &Value) -> u64 {
        let ended = ["Succeeded", "Failed"].contains(&object::text(old, "/status/phase"));
        let runs = kind.plural == "pods" && !object::text(old, "/spec/nodeName").is_empty() && !ended;
        if !runs {
            return 0;
        }
        let own = old.pointer("/spec/terminationGracePeriodSeconds").and_then(Value::as_u64);
        self.grace.or(own).unwrap_or(30)
    }
}

fn check_type(kind: &Kind, object: &Value) -> Answer<()> {
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
fn place(target: &Target, object: &mut Value) -> Answer<()> {
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

fn check_namespace(state: &State, kind: &Kind, namespace: &str) -> Answer<()> {
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

fn check_name(kind: &Kind, name: &str) -> Answer<()> {
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
fn born(kind: &Kind, object: &mut Value) {
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
fn check_same(kind: &Kind, old: &Value, new: &Value) -> Answer<()> {
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
fn keep(kind: &Kind, sub: &str, old: &Value, new: &mut Value) {
    if sub == "status" {
        let (status, fields) = (new.get("status").cloned(), new.pointer("/metadata/managedFields").cloned());
        *new = old.clone();
        match status {
            Some(status) => object::map_mut(new).insert("status".to_owned(), status),
            None => object::map_mut(new).remove("status"),
        };
        if let Some(fields) = fields {
            object::set_meta(new, "managedFields", fields);
        }
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
    ];
    for key in fixed {
        object::copy_meta(old, new, key);
    }
}

/// Whether something but the metadata and the status is another.
fn differs(kind: &Kind, old: &Value, new: &Value) -> bool {
    let counted = |key: &&String| key.as_str() != "metadata" && !(kind.status && key.as_str() == "status");
    let keys = |object: &Value| -> Vec<String> {
        object.as_object().into_iter().flat_map(|map| map.keys().filter(counted).cloned()).collect()
    };
    keys(old).iter().chain(&keys(new)).any(|key| old.get(key) != new.get(key))
}

/// Checks an object against its kind; what it does not know is gone, or refused.
fn checked(kind: &Kind, writer: &Writer<'_>, object: &Value) -> Answer<Value> {
    let strict = match writer.query.text("fieldValidation") {
        "Strict" => true,
        "" | "Warn" | "Ignore" => false,
        other => return Err(Failure::bad_request(format!("fieldValidation is unknown: {other:?}"))),
    };
    let name = object::name(object).to_owned();
    let done = match &kind.shape {
        Shape::Typed(typed) => match typed(object.clone()) {
            Ok(known) => known,
            Err(error) => {
                return Err(Failure::bad_request(format!(
                    "{} in version {:?} cannot be handled as a {}: {error}",
                    kind.kind, kind.version, kind.kind
                )));
            }
        },
    };
    let mut unknown = Vec::new();
    lost("", object, &done, &mut unknown);
    if strict && !unknown.is_empty() {
        let unknown: Vec<String> = unknown.iter().map(|field| format!("unknown field \"{field}\"")).collect();
        let why = format!("strict decoding error: {}", unknown.join(", "));
        let message = format!(
            "{} in version {:?} cannot be handled as a {}: {why}",
            kind.kind, kind.version, kind.kind
        );
        return Err(Failure::bad_request(message));
    }
    check_name(kind, &name)?;
    Ok(done)
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
