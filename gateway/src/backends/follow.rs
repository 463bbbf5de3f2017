//! Follows what of the cluster this is about: Services that ask for external workloads, and the gateway's own slices.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::Api;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::Notify;

use super::service::Wish;
use super::slice::Slice;
use crate::manifest::MANAGED_BY;

/// How long one watch lasts.
const WATCH: u32 = 50;
/// A watch that fails once goes on where it was; one that fails so often in a row begins with a list.
const FAILURES: u32 = 2;
/// Between a failure and the next list.
const PAUSE: Duration = Duration::from_secs(2);

/// Namespace and name.
pub(super) type Key = (String, String);

/// What the cluster has, as it was seen last.
#[derive(Debug, Default)]
pub(super) struct Observed {
    seen: Mutex<Seen>,
    /// Something is another.
    pub(super) news: Notify,
}

/// The objects.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) services: Kind<Wish>,
    pub(super) slices: Kind<Slice>,
}

/// The objects of a kind.
#[derive(Debug)]
pub(super) struct Kind<T> {
    pub(super) objects: BTreeMap<Key, T>,
    /// Whether all were listed once.
    listed: bool,
    /// Whether what is known is older than it should be.
    troubled: bool,
}

impl<T> Default for Kind<T> {
    fn default() -> Self {
        Self { objects: BTreeMap::new(), listed: false, troubled: false }
    }
}

impl<T> Kind<T> {
    /// These are all that there are.
    pub(super) fn listed(&mut self, objects: BTreeMap<Key, T>) {
        self.objects = objects;
        (self.listed, self.troubled) = (true, false);
    }

    /// What is known gets older.
    pub(super) const fn lost(&mut self) {
        self.troubled = true;
    }
}

impl Observed {
    pub(super) fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    /// Whether all was listed once: before that, what is missing may be there.
    pub(super) const fn is_whole(&self) -> bool {
        self.services.listed && self.slices.listed
    }

    /// Whether it is known what there is now.
    pub(super) const fn is_current(&self) -> bool {
        self.is_whole() && !self.services.troubled && !self.slices.troubled
    }
}

/// Follows until it is dropped.
pub(super) async fn follow(client: Client, observed: Arc<Observed>) {
    let services = Api::<Service>::all(client.clone());
    let slices = Api::<EndpointSlice>::all(client);
    let own = format!("{}={}", MANAGED_BY.0, MANAGED_BY.1);
    let config = || watcher::Config::default().timeout(WATCH);
    tokio::join!(
        follow_kind(services, config(), &observed, Wish::of, |seen| &mut seen.services),
        follow_kind(slices, config().labels(&own), &observed, Slice::read, |seen| &mut seen.slices),
    );
}

async fn follow_kind<K, T>(
    api: Api<K>,
    config: watcher::Config,
    observed: &Observed,
    read: fn(&K) -> Option<T>,
    part: fn(&mut Seen) -> &mut Kind<T>,
) where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + fmt::Debug + Send + 'static,
{
    let mut told = None;
    loop {
        let mut events = pin!(watcher(api.clone(), config.clone()).default_backoff());
        let (mut listed, mut failures) = (BTreeMap::new(), 0);
        while let Some(event) = events.next().await {
            let Err(error) = event.map(|event| take(event, &mut listed, observed, read, part)) else {
                failures = 0;
                continue;
            };
            failures += 1;
            if failures < FAILURES {
                continue;
            }
            let reason = error.to_string();
            if told.as_ref() != Some(&reason) {
                tracing::warn!(kind = %K::kind(&()), reason, "objects of the cluster cannot be followed");
                told = Some(reason);
            }
            part(&mut observed.lock()).lost();
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn take<K, T>(
    event: Event<K>,
    listed: &mut BTreeMap<Key, T>,
    observed: &Observed,
    read: fn(&K) -> Option<T>,
    part: fn(&mut Seen) -> &mut Kind<T>,
) where
    K: ResourceExt,
{
    let mut seen = observed.lock();
    let kind = part(&mut seen);
    match event {
        Event::Init => return listed.clear(),
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
    observed.news.notify_one();
}

fn key(object: &impl ResourceExt) -> Key {
    (object.namespace().unwrap_or_default(), object.name_any())
}
