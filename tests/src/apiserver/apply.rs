//! Who manages which field: server-side apply, and what other writes leave in `managedFields`.

use serde_json::{Value, json};

use super::failure::{Answer, Failure};
use super::kind::Kind;
use super::object;

mod fields;
mod layout;

use fields::Fields;
use layout::{Layout, Lists};

/// An entry of `managedFields`.
#[derive(Clone, Debug)]
struct Entry {
    manager: String,
    applied: bool,
    api_version: String,
    subresource: String,
    time: String,
    fields: Fields,
}

/// Who writes, and by what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manager<'a> {
    pub(super) name: &'a str,
    /// `status`, or empty.
    pub(super) sub: &'a str,
}

impl Entry {
    fn parse(value: &Value) -> Self {
        Self {
            manager: object::text(value, "/manager").to_owned(),
            applied: object::text(value, "/operation") == "Apply",
            api_version: object::text(value, "/apiVersion").to_owned(),
            subresource: object::text(value, "/subresource").to_owned(),
            time: object::text(value, "/time").to_owned(),
            fields: Fields::parse(value.get("fieldsV1").unwrap_or(&Value::Null)),
        }
    }

    fn show(&self) -> Value {
        let mut shown = json!({
            "manager": self.manager,
            "operation": if self.applied { "Apply" } else { "Update" },
            "apiVersion": self.api_version,
            "time": self.time,
            "fieldsType": "FieldsV1",
            "fieldsV1": self.fields.show(),
        });
        if !self.subresource.is_empty() {
            object::map_mut(&mut shown).insert("subresource".to_owned(), self.subresource.clone().into());
        }
        shown
    }

    fn is(&self, manager: Manager<'_>, applied: bool) -> bool {
        self.manager == manager.name && self.applied == applied && self.subresource == manager.sub
    }
}

fn entries(object: &Value) -> Vec<Entry> {
    object::list(object, "/metadata/managedFields").iter().map(Entry::parse).collect()
}

fn set_entries(object: &mut Value, entries: &[Entry]) {
    let shown: Vec<Value> =
        entries.iter().filter(|entry| !entry.fields.is_empty()).map(Entry::show).collect();
    if shown.is_empty() {
        object::meta_mut(object).remove("managedFields");
    } else {
        object::set_meta(object, "managedFields", shown);
    }
}

/// What of an object is managed: not what the server says, nor what names it.
fn managed(object: &Value) -> Value {
    let mut managed = object.clone();
    let map = object::map_mut(&mut managed);
    map.remove("apiVersion");
    map.remove("kind");
    let meta = object::meta_mut(&mut managed);
    meta.retain(|key, _| ["labels", "annotations", "finalizers", "ownerReferences"].contains(&key.as_str()));
    if meta.is_empty() {
        object::map_mut(&mut managed).remove("metadata");
    }
    managed
}

/// Notes what a write that is no apply has changed.
pub(super) fn note(kind: &Kind, old: Option<&Value>, new: &mut Value, manager: Manager<'_>) {
    let layout = Layout::of(kind);
    let mut all = old.map(entries).unwrap_or_default();
    let after = managed(new);
    let changed = Fields::changed(&layout, &old.map_or_else(|| json!({}), managed), &after);
    for entry in &mut all {
        let mine = entry.is(manager, false);
        entry.fields = entry.fields.present(&layout, &after);
        if !mine {
            entry.fields = entry.fields.without(&changed);
        }
    }
    if !changed.is_empty() {
        add(&mut all, kind, manager, false, |fields| fields.extend(&changed));
    }
    set_entries(new, &all);
}

/// Changes the entry of a manager, made if absent; its time is that of its last change.
fn add(
    all: &mut Vec<Entry>,
    kind: &Kind,
    manager: Manager<'_>,
    applied: bool,
    change: impl FnOnce(&mut Fields),
) {
    let found = all.iter().position(|entry| entry.is(manager, applied));
    let new = || Entry {
        manager: manager.name.to_owned(),
        applied,
        api_version: kind.api_version(),
        subresource: manager.sub.to_owned(),
        time: String::new(),
        fields: Fields::default(),
    };
    let mut entry = found.map_or_else(new, |index| all.remove(index));
    let before = entry.fields.clone();
    change(&mut entry.fields);
    if entry.fields != before || entry.time.is_empty() {
        entry.time = object::now();
    }
    all.insert(found.unwrap_or(all.len()), entry);
}

/// The object after an apply, with its managers.
pub(super) fn applied(
    kind: &Kind,
    old: &Value,
    applied: &Value,
    manager: Manager<'_>,
    force: bool,
) -> Answer<Value> {
    let layout = Layout::of(kind);
    let mut all = entries(old);
    let wish = managed(applied);
    let mut mine = Fields::of(&layout, &wish);
    mine.own = false;
    let live = managed(old);
    let other_values = Fields::changed(&layout, &live, &wish);
    let conflicts = conflicts(&all, &other_values, manager);
    if !conflicts.is_empty() && !force {
        return Err(refused(kind, object::name(old), &conflicts));
    }
    for entry in all.iter_mut().filter(|entry| !entry.is(manager, true)) {
        entry.fields = entry.fields.without(&entry.fields.common(&other_values));
    }
    let before = all.iter().find(|entry| entry.is(manager, true)).map(|entry| entry.fields.clone());
    let mut given_up = before.unwrap_or_default().without(&mine);
    for entry in all.iter().filter(|entry| !entry.is(manager, true)) {
        given_up = given_up.without(&entry.fields);
    }
    let mut merged = old.clone();
    given_up.remove_from(&layout, &mut merged);
    merge(&layout, &mut merged, &wish);
    add(&mut all, kind, manager, true, |fields| *fields = mine);
    set_entries(&mut merged, &all);
    Ok(merged)
}

/// The fields of other managers that would get another value.
fn conflicts(all: &[Entry], changed: &Fields, manager: Manager<'_>) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in all.iter().filter(|entry| !entry.is(manager, true)) {
        let mut paths = Vec::new();
        entry.fields.common(changed).paths("", &mut paths);
        let using = if entry.applied { String::new() } else { format!(" using {}", entry.api_version) };
        found.extend(
            paths.into_iter().map(|path| (path, format!("conflict with \"{}\"{using}", entry.manager))),
        );
    }
    found
}

fn refused(kind: &Kind, name: &str, conflicts: &[(String, String)]) -> Failure {
    let texts: Vec<String> = conflicts.iter().map(|(path, why)| format!("{why}: {path}")).collect();
    let plural = if texts.len() == 1 { "conflict" } else { "conflicts" };
    let message = format!("Apply failed with {} {plural}: {}", texts.len(), texts.join(", "));
    let mut failure = Failure::new(409, "Conflict", message);
    let causes: Vec<Value> = conflicts
        .iter()
        .map(|(path, why)| json!({"reason": "FieldManagerConflict", "message": why, "field": path}))
        .collect();
    failure.details = json!({"name": name, "group": kind.group, "kind": kind.plural, "causes": causes});
    failure
}

/// Puts what is applied into an object.
fn merge(layout: &Layout<'_>, live: &mut Value, wish: &Value) {
    if let Some(fields) = wish.as_object().filter(|_| live.is_object() && !layout.is_atomic_map()) {
        for (name, value) in fields {
            let slot = object::map_mut(live).entry(name.clone()).or_insert(Value::Null);
            merge(&layout.field(name), slot, value);
        }
        return;
    }
    let lists = layout.lists();
    let (Some(before), Some(items), false) = (live.as_array_mut(), wish.as_array(), lists == Lists::Atomic)
    else {
        *live = wish.clone();
        return;
    };
    for item in items {
        let key = lists.key(item);
        match before.iter_mut().find(|before| lists.key(before) == key) {
            Some(before) => merge(&layout.item(), before, item),
            None => before.push(item.clone()),
        }
    }
}

#[cfg(test)]
mod tests;
