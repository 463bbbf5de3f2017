//! Deleting objects.

use std::sync::Arc;

use serde_json::{Value, json};

use super::failure::{Answer, Failure};
use super::kind::Kind;
use super::object;
use super::query::Query;
use super::read::{self, Form};
use super::routes::Target;
use super::selector::Selector;
use super::state::State;

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
    let namespace = kind.plural == "namespaces";
    if asked.dry_run {
        return Ok(Some(Arc::clone(old)));
    }
    if object::finalizers(old).is_empty() && grace == 0 && !namespace {
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
    if namespace {
        object::map_mut(&mut marked).insert("status".to_owned(), json!({"phase": "Terminating"}));
    }
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
