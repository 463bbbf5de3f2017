//! Objects of a cluster as controllers see them: of each is kept what one reads of it, and each kind says whether it is known
//! whole, and now.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use kube::api::Api;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::Notify;

/// How long one watch lasts.
const WATCH: u32 = 50;
/// A watch that fails once goes on where it was; one that fails so often in a row begins with a list.
const FAILURES: u32 = 2;
/// Between a failure and the next list.
const PAUSE: Duration = Duration::from_secs(2);

/// Namespace and name.
pub(crate) type Key = (String, String);

/// What the cluster has, as it was seen last.
#[derive(Debug, Default)]
pub(crate) struct Observed<S> {
    seen: Mutex<S>,
    /// Something is another.
    pub(crate) news: Notify,
}

/// The objects of a kind.
#[derive(Debug)]
pub(crate) struct Kind<T> {
    pub(crate) objects: BTreeMap<Key, T>,
    /// Whether all were listed once.
    listed: bool,
    /// Why what is known is older than it should be.
    trouble: Option<String>,
}

impl<T> Default for Kind<T> {
    fn default() -> Self {
        Self { objects: BTreeMap::new(), listed: false, trouble: None }
    }
}

impl<T> Kind<T> {
    /// These are all that there are.
    pub(crate) fn listed(&mut self, objects: BTreeMap<Key, T>) {
        self.objects = objects;
        (self.listed, self.trouble) = (true, None);
    }

    /// What is known gets older, and why.
    pub(crate) fn lost(&mut self, reason: String) {
        self.trouble = Some(reason);
    }

    /// Whether all were listed once.
    pub(crate) const fn is_listed(&self) -> bool {
        self.listed
    }

    /// Whether it is known what there is now.
    pub(crate) const fn is_current(&self) -> bool {
        self.listed && self.trouble.is_none()
    }

    /// Why it is not known.
    pub(crate) fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }
}

/// How a kind is watched.
pub(crate) fn config() -> watcher::Config {
    watcher::Config::default().timeout(WATCH)
}

impl<S> Observed<S> {
    pub(crate) fn lock(&self) -> MutexGuard<'_, S> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows a kind until it is dropped. `read` says what of an object is kept, `part` where.
    pub(crate) async fn follow<K, T>(
        &self,
        name: &'static str,
        api: Api<K>,
        config: watcher::Config,
        read: fn(&K) -> Option<T>,
        part: fn(&mut S) -> &mut Kind<T>,
    ) where
        K: Resource + Clone + DeserializeOwned + fmt::Debug + Send + 'static,
    {
        let mut told = None;
        loop {
            let mut events = pin!(watcher(api.clone(), config.clone()).default_backoff());
            let (mut listed, mut failures) = (BTreeMap::new(), 0);
            while let Some(event) = events.next().await {
                let error = match event {
                    // Comes before each attempt to list, and says nothing of its success.
                    Ok(Event::Init) => {
                        listed.clear();
                        continue;
                    }
                    Ok(event) => {
                        self.take(event, &mut listed, read, part);
                        failures = 0;
                        continue;
                    }
                    Err(error) => error,
                };
                failures += 1;
                if failures < FAILURES {
                    continue;
                }
                let reason = error.to_string();
                if told.as_ref() != Some(&reason) {
                    tracing::warn!(kind = name, reason, "objects of the cluster cannot be followed");
                    told = Some(reason.clone());
                }
                part(&mut self.lock()).lost(reason);
                self.news.notify_one();
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn take<K, T>(
        &self,
        event: Event<K>,
        listed: &mut BTreeMap<Key, T>,
        read: fn(&K) -> Option<T>,
        part: fn(&mut S) -> &mut Kind<T>,
    ) where
        K: ResourceExt,
    {
        let mut seen = self.lock();
        let kind = part(&mut seen);
        match event {
            Event::Init => return,
            Event::InitApply(object) => {
                listed.extend(read(&object).map(|found| (key(&object), found)));
                return;
            }
            Event::InitDone => {
                kind.listed(std::mem::take(listed));
            }
            Event::Apply(object) => match read(&object) {
                Some(found) => drop(kind.objects.insert(key(&object), found)),
                None if kind.objects.remove(&key(&object)).is_none() => return,
                None => {}
            },
            Event::Delete(object) => {
                if kind.objects.remove(&key(&object)).is_none() {
                    return;
                }
            }
        }
        drop(seen);
        self.news.notify_one();
    }
}

fn key(object: &impl ResourceExt) -> Key {
    (object.namespace().unwrap_or_default(), object.name_any())
}
