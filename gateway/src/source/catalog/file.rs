//! One file of the catalog: the objects it has, and those it still holds because it cannot be read fully.

use std::collections::{BTreeMap, BTreeSet};

use crate::manifest::{Manifest, Node, ObjectKey};
use crate::source::{Instead, Rejected};

#[derive(Debug, Default)]
pub(super) struct File {
    manifests: Vec<Manifest>,
    /// By key, the indexes of its manifests.
    by_key: BTreeMap<ObjectKey, Vec<usize>>,
    /// Objects it had that may be among what it has now and cannot be read.
    held: BTreeSet<ObjectKey>,
    /// Texts without a readable key for whose sake objects are held.
    suspects: Vec<serde_json::Value>,
    /// All texts without a readable key.
    nameless: Vec<serde_json::Value>,
}

impl File {
    /// A file that can be read as YAML. `former` are the objects whose last good version came from it.
    pub(super) fn read(manifests: Vec<Manifest>, former: &BTreeSet<ObjectKey>, old: &Self) -> Self {
        let mut by_key: BTreeMap<ObjectKey, Vec<usize>> = BTreeMap::new();
        let mut nameless = Vec::new();
        for (index, manifest) in manifests.iter().enumerate() {
            match &manifest.key {
                Some(key) => by_key.entry(key.clone()).or_default().push(index),
                None => nameless.push(manifest.node.to_json()),
            }
        }
        let mut suspects: Vec<_> = nameless
            .iter()
            .filter(|text| !old.nameless.contains(text) || old.suspects.contains(text))
            .cloned()
            .collect();
        let held: BTreeSet<_> = former
            .iter()
            .filter(|key| !by_key.contains_key(key) && suspects.iter().any(|text| may_be(text, key)))
            .cloned()
            .collect();
        suspects.retain(|text| held.iter().any(|key| may_be(text, key)));
        Self { manifests, by_key, held, suspects, nameless }
    }

    /// A file that cannot be read at all: it holds everything it had. What was never valid stays as it was read last,
    /// so that what isolates in its place goes on isolating.
    pub(super) fn broken(former: BTreeSet<ObjectKey>, old: Self) -> Self {
        let Self { manifests, mut by_key, nameless, suspects, .. } = old;
        by_key.retain(|key, _| !former.contains(key));
        Self { manifests, by_key, held: former, suspects, nameless }
    }

    /// The objects it has or holds.
    pub(super) fn claims(&self) -> impl Iterator<Item = &ObjectKey> {
        self.by_key.keys().chain(&self.held)
    }

    /// The manifest of an object.
    pub(super) fn first(&self, key: &ObjectKey) -> Option<&Manifest> {
        self.manifests.get(*self.by_key.get(key)?.first()?)
    }

    /// Further manifests of an object, which do not count.
    pub(super) fn again(&self, key: &ObjectKey) -> impl Iterator<Item = &Manifest> {
        let indexes = self.by_key.get(key).map(Vec::as_slice).unwrap_or_default();
        indexes.iter().skip(1).filter_map(|&index| self.manifests.get(index))
    }

    /// Reports for what has no readable key.
    pub(super) fn nameless(&self, name: &str) -> Vec<Rejected> {
        let without_key = self.manifests.iter().filter(|manifest| manifest.key.is_none());
        without_key
            .filter_map(|manifest| {
                let error = manifest.object.as_ref().err()?;
                let text = manifest.node.to_json();
                let holds = self.held.iter().any(|key| may_be(&text, key));
                Some(Rejected {
                    file: name.to_owned(),
                    position: error.position,
                    key: None,
                    reason: crate::source::shown(error.to_string()),
                    instead: if holds { Instead::LastGood } else { Instead::Nothing },
                })
            })
            .collect()
    }
}

/// Whether a text without a readable key may be a version of the object: nothing readable in it says otherwise.
fn may_be(text: &serde_json::Value, key: &ObjectKey) -> bool {
    let node = Node::from_json(text);
    let metadata = node.get("metadata");
    let field = |name| metadata.and_then(|metadata| metadata.get(name)).and_then(Node::as_str);
    field("name").is_none_or(|name| name == key.name)
        && field("namespace").is_none_or(|namespace| namespace == key.namespace)
}
