//! What the controllers of a cluster remove by themselves: objects without their owners, and what is in a namespace
//! that ends. Both happen with the change that causes them; clients still see one event after the other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use super::delete::{self, Deletion};
use super::failure::Answer;
use super::kind::Bucket;
use super::object;
use super::state::State;

/// An object's place.
type Place = (Bucket, String, String);

/// Who owns whom.
#[derive(Debug, Default)]
pub(super) struct Owners {
    live: BTreeSet<String>,
    owned: BTreeMap<String, BTreeSet<Place>>,
    /// Objects that may have lost their last owner.
    suspects: BTreeSet<Place>,
    ending: BTreeSet<String>,
}

impl Owners {
    /// An object was stored.
    pub(super) fn stored(&mut self, bucket: &Bucket, stored: &Value) {
        self.live.insert(object::uid(stored).to_owned());
        if bucket.plural == "namespaces" && object::is_deleting(stored) {
            self.ending.insert(object::name(stored).to_owned());
        }
        for owner in owners(stored) {
            self.owned.entry(owner.to_owned()).or_default().insert(place(bucket, stored));
            self.suspects.insert(place(bucket, stored));
        }
    }

    /// An object was removed.
    pub(super) fn removed(&mut self, bucket: &Bucket, removed: &Value) {
        self.live.remove(object::uid(removed));
        if bucket.plural == "namespaces" {
            self.ending.remove(object::name(removed));
        }
        self.suspects.extend(self.owned.remove(object::uid(removed)).unwrap_or_default());
    }
}

impl State {
    /// Removes what has to go, and what has to go because of that.
    pub(super) fn collect(&mut self) -> Answer<()> {
        loop {
            let suspects = std::mem::take(&mut self.owners.suspects);
            for (bucket, namespace, name) in &suspects {
                if let Some(found) = self.store.get(bucket, namespace, name).cloned() {
                    let lost = owners(&found).count() > 0
                        && owners(&found).all(|owner| !self.owners.live.contains(owner));
                    if lost {
                        self.sweep(bucket, &found)?;
                    }
                }
            }
            let ended = self.end_namespaces()?;
            if self.owners.suspects.is_empty() && !ended {
                return Ok(());
            }
        }
    }

    /// Deletes as a controller does.
    fn sweep(&mut self, bucket: &Bucket, found: &Arc<Value>) -> Answer<()> {
        match self.kinds.of(bucket) {
            Some(kind) => delete::remove(self, &kind, found, &Deletion::default()).map(|_| ()),
            None => Ok(()),
        }
    }

    /// Empties namespaces that end; whether one of them is gone.
    fn end_namespaces(&mut self) -> Answer<bool> {
        let namespaces = Bucket { group: String::new(), plural: "namespaces".to_owned() };
        let mut gone = false;
        for name in self.owners.ending.clone() {
            let inside: Vec<(Bucket, Arc<Value>)> = self.store.inside(&name);
            for (bucket, found) in inside.iter().filter(|(_, found)| !object::is_deleting(found)) {
                self.sweep(bucket, found)?;
            }
            let empty = self.store.inside(&name).is_empty();
            let waits = self
                .store
                .get(&namespaces, "", &name)
                .is_some_and(|found| !object::finalizers(found).is_empty());
            if empty && !waits {
                self.remove(&namespaces, "", &name)?;
                gone = true;
            }
        }
        Ok(gone)
    }
}

/// The uids of an object's owners.
fn owners(found: &Value) -> impl Iterator<Item = &str> {
    object::list(found, "/metadata/ownerReferences").iter().map(|owner| object::text(owner, "/uid"))
}

fn place(bucket: &Bucket, found: &Value) -> Place {
    (bucket.clone(), object::namespace(found).to_owned(), object::name(found).to_owned())
}
