//! Which version of each object is in force: the newest valid one, the last good one where the newest is refused, an
//! isolating stand-in where none was ever valid. Pure: files go in as texts, changes come out.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest as _, Sha256};

use super::{Change, Instead, Rejected};
use crate::manifest::{InvalidYaml, Kind, Manifest, Node, Object, ObjectKey, Position, manifests};

mod file;
#[cfg(test)]
mod tests;

use file::File;

/// What became of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileChange {
    /// It has this text now.
    Text(String, Vec<u8>),
    /// It is one object of a cluster, and its name tells kind, namespace and name.
    Object(String, serde_json::Value),
    /// It is there and cannot be read.
    Unreadable(String, String),
    /// It is gone.
    Gone(String),
}

impl FileChange {
    /// The file's name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Text(name, _) | Self::Object(name, _) | Self::Unreadable(name, _) | Self::Gone(name) => {
                name
            }
        }
    }

    /// The file's name, and the SHA-256 of its text or what became of it instead. Of a cluster's objects only those that
    /// decide: who pods are is told by their generation.
    #[must_use]
    pub fn digest(&self) -> Option<(String, String)> {
        let (name, state) = match self {
            Self::Object(name, _) | Self::Gone(name) if is_plain(name) => return None,
            Self::Text(name, bytes) => (name, hex::encode(Sha256::digest(bytes))),
            Self::Object(name, value) => (name, hex::encode(Sha256::digest(value.to_string()))),
            Self::Unreadable(name, _) => (name, "unreadable".to_owned()),
            Self::Gone(name) => (name, "gone".to_owned()),
        };
        Some((name.clone(), state))
    }
}

/// Whether that is an object of a cluster that grants nothing: there are many of them.
fn is_plain(name: &str) -> bool {
    ["Pod/", "EndpointSlice/", "Service/", "Namespace/"].iter().any(|kind| name.starts_with(kind))
}

/// A version of an object that was valid, and the file it came from.
#[derive(Clone, Debug, PartialEq)]
pub struct Good {
    /// The file.
    pub file: String,
    /// The object's text as values.
    pub raw: serde_json::Value,
    /// The object.
    pub object: Object,
}

/// All files, and what follows from them.
#[derive(Debug, Default)]
pub struct Catalog {
    files: BTreeMap<String, File>,
    /// Which files have an object, or hold its last good version.
    claims: BTreeMap<ObjectKey, BTreeSet<String>>,
    good: BTreeMap<ObjectKey, Good>,
    /// By file, the objects whose last good version came from it.
    good_of: BTreeMap<String, BTreeSet<ObjectKey>>,
    in_force: BTreeMap<ObjectKey, Object>,
    /// Groups that have members; such a group stays although its file lost it.
    in_use: BTreeSet<ObjectKey>,
    rejected_files: BTreeMap<String, Vec<Rejected>>,
    rejected_objects: BTreeMap<ObjectKey, Vec<Rejected>>,
    unsaved: BTreeSet<ObjectKey>,
}

impl Catalog {
    /// A catalog that remembers what was good before a restart. None of it is in force until the files, which are
    /// to be applied all at once the first time, still claim it.
    #[must_use]
    pub fn with_last_good(good: BTreeMap<ObjectKey, Good>) -> Self {
        let mut catalog = Self::default();
        for (key, good) in good {
            catalog.remember(key, good);
        }
        catalog.unsaved.clear();
        catalog
    }

    /// Applies what became of files.
    pub fn apply(&mut self, changes: Vec<FileChange>) -> Vec<Change> {
        let mut touched = BTreeSet::new();
        for change in changes {
            self.apply_file(change, &mut touched);
        }
        self.settle(touched)
    }

    /// Drops what was remembered and is claimed by no file: to be called once, after the first files were applied.
    pub fn forget_unclaimed(&mut self) -> Vec<Change> {
        let unclaimed = self.good.keys().filter(|key| !self.claims.contains_key(key)).cloned().collect();
        self.settle(unclaimed)
    }

    /// Learns which groups have members.
    pub fn set_groups_in_use(&mut self, in_use: BTreeSet<ObjectKey>) -> Vec<Change> {
        let changed = self.in_use.symmetric_difference(&in_use).cloned().collect();
        self.in_use = in_use;
        self.settle(changed)
    }

    /// What is in the source and not in force, by file.
    #[must_use]
    pub fn rejected(&self) -> Vec<Rejected> {
        let mut all: Vec<_> =
            self.rejected_files.values().chain(self.rejected_objects.values()).flatten().cloned().collect();
        all.sort();
        all
    }

    /// The last good version of each object.
    pub fn last_good(&self) -> impl Iterator<Item = (&ObjectKey, &Object)> {
        self.good.iter().map(|(key, good)| (key, &good.object))
    }

    /// What is in force.
    #[must_use]
    pub fn in_force(&self) -> &BTreeMap<ObjectKey, Object> {
        &self.in_force
    }

    /// The objects whose last good version became another since [`Catalog::saved`], with that version.
    #[must_use]
    pub fn unsaved(&self) -> Vec<(ObjectKey, Option<Good>)> {
        self.unsaved.iter().map(|key| (key.clone(), self.good.get(key).cloned())).collect()
    }

    /// Learns that all of [`Catalog::unsaved`] was saved.
    pub fn saved(&mut self) {
        self.unsaved.clear();
    }

    fn apply_file(&mut self, change: FileChange, touched: &mut BTreeSet<ObjectKey>) {
        let (name, content) = match change {
            FileChange::Gone(name) => (name, None),
            FileChange::Unreadable(name, reason) => {
                let message = format!("cannot be read: {reason}");
                (name, Some(Err((Position::default(), message))))
            }
            FileChange::Text(name, bytes) => (name, Some(read(bytes))),
            FileChange::Object(name, value) => {
                (name, Some(Ok(vec![Manifest::read(Node::from_json(&value))])))
            }
        };
        let old = self.files.remove(&name).unwrap_or_default();
        let former = self.good_of.get(&name).cloned().unwrap_or_default();
        for key in old.claims() {
            if let Some(files) = self.claims.get_mut(key) {
                files.remove(&name);
                if files.is_empty() {
                    self.claims.remove(key);
                }
            }
            touched.insert(key.clone());
        }
        self.rejected_files.remove(&name);
        let Some(content) = content else { return };
        let file = match content {
            Ok(manifests) => File::read(manifests, &former, &old),
            Err((position, message)) => {
                let held = !former.is_empty();
                let report = Rejected {
                    file: name.clone(),
                    position,
                    key: None,
                    reason: super::shown(message),
                    instead: if held { Instead::LastGood } else { Instead::Nothing },
                };
                self.rejected_files.insert(name.clone(), vec![report]);
                File::broken(former, old)
            }
        };
        self.rejected_files.entry(name.clone()).or_default().extend(file.nameless(&name));
        for key in file.claims() {
            self.claims.entry(key.clone()).or_default().insert(name.clone());
            touched.insert(key.clone());
        }
        self.files.insert(name, file);
    }

    /// Decides anew what is in force of these objects.
    fn settle(&mut self, touched: BTreeSet<ObjectKey>) -> Vec<Change> {
        let mut changes = Vec::new();
        for key in touched {
            let (object, reports) = self.decide(&key);
            if reports.is_empty() {
                self.rejected_objects.remove(&key);
            } else {
                self.rejected_objects.insert(key.clone(), reports);
            }
            match object {
                Some(object) if self.in_force.get(&key) == Some(&object) => {}
                Some(object) => {
                    self.in_force.insert(key.clone(), object.clone());
                    changes.push(Change::Put(key, object));
                }
                None => {
                    if self.in_force.remove(&key).is_some() {
                        changes.push(Change::Delete(key));
                    }
                }
            }
        }
        changes
    }

    fn decide(&mut self, key: &ObjectKey) -> (Option<Object>, Vec<Rejected>) {
        let Some(files) = self.claims.get(key) else { return self.decide_unclaimed(key) };
        let mut files = files.iter();
        let Some(winner) = files.next().cloned() else { return (None, Vec::new()) };
        let mut reports = Vec::new();
        for file in files {
            let place =
                self.files.get(file).and_then(|file| file.first(key)).map(|manifest| manifest.node.position);
            reports.push(Rejected {
                file: file.clone(),
                position: place.unwrap_or_default(),
                key: Some(key.clone()),
                reason: format!("is already given by {winner}"),
                instead: Instead::Other,
            });
        }
        let Some(file) = self.files.get(&winner) else { return (None, reports) };
        for again in file.again(key) {
            reports.push(Rejected {
                file: winner.clone(),
                position: again.node.position,
                key: Some(key.clone()),
                reason: "is given twice in this file; the first one counts".to_owned(),
                instead: Instead::Other,
            });
        }
        let good = self.good.get(key);
        let Some(manifest) = file.first(key) else {
            return (good.map(|good| good.object.clone()), reports);
        };
        match &manifest.object {
            Ok(object) => {
                let object = object.clone();
                let raw = manifest.node.to_json();
                if good.is_none_or(|good| good.raw != raw || good.file != winner) {
                    self.remember(key.clone(), Good { file: winner, raw, object: object.clone() });
                }
                (Some(object), reports)
            }
            Err(error) => {
                let (object, instead) = match good {
                    Some(good) => (Some(good.object.clone()), Instead::LastGood),
                    None => match manifest.stand_in() {
                        Some(namespace @ Object::Namespace(_)) => (Some(namespace), Instead::Unreadable),
                        Some(isolation) => (Some(isolation), Instead::Isolation),
                        None => (None, Instead::Nothing),
                    },
                };
                reports.push(Rejected {
                    file: winner,
                    position: error.position,
                    key: Some(key.clone()),
                    reason: super::shown(error.to_string()),
                    instead,
                });
                (object, reports)
            }
        }
    }

    /// An object that no file has: gone, unless it is a group with members.
    fn decide_unclaimed(&mut self, key: &ObjectKey) -> (Option<Object>, Vec<Rejected>) {
        match self.good.get(key) {
            Some(good) if key.kind == Kind::ExternalWorkloadGroup && self.in_use.contains(key) => {
                let report = Rejected {
                    file: good.file.clone(),
                    position: Position::default(),
                    key: Some(key.clone()),
                    reason: "is gone from its file and has members: delete these first".to_owned(),
                    instead: Instead::LastGood,
                };
                (Some(good.object.clone()), vec![report])
            }
            Some(_) => {
                self.forget(key);
                (None, Vec::new())
            }
            None => (None, Vec::new()),
        }
    }

    fn remember(&mut self, key: ObjectKey, good: Good) {
        self.forget(&key);
        self.good_of.entry(good.file.clone()).or_default().insert(key.clone());
        self.unsaved.insert(key.clone());
        self.good.insert(key, good);
    }

    fn forget(&mut self, key: &ObjectKey) {
        let Some(good) = self.good.remove(key) else { return };
        if let Some(keys) = self.good_of.get_mut(&good.file) {
            keys.remove(key);
            if keys.is_empty() {
                self.good_of.remove(&good.file);
            }
        }
        self.unsaved.insert(key.clone());
    }
}

fn read(bytes: Vec<u8>) -> Result<Vec<Manifest>, (Position, String)> {
    let text = String::from_utf8(bytes).map_err(|error| {
        let good = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
        let line = u64::try_from(good.split(|&byte| byte == b'\n').count()).unwrap_or(u64::MAX);
        (Position { line, column: 0 }, "not valid UTF-8".to_owned())
    })?;
    let documents = crate::manifest::node::parse(&text)
        .map_err(|InvalidYaml { position, message }| (position, format!("not valid YAML: {message}")))?;
    Ok(documents.into_iter().flat_map(manifests).collect())
}
