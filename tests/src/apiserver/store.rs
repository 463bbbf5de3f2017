//! The objects, one resource version for all of them, and what changed last. It knows nothing of what they mean.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use serde_json::Value;

use super::kind::Bucket;
use super::object;
use super::persist::{Log, Saved};

/// The objects.
#[derive(Debug)]
pub(super) struct Store {
    version: u64,
    shelves: BTreeMap<Bucket, Shelf>,
    /// How many changes of each kind are remembered.
    capacity: usize,
    /// Changes up to this version are forgotten.
    floor: u64,
    log: Log,
}

/// Objects by namespace and name.
pub(super) type Objects = BTreeMap<(String, String), Arc<Value>>;

/// The objects of one kind.
#[derive(Debug, Default)]
struct Shelf {
    objects: Objects,
    history: VecDeque<Change>,
    /// Changes up to this version are forgotten here.
    floor: u64,
}

/// A change of one object.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) version: u64,
    /// The object after it; of a deleted one its last state with the version of its deletion.
    pub(super) object: Arc<Value>,
    /// Before it; none if it was made.
    pub(super) previous: Option<Arc<Value>>,
    pub(super) deleted: bool,
}

/// The version is older than what is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Forgotten;

impl Store {
    /// The objects of a file, or none if there is no such file.
    pub(super) fn open(file: &Path, capacity: usize) -> Result<Self> {
        let (log, saved) = Log::open(file)?;
        let mut store = Self { version: 1, shelves: BTreeMap::new(), capacity, floor: 0, log };
        store.take(saved);
        Ok(store)
    }

    /// Becomes what was saved.
    fn take(&mut self, saved: Saved) {
        self.shelves.clear();
        self.version = saved.version.max(1);
        self.floor = saved.version;
        for (bucket, object) in saved.objects {
            let objects = &mut self.shelves.entry(bucket).or_default().objects;
            objects.insert(key(&object), Arc::new(object));
        }
    }

    /// Becomes what a file says, which another one was saved to: what happened since is lost, also its versions.
    pub(super) fn restore(&mut self, file: &Path) -> Result<()> {
        let saved = Saved::read(file)?;
        self.take(saved);
        self.log = Log::create(self.log.path(), self.version, self.all())?;
        Ok(())
    }

    /// Writes a copy of the objects.
    pub(super) fn save(&self, file: &Path) -> Result<()> {
        Log::create(file, self.version, self.all()).map(|_| ())
    }

    /// The newest version.
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// Everything.
    pub(super) fn all(&self) -> impl Iterator<Item = (&Bucket, &Value)> {
        self.shelves
            .iter()
            .flat_map(|(bucket, row)| row.objects.values().map(move |object| (bucket, &**object)))
    }

    /// One object.
    pub(super) fn get(&self, bucket: &Bucket, namespace: &str, name: &str) -> Option<&Arc<Value>> {
        self.shelves.get(bucket)?.objects.get(&(namespace.to_owned(), name.to_owned()))
    }

    /// The objects of a kind, by namespace and name.
    pub(super) fn list<'a>(&'a self, bucket: &Bucket) -> impl Iterator<Item = &'a Arc<Value>> + use<'a> {
        self.shelves.get(bucket).into_iter().flat_map(|row| row.objects.values())
    }

    /// The objects in a namespace.
    pub(super) fn inside(&self, namespace: &str) -> Vec<(Bucket, Arc<Value>)> {
        let of = |(bucket, row): (&Bucket, &Shelf)| {
            let found = row.objects.range((namespace.to_owned(), String::new())..);
            let found = found.take_while(|((inside, _), _)| inside == namespace);
            found.map(|(_, object)| (bucket.clone(), Arc::clone(object))).collect::<Vec<_>>()
        };
        self.shelves.iter().flat_map(of).collect()
    }

    /// The objects of a kind as they were.
    pub(super) fn at(&self, bucket: &Bucket, version: u64) -> Result<Objects, Forgotten> {
        let Some(row) = self.shelves.get(bucket) else { return Ok(Objects::new()) };
        if version < self.floor.max(row.floor) {
            return Err(Forgotten);
        }
        let mut objects = row.objects.clone();
        for change in row.history.iter().rev().take_while(|change| change.version > version) {
            match &change.previous {
                Some(previous) => objects.insert(key(previous), Arc::clone(previous)),
                None => objects.remove(&key(&change.object)),
            };
        }
        Ok(objects)
    }

    /// Up to `most` changes of a kind after a version.
    pub(super) fn since(&self, bucket: &Bucket, version: u64, most: usize) -> Result<Vec<Change>, Forgotten> {
        let floor = self.shelves.get(bucket).map_or(0, |row| row.floor).max(self.floor);
        if version < floor {
            return Err(Forgotten);
        }
        let Some(row) = self.shelves.get(bucket) else { return Ok(Vec::new()) };
        let first = row.history.partition_point(|change| change.version <= version);
        Ok(row.history.iter().skip(first).take(most).cloned().collect())
    }

    /// Stores an object with the next version.
    pub(super) fn put(&mut self, bucket: &Bucket, mut object: Value) -> Result<Arc<Value>> {
        self.version += 1;
        object::set_meta(&mut object, "resourceVersion", self.version.to_string());
        self.log.put(self.version, bucket, &object)?;
        let object = Arc::new(object);
        let row = self.shelves.entry(bucket.clone()).or_default();
        let previous = row.objects.insert(key(&object), Arc::clone(&object));
        let change = Change { version: self.version, object: Arc::clone(&object), previous, deleted: false };
        row.remember(change, self.capacity);
        Ok(object)
    }

    /// Removes an object; its last state with the version of its deletion.
    pub(super) fn remove(
        &mut self,
        bucket: &Bucket,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Arc<Value>>> {
        let Some(row) = self.shelves.get_mut(bucket) else { return Ok(None) };
        let Some(previous) = row.objects.remove(&(namespace.to_owned(), name.to_owned())) else {
            return Ok(None);
        };
        self.version += 1;
        self.log.remove(self.version, bucket, namespace, name)?;
        let mut last = Value::clone(&previous);
        object::set_meta(&mut last, "resourceVersion", self.version.to_string());
        let last = Arc::new(last);
        let change = Change {
            version: self.version,
            object: Arc::clone(&last),
            previous: Some(previous),
            deleted: true,
        };
        row.remember(change, self.capacity);
        Ok(Some(last))
    }

    /// Forgets all changes: who watches from an older version has to list again.
    pub(super) fn compact(&mut self) {
        self.floor = self.version;
        for row in self.shelves.values_mut() {
            row.history.clear();
        }
    }
}

impl Shelf {
    fn remember(&mut self, change: Change, capacity: usize) {
        self.history.push_back(change);
        while self.history.len() > capacity {
            if let Some(forgotten) = self.history.pop_front() {
                self.floor = forgotten.version;
            }
        }
    }
}

fn key(object: &Value) -> (String, String) {
    (object::namespace(object).to_owned(), object::name(object).to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pods() -> Bucket {
        Bucket { group: String::new(), plural: "pods".to_owned() }
    }

    fn pod(name: &str, label: &str) -> Value {
        json!({"metadata": {"name": name, "namespace": "a", "labels": {"x": label}}})
    }

    #[test]
    fn the_past_is_known_as_far_as_it_is_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(&folder.path().join("state"), 3).unwrap();
        store.put(&pods(), pod("one", "1")).unwrap();
        store.put(&pods(), pod("two", "1")).unwrap();
        let then = store.version();
        store.put(&pods(), pod("one", "2")).unwrap();
        store.remove(&pods(), "a", "two").unwrap();
        let past: Vec<String> = store
            .at(&pods(), then)
            .unwrap()
            .values()
            .map(|pod| object::text(pod, "/metadata/labels/x").to_owned())
            .collect();
        assert_eq!(past, ["1", "1"]);
        assert_eq!(store.since(&pods(), then, 9).unwrap().len(), 2);
        assert_eq!(store.since(&pods(), 1, 9).unwrap_err(), Forgotten, "one of four changes is forgotten");
        store.compact();
        assert_eq!(store.since(&pods(), then, 9).unwrap_err(), Forgotten);
        assert!(store.since(&pods(), store.version(), 9).unwrap().is_empty());
    }

    #[test]
    fn objects_and_versions_survive_and_the_history_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("state");
        let mut store = Store::open(&file, 10).unwrap();
        store.put(&pods(), pod("one", "1")).unwrap();
        let early = store.version();
        store.put(&pods(), pod("two", "1")).unwrap();
        store.save(&folder.path().join("copy")).unwrap();
        store.remove(&pods(), "a", "one").unwrap();
        let version = store.version();
        drop(store);
        let mut store = Store::open(&file, 10).unwrap();
        assert_eq!(store.version(), version);
        assert_eq!(store.list(&pods()).map(|pod| object::name(pod)).collect::<Vec<_>>(), ["two"]);
        assert_eq!(store.since(&pods(), early, 9).unwrap_err(), Forgotten);
        store.restore(&folder.path().join("copy")).unwrap();
        assert_eq!((store.list(&pods()).count(), store.version()), (2, version - 1));
    }
}
