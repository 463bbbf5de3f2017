//! Creating and changing objects.

use std::sync::Arc;

use serde_json::{Value, json};

use super::admit;
use super::apply::{self, Manager};
use super::failure::{Answer, Cause, Failure};
use super::object;
use super::patch::{self, PatchType};
use super::query::Query;
use super::read::{self, Form};
use super::routes::Target;
use super::state::State;

/// What all requests that write may say.
const OPTIONS: [&str; 4] = ["dryRun", "fieldManager", "fieldValidation", "force"];

/// Who writes, and how strictly it is checked.
pub(super) struct Writer<'a> {
    pub(super) query: &'a Query,
    /// The client's name for itself, if it does not say `fieldManager`.
    pub(super) agent: &'a str,
}

/// What is to be stored, and whether its managers are known already.
struct Draft {
    object: Value,
    applied: bool,
}

impl<'a> Writer<'a> {
    fn manager(&self, target: &'a Target) -> Manager<'a>
    where
        Self: 'a,
    {
        let named = self.query.text("fieldManager");
        Manager { name: if named.is_empty() { self.agent } else { named }, sub: &target.sub }
    }

    fn check(&self, apply: bool) -> Answer<()> {
        let known = if apply {
            OPTIONS.as_slice()
        } else {
            OPTIONS.split_last().map(|(_, rest)| rest).unwrap_or_default()
        };
        self.query.only(known)
    }
}

/// Answers `create`.
pub(super) fn create(
    state: &mut State,
    target: &Target,
    writer: &Writer<'_>,
    object: Value,
) -> Answer<Value> {
    writer.check(false)?;
    make(state, target, writer, Draft { object, applied: false })
}

fn make(state: &mut State, target: &Target, writer: &Writer<'_>, draft: Draft) -> Answer<Value> {
    let kind = &target.kind;
    let Draft { mut object, applied } = draft;
    admit::check_type(kind, &object)?;
    admit::place(target, &mut object)?;
    if !object::text(&object, "/metadata/resourceVersion").is_empty() {
        return Err(Failure::bad_request("resourceVersion should not be set on objects to be created"));
    }
    admit::check_namespace(state, kind, object::namespace(&object))?;
    let name = object::name(&object).to_owned();
    admit::check_name(kind, &name)?;
    if state.store.get(&kind.bucket(), object::namespace(&object), &name).is_some() {
        return Err(Failure::already_exists(kind, &name));
    }
    admit::born(kind, &mut object);
    let mut object = admit::checked(kind, writer, None, &object)?;
    if !applied {
        apply::note(kind, None, &mut object, writer.manager(target));
    }
    commit(state, target, writer, object).map(|object| read::shown(kind, &object, Form::Whole).into_owned())
}

/// Answers `update`, of the object or of its status.
pub(super) fn update(
    state: &mut State,
    target: &Target,
    writer: &Writer<'_>,
    object: Value,
) -> Answer<Value> {
    writer.check(false)?;
    let old = state.find(&target.kind, &target.namespace, &target.name)?;
    admit::check_type(&target.kind, &object)?;
    change(state, target, writer, &old, Draft { object, applied: false })
}

/// Answers `patch`.
pub(super) fn patch(
    state: &mut State,
    target: &Target,
    writer: &Writer<'_>,
    how: PatchType,
    body: &[u8],
) -> Answer<Value> {
    writer.check(false)?;
    let old = state.find(&target.kind, &target.namespace, &target.name)?;
    let shown = read::shown(&target.kind, &old, Form::Whole);
    let object = patch::patched(how, &shown, body)?;
    change(state, target, writer, &old, Draft { object, applied: false })
}

/// Answers a server-side apply, and whether the object is new.
pub(super) fn apply(
    state: &mut State,
    target: &Target,
    writer: &Writer<'_>,
    body: &[u8],
) -> Answer<(bool, Value)> {
    writer.check(true)?;
    let kind = &target.kind;
    if writer.query.text("fieldManager").is_empty() {
        return Err(Failure::bad_request("fieldManager is required for apply patch"));
    }
    let bad = |error: &dyn std::fmt::Display| Failure::bad_request(format!("error decoding YAML: {error}"));
    let text = std::str::from_utf8(body).map_err(|error| bad(&error))?;
    let mut wish: Value = serde_saphyr::from_str(text).map_err(|error| bad(&error))?;
    admit::check_type(kind, &wish)?;
    if wish.pointer("/metadata/managedFields").is_some() {
        return Err(Failure::bad_request("metadata.managedFields must be nil"));
    }
    if target.sub == "status" {
        let status = wish.get("status").cloned();
        object::map_mut(&mut wish).retain(|key, _| ["apiVersion", "kind"].contains(&key.as_str()));
        object::map_mut(&mut wish).extend(status.map(|status| ("status".to_owned(), status)));
    } else if kind.status {
        object::map_mut(&mut wish).remove("status");
    }
    let force = writer.query.flag("force")?;
    let manager = writer.manager(target);
    let Some(old) = state.store.get(&kind.bucket(), &target.namespace, &target.name).cloned() else {
        if !target.sub.is_empty() {
            return Err(Failure::not_found(kind, &target.name));
        }
        let bare = json!({"apiVersion": kind.api_version(), "kind": kind.kind, "metadata": {}});
        let object = apply::applied(kind, &bare, &wish, manager, force)?;
        return make(state, target, writer, Draft { object, applied: true }).map(|object| (true, object));
    };
    let shown = read::shown(kind, &old, Form::Whole);
    let mut object = apply::applied(kind, &shown, &wish, manager, force)?;
    let version = object::text(&wish, "/metadata/resourceVersion");
    if !version.is_empty() {
        object::set_meta(&mut object, "resourceVersion", version);
    }
    change(state, target, writer, &old, Draft { object, applied: true }).map(|object| (false, object))
}

/// Makes an object what it is asked to be, as far as that may be asked for.
fn change(
    state: &mut State,
    target: &Target,
    writer: &Writer<'_>,
    old: &Arc<Value>,
    draft: Draft,
) -> Answer<Value> {
    let kind = &target.kind;
    let Draft { object: mut new, applied } = draft;
    admit::place(target, &mut new)?;
    admit::check_same(kind, old, &new)?;
    let shown = read::shown(kind, old, Form::Whole).into_owned();
    let managers = new.pointer("/metadata/managedFields").cloned();
    admit::keep(kind, &target.sub, &shown, &mut new);
    let added = object::finalizers(&new).iter().any(|finalizer| !object::finalizers(old).contains(finalizer));
    if object::is_deleting(old) && added {
        let why = "no new finalizers can be added if the object is being deleted";
        return Err(Failure::invalid(kind, &target.name, &[Cause::forbidden("metadata.finalizers", why)]));
    }
    let mut new = admit::checked(kind, writer, Some(&shown), &new)?;
    if kind.generation && admit::differs(kind, &shown, &new) {
        let generation = old.pointer("/metadata/generation").and_then(Value::as_u64).unwrap_or(0) + 1;
        object::set_meta(&mut new, "generation", generation);
    }
    match managers.filter(|_| applied) {
        Some(managers) => object::set_meta(&mut new, "managedFields", managers),
        None => apply::note(kind, Some(&shown), &mut new, writer.manager(target)),
    }
    if new == shown {
        return Ok(shown);
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
    if waited && kind.plural != "namespaces" && !lingers(&object) {
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
