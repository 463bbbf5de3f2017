//! A cluster's API as a source: each kind is listed and watched, of each object is kept what means something here, and what
//! changed is passed on. The receiver takes one report after the other; while it is busy, only the latest version of each
//! object waits.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use kube::Client;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Report;
use super::catalog::FileChange;
use crate::election::Term;
use crate::manifest::{Kind, Resource};

mod companions;
pub(crate) mod connect;
mod follow;
mod once;
pub(crate) mod select;

pub use connect::ConnectError;
pub(crate) use connect::{address_towards, client};
pub use once::{ReadError, read};

/// How long changes are gathered before they are passed on.
const GATHER: Duration = Duration::from_millis(10);
/// How often it is told what the first lists wait for.
const TELL: Duration = Duration::from_secs(10);
/// Updates of kinds that wait to be gathered.
const WAITING: usize = 64;

/// Which cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// How to reach it; `None`: as a pod of it.
    pub kubeconfig: Option<PathBuf>,
}

/// A cluster of which every kind was listed once.
#[derive(Debug)]
pub struct Cluster {
    gathered: Gathered,
    updates: mpsc::Receiver<Update>,
    /// Ended when this is dropped.
    _followers: JoinSet<()>,
}

/// What became of the objects of a kind.
#[derive(Debug)]
struct Update {
    kind: Kind,
    changes: Vec<FileChange>,
    state: State,
}

/// How a kind is followed.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// All that it has is known.
    Followed,
    /// The cluster does not have it.
    Absent,
    /// What it has now is not known, and why.
    Trouble(String),
}

/// What is not passed on yet.
#[derive(Debug, Default)]
struct Gathered {
    changes: BTreeMap<String, FileChange>,
    states: BTreeMap<Kind, State>,
    /// What was last told of troubles.
    told: Option<String>,
    /// When to pass on what there is.
    due: Option<Instant>,
}

impl Cluster {
    /// Begins to follow the cluster, and waits until every kind is listed. With a `term`, no list is believed that could be
    /// that of a cluster which went back. What cannot be read is told, and tried again.
    ///
    /// # Errors
    /// [`ConnectError`] where nobody knows how to reach the cluster.
    pub async fn open(
        settings: &Settings,
        term: Option<&Term>,
    ) -> Result<(Self, Vec<FileChange>), ConnectError> {
        let client = connect::client(settings).await?;
        let (sender, mut updates) = mpsc::channel(WAITING);
        let followers = follow_all(&client, &sender, term);
        let mut gathered = Gathered::default();
        let mut tell = tokio::time::interval_at(Instant::now() + TELL, TELL);
        while !gathered.is_whole() {
            tokio::select! {
                Some(update) = updates.recv() => gathered.take(update),
                _ = tell.tick() => {
                    let missing = gathered.missing();
                    tracing::warn!(missing, "the cluster is not known yet, and no host is served");
                }
            }
        }
        let changes = std::mem::take(&mut gathered.changes).into_values().collect();
        gathered.due = None;
        Ok((Self { gathered, updates, _followers: followers }, changes))
    }

    /// Reports changes until the receiver is gone.
    pub async fn run(mut self, reports: mpsc::Sender<Report>) {
        loop {
            tokio::select! {
                update = self.updates.recv() => match update {
                    Some(update) => self.gathered.take(update),
                    None => return,
                },
                permit = due(self.gathered.due, &reports) => match permit {
                    Some(permit) => permit.send(self.gathered.report()),
                    None => return,
                },
            }
        }
    }
}

/// The right to send, once it is time to; `None` where nobody receives.
async fn due(at: Option<Instant>, reports: &mpsc::Sender<Report>) -> Option<mpsc::Permit<'_, Report>> {
    let Some(at) = at else {
        reports.closed().await;
        return None;
    };
    tokio::time::sleep_until(at).await;
    reports.reserve().await.ok()
}

/// The versions of each kind, the best one first.
fn kinds() -> BTreeMap<Kind, Vec<Resource>> {
    let mut by_kind: BTreeMap<Kind, Vec<Resource>> = BTreeMap::new();
    for resource in Resource::all() {
        by_kind.entry(resource.kind).or_default().push(resource);
    }
    by_kind
}

fn follow_all(client: &Client, updates: &mpsc::Sender<Update>, term: Option<&Term>) -> JoinSet<()> {
    let mut followers = JoinSet::new();
    for (kind, versions) in kinds() {
        let follower = follow::Follower::new(client.clone(), kind, versions, updates.clone(), term.cloned());
        followers.spawn(follower.run());
    }
    followers
}

impl Gathered {
    fn take(&mut self, Update { kind, changes, state }: Update) {
        for change in changes {
            self.changes.insert(change.name().to_owned(), change);
        }
        self.states.insert(kind, state);
        if (!self.changes.is_empty() || self.trouble() != self.told) && self.due.is_none() {
            self.due = Some(Instant::now() + GATHER);
        }
    }

    fn report(&mut self) -> Report {
        self.due = None;
        self.told = self.trouble();
        let changes = std::mem::take(&mut self.changes).into_values().collect();
        Report { changes, trouble: self.told.clone() }
    }

    fn trouble(&self) -> Option<String> {
        let troubles: BTreeSet<&str> = self.states.values().filter_map(State::trouble).collect();
        let all = troubles.into_iter().collect::<Vec<_>>().join("; ");
        (!all.is_empty()).then_some(all)
    }

    fn is_whole(&self) -> bool {
        let is_known = |kind| matches!(self.states.get(&kind), Some(State::Followed | State::Absent));
        Resource::all().all(|resource| is_known(resource.kind))
    }

    /// The kinds that are not known, with reasons.
    fn missing(&self) -> String {
        let missing = Resource::all().filter_map(|resource| match self.states.get(&resource.kind) {
            None => Some(format!("{}: not listed yet", resource.kind)),
            Some(state) => state.trouble().map(str::to_owned),
        });
        missing.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join("; ")
    }
}

impl State {
    fn trouble(&self) -> Option<&str> {
        match self {
            Self::Trouble(reason) => Some(reason),
            Self::Followed | Self::Absent => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(name: &str, value: u32) -> FileChange {
        FileChange::Object(name.to_owned(), serde_json::json!({ "value": value }))
    }

    #[test]
    fn only_the_latest_version_of_an_object_waits() {
        let mut gathered = Gathered::default();
        let update = |changes| Update { kind: Kind::Pod, changes, state: State::Followed };
        gathered.take(update(vec![put("a", 1), put("b", 1)]));
        gathered.take(update(vec![put("a", 2), FileChange::Gone("b".to_owned())]));
        let report = gathered.report();
        assert_eq!(report.changes, [put("a", 2), FileChange::Gone("b".to_owned())]);
        assert!(gathered.due.is_none() && gathered.report().changes.is_empty());
    }

    #[test]
    fn a_trouble_is_told_and_its_end_too() {
        let mut gathered = Gathered::default();
        let update = |state| Update { kind: Kind::Pod, changes: Vec::new(), state };
        gathered.take(update(State::Followed));
        assert!(gathered.due.is_none(), "nothing is to be told");
        gathered.take(update(State::Trouble("pods: forbidden".to_owned())));
        assert!(gathered.due.is_some() && !gathered.is_whole());
        assert_eq!(gathered.report().trouble.as_deref(), Some("pods: forbidden"));
        gathered.take(update(State::Trouble("pods: forbidden".to_owned())));
        assert!(gathered.due.is_none(), "told already");
        gathered.take(update(State::Followed));
        assert!(gathered.due.is_some());
        assert_eq!(gathered.report().trouble, None);
    }

    #[test]
    fn the_source_is_whole_when_every_kind_is_known() {
        let mut gathered = Gathered::default();
        let mut seen = BTreeSet::new();
        for resource in Resource::all().filter(|resource| seen.insert(resource.kind)) {
            assert!(!gathered.is_whole());
            assert!(gathered.missing().contains(&resource.kind.to_string()));
            let state = if resource.built_in { State::Followed } else { State::Absent };
            gathered.take(Update { kind: resource.kind, changes: Vec::new(), state });
        }
        assert!(gathered.is_whole() && gathered.missing().is_empty());
    }
}
