//! Everything the server knows, behind one lock: a request sees and makes whole changes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use tokio::sync::watch;

use super::control::Control;
use super::crd;
use super::failure::{Answer, Failure};
use super::gc::Owners;
use super::kind::{Bucket, Kind};
use super::kinds::Kinds;
use super::object;
use super::routes::Target;
use super::store::Store;
use super::users::Users;

/// The server's memory, shared by all connections.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// Raised when there may be something for those who watch.
    pub(super) changed: watch::Sender<u64>,
    pub(super) users: Users,
    /// How often a watch without events tells its version, in milliseconds.
    pub(super) bookmark_ms: u64,
}

/// What is behind the lock.
#[derive(Debug)]
pub(super) struct State {
    pub(super) store: Store,
    pub(super) kinds: Kinds,
    pub(super) control: Control,
    pub(super) owners: Owners,
}

impl Shared {
    pub(super) fn new(state: State, users: Users, bookmark_ms: u64) -> Self {
        Self { state: Mutex::new(state), changed: watch::Sender::new(0), users, bookmark_ms }
    }

    /// Looks at the state.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, and wakes those who watch.
    pub(super) fn change<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let done = work(&mut state);
        if let Err(failure) = state.collect() {
            eprintln!("garbage is not collected: {}", failure.message);
        }
        drop(state);
        self.changed.send_modify(|count| *count += 1);
        done
    }
}

impl State {
    /// Begins with the objects of the store, and what a server has from its first moment on.
    pub(super) fn begin(&mut self) -> Answer<()> {
        self.serve_all()?;
        self.owners = Owners::default();
        for (bucket, object) in self.store.all() {
            self.owners.stored(bucket, object);
        }
        for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
            let namespaces = Bucket { group: String::new(), plural: "namespaces".to_owned() };
            if self.store.get(&namespaces, "", name).is_none() {
                let mut namespace = json!({
                    "apiVersion": "v1",
                    "kind": "Namespace",
                    "metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}},
                    "spec": {"finalizers": ["kubernetes"]},
                    "status": {"phase": "Active"},
                });
                object::set_meta(&mut namespace, "uid", object::new_uid());
                object::set_meta(&mut namespace, "creationTimestamp", object::now());
                self.put(&namespaces, namespace)?;
            }
        }
        Ok(())
    }

    /// Stores an object.
    pub(super) fn put(&mut self, bucket: &Bucket, object: Value) -> Answer<Arc<Value>> {
        let stored = self.store.put(bucket, object).map_err(|error| broken(&error))?;
        self.owners.stored(bucket, &stored);
        if *bucket == crd::bucket() {
            self.serve(&stored)?;
        }
        Ok(stored)
    }

    /// Removes an object.
    pub(super) fn remove(
        &mut self,
        bucket: &Bucket,
        namespace: &str,
        name: &str,
    ) -> Answer<Option<Arc<Value>>> {
        let removed = self.store.remove(bucket, namespace, name).map_err(|error| broken(&error))?;
        if let Some(removed) = &removed {
            self.owners.removed(bucket, removed);
            if *bucket == crd::bucket() {
                self.unserve(removed)?;
            }
        }
        Ok(removed)
    }

    /// Whether the object of a request is there.
    pub(super) fn exists(&self, target: &Target) -> bool {
        self.store.get(&target.kind.bucket(), &target.namespace, &target.name).is_some()
    }

    /// An object that has to be there.
    pub(super) fn find(&self, kind: &Kind, namespace: &str, name: &str) -> Answer<Arc<Value>> {
        let found = self.store.get(&kind.bucket(), namespace, name);
        found.cloned().ok_or_else(|| Failure::not_found(kind, name))
    }
}

fn broken(error: &anyhow::Error) -> Failure {
    Failure::new(500, "InternalError", format!("the API double cannot keep its state: {error:#}"))
}
