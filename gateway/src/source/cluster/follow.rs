//! Follows the objects of one kind: finds out whether the cluster has it, lists it, watches it, and begins again when that
//! fails.

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};
use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt as _;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, Error};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::companions::Companions;
use super::{State, Update, select};
use crate::election::Term;
use crate::manifest::{Kind, Resource};
use crate::source::catalog::FileChange;

/// How long one watch lasts.
pub(super) const WATCH: Duration = Duration::from_secs(50);
/// How often it is asked whether the cluster has got a kind that it lacked.
const LOOK: Duration = Duration::from_secs(5);
/// How long a kind with objects has to be unknown to the API server until it counts as gone: one that starts may say so of
/// kinds that it has not read yet.
const GONE: Duration = Duration::from_secs(30);
/// Between two attempts after a failure, at least and at most.
const PAUSES: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(15)];
/// A watch that fails once goes on where it was; one that fails so often in a row begins anew.
const FAILURES: u32 = 2;

/// Follows one kind.
pub(super) struct Follower {
    client: Client,
    kind: Kind,
    /// The versions that are understood, the best one first.
    versions: Vec<Resource>,
    updates: mpsc::Sender<Update>,
    /// Confirms that the cluster has not gone back.
    term: Option<Term>,
    /// What was passed on: a hash of each object.
    known: BTreeMap<String, u64>,
    pause: Duration,
    /// The last failure, until there is none.
    failed: Option<String>,
    /// Since when the API server does not know the kind.
    unknown_since: Option<Instant>,
}

/// Why a watch ended.
enum End {
    /// The API server does not know the kind.
    Unknown,
    /// Something else.
    Failed(String),
    /// Nobody wants to know.
    Closed,
}

impl Follower {
    pub(super) const fn new(
        client: Client,
        kind: Kind,
        versions: Vec<Resource>,
        updates: mpsc::Sender<Update>,
        term: Option<Term>,
    ) -> Self {
        let [pause, _] = PAUSES;
        Self {
            client,
            kind,
            versions,
            updates,
            term,
            known: BTreeMap::new(),
            pause,
            failed: None,
            unknown_since: None,
        }
    }

    /// Follows until nobody wants to know.
    pub(super) async fn run(mut self) {
        loop {
            let end = match served(&self.client, &self.versions).await {
                Ok(Some(resource)) => self.watch(&resource).await,
                Ok(None) => End::Unknown,
                Err(error) => End::Failed(describe(self.kind, &error)),
            };
            let is_told = match end {
                End::Closed => return,
                End::Unknown => self.unknown().await,
                End::Failed(reason) => {
                    if self.failed.as_ref() != Some(&reason) {
                        tracing::warn!(kind = %self.kind, reason, "objects of the cluster cannot be followed");
                        self.failed = Some(reason.clone());
                    }
                    let is_told = self.send(Vec::new(), State::Trouble(reason)).await;
                    let [_, longest] = PAUSES;
                    sleep(self.pause).await;
                    self.pause = (self.pause * 2).min(longest);
                    is_told
                }
            };
            if !is_told {
                return;
            }
        }
    }

    /// The kind is not there; whether somebody still wants to know.
    async fn unknown(&mut self) -> bool {
        let since = *self.unknown_since.get_or_insert_with(Instant::now);
        let built_in = self.versions.iter().any(|resource| resource.built_in);
        let (changes, state) = if built_in {
            (Vec::new(), State::Trouble(format!("{}: the API server does not know it", self.kind)))
        } else if self.known.is_empty() || since.elapsed() >= GONE {
            let gone = std::mem::take(&mut self.known).into_keys().map(FileChange::Gone).collect();
            (gone, State::Absent)
        } else {
            let reason = format!("{}: the API server does not know it any more", self.kind);
            (Vec::new(), State::Trouble(reason))
        };
        if !self.send(changes, state).await {
            return false;
        }
        sleep(LOOK).await;
        true
    }

    async fn watch(&mut self, resource: &ApiResource) -> End {
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), resource);
        let mut events = pin!(watcher(api, config()));
        let mut listing = (BTreeMap::new(), Companions::new(self.kind));
        let mut failures = 0;
        while let Some(event) = events.next().await {
            let event = match event {
                Ok(event) => event,
                Err(error) => {
                    if is_expired(&error) {
                        // What follows is a list.
                        continue;
                    }
                    failures += 1;
                    match failed(&error) {
                        Some(inner) if is_unknown(inner) => return End::Unknown,
                        _ if failures < FAILURES && !is_of_list(&error) => {
                            tracing::debug!(kind = %self.kind, %error, "a watch failed and is tried again");
                            continue;
                        }
                        Some(inner) => return End::Failed(describe(self.kind, inner)),
                        None => return End::Failed(format!("{}: {error}", self.kind)),
                    }
                }
            };
            let Some(changes) = self.take(event, resource, &mut listing).await else { continue };
            failures = 0;
            [self.pause, _] = PAUSES;
            self.unknown_since = None;
            if self.failed.take().is_some() {
                tracing::info!(kind = %self.kind, "objects of the cluster are followed again");
            }
            if !self.send(changes, State::Followed).await {
                return End::Closed;
            }
        }
        End::Failed(format!("{}: the watch ended", self.kind))
    }

    /// What changes by an event; `None` while a list is not whole. `listing`: what it has so far.
    async fn take(
        &mut self,
        event: Event<DynamicObject>,
        resource: &ApiResource,
        (listed, companions): &mut (BTreeMap<String, serde_json::Value>, Companions),
    ) -> Option<Vec<FileChange>> {
        let kind = self.kind;
        let selected = |object| select::object(kind, resource, object);
        let change = match event {
            // Comes before each attempt to list, and says nothing of its success.
            Event::Init => {
                listed.clear();
                companions.begin();
                return None;
            }
            Event::InitApply(object) => {
                listed.extend(companions.listed(object).map(selected));
                return None;
            }
            Event::InitDone => {
                self.confirm().await;
                listed.extend(companions.end().into_iter().map(selected));
                return Some(self.replace(std::mem::take(listed)));
            }
            Event::Apply(object) => {
                let is_companion = companions.has(&object);
                let (name, value) = selected(object);
                if is_companion { self.gone(&name) } else { self.put(name, value) }
            }
            Event::Delete(object) => {
                companions.gone(&object);
                let (name, _value) = selected(object);
                self.gone(&name)
            }
        };
        Some(change.into_iter().collect())
    }

    /// Waits until it is certain that a list is not that of a cluster which was restored from a backup.
    async fn confirm(&self) {
        if let Some(term) = &self.term {
            term.confirmed().await;
        }
    }

    /// Takes a whole list: what it lacks was deleted while nobody looked.
    fn replace(&mut self, listed: BTreeMap<String, serde_json::Value>) -> Vec<FileChange> {
        let gone: Vec<_> = self.known.keys().filter(|name| !listed.contains_key(*name)).cloned().collect();
        for name in &gone {
            self.known.remove(name);
        }
        let put: Vec<_> = listed.into_iter().filter_map(|(name, value)| self.put(name, value)).collect();
        gone.into_iter().map(FileChange::Gone).chain(put).collect()
    }

    /// The change, where the object is another than before.
    fn put(&mut self, name: String, value: serde_json::Value) -> Option<FileChange> {
        let mut hasher = DefaultHasher::new();
        value.hash(&mut hasher);
        let hash = hasher.finish();
        let is_new = self.known.insert(name.clone(), hash) != Some(hash);
        is_new.then_some(FileChange::Object(name, value))
    }

    /// The change, where the object was there.
    fn gone(&mut self, name: &str) -> Option<FileChange> {
        self.known.remove(name).map(|_hash| FileChange::Gone(name.to_owned()))
    }

    async fn send(&self, changes: Vec<FileChange>, state: State) -> bool {
        self.updates.send(Update { kind: self.kind, changes, state }).await.is_ok()
    }
}

/// How kinds are watched.
fn config() -> watcher::Config {
    let timeout = u32::try_from(WATCH.as_secs()).unwrap_or(u32::MAX);
    watcher::Config::default().timeout(timeout)
}

/// The best version that the API server serves.
pub(super) async fn served(client: &Client, versions: &[Resource]) -> Result<Option<ApiResource>, Error> {
    for resource in versions {
        let api = resource.api();
        if resource.built_in {
            return Ok(Some(api));
        }
        match client.list_api_group_resources(&api.api_version).await {
            Ok(list) if list.resources.iter().any(|served| served.name == api.plural) => {
                return Ok(Some(api));
            }
            Ok(_without) => {}
            Err(error) if is_unknown(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

impl Resource {
    /// The resource as the client knows it.
    pub(crate) fn api(&self) -> ApiResource {
        let (group, version) = self.api_version.rsplit_once('/').unwrap_or(("", self.api_version));
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, self.name), self.plural)
    }
}

/// The error of the client behind one of the watcher.
const fn failed(error: &watcher::Error) -> Option<&Error> {
    match error {
        watcher::Error::InitialListFailed(inner)
        | watcher::Error::WatchStartFailed(inner)
        | watcher::Error::WatchFailed(inner) => Some(inner),
        watcher::Error::WatchError(_) | watcher::Error::NoResourceVersion => None,
    }
}

/// Whether it is the list that failed: there is nothing to go on from.
const fn is_of_list(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::InitialListFailed(_))
}

/// Whether the history was too old: a list follows, and nothing is wrong.
fn is_expired(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::WatchError(status) if status.code == 410)
        || matches!(failed(error), Some(Error::Api(status)) if status.code == 410)
}

fn is_unknown(error: &Error) -> bool {
    matches!(error, Error::Api(status) if status.code == 404)
}

/// What is wrong, for people: the API server names verb and resource.
pub(super) fn describe(kind: Kind, error: &Error) -> String {
    if let Error::Api(status) = error
        && !status.message.is_empty()
    {
        return format!("{kind}: {}", status.message);
    }
    let mut text = format!("{kind}: {error}");
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let reason = cause.to_string();
        if !text.contains(&reason) {
            text = format!("{text}: {reason}");
        }
        source = cause.source();
    }
    text
}
