//! Sets of fields, as `managedFields` says them: a tree of `f:` names, `k:` keys of items and `v:` values.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::layout::{Layout, Lists};
use crate::apiserver::object;

/// A set of fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Fields {
    /// Whether this field itself is in it.
    pub(super) own: bool,
    pub(super) inside: BTreeMap<String, Fields>,
}

impl Fields {
    /// One field.
    pub(super) fn leaf() -> Self {
        Self { own: true, inside: BTreeMap::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.own && self.inside.is_empty()
    }

    /// All fields of a value.
    pub(super) fn of(layout: &Layout<'_>, value: &Value) -> Self {
        let mut inside = BTreeMap::new();
        if let Some(map) = value.as_object().filter(|map| !layout.is_atomic_map() && !map.is_empty()) {
            for (name, value) in map {
                inside.insert(format!("f:{name}"), Self::of(&layout.field(name), value));
            }
            return Self { own: false, inside };
        }
        let lists = layout.lists();
        for item in value.as_array().filter(|_| lists != Lists::Atomic).into_iter().flatten() {
            let key = lists.key(item);
            let fields = if key.starts_with("v:") { Self::default() } else { Self::of(&layout.item(), item) };
            inside.insert(key, Self { own: true, ..fields });
        }
        if inside.is_empty() { Self::leaf() } else { Self { own: false, inside } }
    }

    /// The fields that are new or other than they were.
    pub(super) fn changed(layout: &Layout<'_>, old: &Value, new: &Value) -> Self {
        if old == new {
            return Self::default();
        }
        let mut inside = BTreeMap::new();
        if let (Some(before), Some(after), false) = (old.as_object(), new.as_object(), layout.is_atomic_map())
        {
            for (name, value) in after {
                let layout = layout.field(name);
                let fields = match before.get(name) {
                    Some(before) => Self::changed(&layout, before, value),
                    None => Self::of(&layout, value),
                };
                inside.insert(format!("f:{name}"), fields);
            }
        } else if let (Some(before), Some(after), true) =
            (old.as_array(), new.as_array(), layout.lists() != Lists::Atomic)
        {
            let lists = layout.lists();
            for item in after {
                let key = lists.key(item);
                let fields = match before.iter().find(|before| lists.key(before) == key) {
                    Some(before) => Self::changed(&layout.item(), before, item),
                    None if key.starts_with("v:") => Self::leaf(),
                    None => Self { own: true, ..Self::of(&layout.item(), item) },
                };
                inside.insert(key, fields);
            }
        } else {
            return Self::of(layout, new);
        }
        inside.retain(|_, fields| !fields.is_empty());
        Self { own: false, inside }
    }

    /// What of it is there.
    pub(super) fn present(&self, layout: &Layout<'_>, value: &Value) -> Self {
        let mut inside = BTreeMap::new();
        for (key, fields) in &self.inside {
            if let Some((layout, value)) = layout.at(value, key) {
                inside.insert(key.clone(), fields.present(&layout, value));
            }
        }
        inside.retain(|_, fields| !fields.is_empty());
        Self { own: self.own, inside }
    }

    /// What is in this set, and not in the other; a field of which the other has a part counts as its too.
    pub(super) fn without(&self, other: &Self) -> Self {
        let mut inside = BTreeMap::new();
        for (key, fields) in &self.inside {
            let left = match other.inside.get(key) {
                Some(theirs) => fields.without(theirs),
                None => fields.clone(),
            };
            if !left.is_empty() {
                inside.insert(key.clone(), left);
            }
        }
        Self { own: self.own && other.is_empty(), inside }
    }

    /// What is in both.
    pub(super) fn common(&self, other: &Self) -> Self {
        let mut inside = BTreeMap::new();
        for (key, fields) in &self.inside {
            let both = other.inside.get(key).map(|theirs| fields.common(theirs)).unwrap_or_default();
            if !both.is_empty() {
                inside.insert(key.clone(), both);
            }
        }
        Self { own: self.own && other.own, inside }
    }

    /// Adds another set.
    pub(super) fn extend(&mut self, other: &Self) {
        self.own |= other.own;
        for (key, fields) in &other.inside {
            self.inside.entry(key.clone()).or_default().extend(fields);
        }
    }

    /// Paths as conflicts name them: `.spec.x`, `.spec.list[name="a"]`.
    pub(super) fn paths(&self, at: &str, found: &mut Vec<String>) {
        if self.own && !self.inside.values().any(|fields| !fields.is_empty()) {
            found.push(at.to_owned());
        }
        for (key, fields) in &self.inside {
            let (kind, rest) = key.split_at(key.len().min(2));
            let step = match kind {
                "f:" => format!(".{rest}"),
                "k:" => {
                    let keys: Map<String, Value> = serde_json::from_str(rest).unwrap_or_default();
                    let keys: Vec<String> =
                        keys.iter().map(|(key, value)| format!("{key}={value}")).collect();
                    format!("[{}]", keys.join(","))
                }
                _ => format!("[={rest}]"),
            };
            fields.paths(&format!("{at}{step}"), found);
        }
    }

    /// Takes the fields of this set out of a value.
    pub(super) fn remove_from(&self, layout: &Layout<'_>, value: &mut Value) {
        for (key, fields) in &self.inside {
            let whole = fields.own;
            let Some(index) = layout.index(value, key) else { continue };
            let inside = layout.below(key);
            let emptied = match layout.slot(value, key, index) {
                Some(slot) if !whole => {
                    fields.remove_from(&inside, slot);
                    slot.as_object().is_some_and(Map::is_empty) || slot.as_array().is_some_and(Vec::is_empty)
                }
                found => found.is_some(),
            };
            if let (true, Some(list)) = (emptied, value.as_array_mut()) {
                list.remove(index);
            } else if emptied {
                let name = key.strip_prefix("f:").unwrap_or_default();
                object::map_mut(value).remove(name);
            }
        }
    }

    /// Reads `fieldsV1`.
    pub(super) fn parse(value: &Value) -> Self {
        let mut fields = Self::default();
        for (key, value) in value.as_object().into_iter().flatten() {
            if key == "." {
                fields.own = true;
            } else {
                let parsed = Self::parse(value);
                let leaf = parsed.is_empty();
                fields.inside.insert(key.clone(), if leaf { Self::leaf() } else { parsed });
            }
        }
        fields
    }

    /// As `fieldsV1`.
    pub(super) fn show(&self) -> Value {
        let mut map: Map<String, Value> =
            self.inside.iter().map(|(key, fields)| (key.clone(), fields.show())).collect();
        if self.own && !map.is_empty() {
            map.insert(".".to_owned(), json!({}));
        }
        Value::Object(map)
    }
}
