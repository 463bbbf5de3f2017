//! Everything the server knows, behind one lock: a request sees and makes whole changes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use tokio::sync::watch;

use super::control::Control;
use super::failure::{Answer, Failure};
use super::kind::{Bucket, Kind};
use super::kinds::Kinds;
use super::object;
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
        let done = work(&mut self.lock());
        self.changed.send_modify(|count| *count += 1);
        done
    }
}

impl State {
    /// What a server has from its first moment on.
    pub(super) fn bootstrap(&mut self) -> Answer<()> {
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
        self.store.put(bucket, object).map_err(|error| broken(&error))
    }

    /// Removes an object.
    pub(super) fn remove(
        &mut self,
        bucket: &Bucket,
        namespace: &str,
        name: &str,
    ) -> Answer<Option<Arc<Value>>> {
        self.store.remove(bucket, namespace, name).map_err(|error| broken(&error))
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
