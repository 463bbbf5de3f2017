//! Companions of `NetworkPolicy`s, for CNIs that know no external workloads: the addresses of those that a policy selects by
//! their labels, as `ipBlock`s of a policy of its own. A process with an account of its own, since it writes policies. `follow`
//! sees objects, `decide` and `plan` say what is to be written, `write` writes it. Nothing is written while all is as it was,
//! and nothing that is somebody else's.
//!
//! There is no election: names are fixed, each write names the version it was made of, and what is written follows from
//! the API alone, so two at once write what one would, or are refused.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{EventType, Recorder, Reporter};
use prometheus_client::registry::Registry;
use telemetry::health::Health;
use telemetry::listener::Listener;
use telemetry::service;
use telemetry::shutdown::Shutdown;
use tokio::task::JoinSet;

pub mod config;
mod decide;
mod follow;
mod metrics;
mod object;
mod plan;
mod write;

use crate::ledger::events::{event, publish};
use crate::source::cluster;
use crate::watched::Key;
use config::{Config, SourceAddresses};
use decide::{Decided, Note, Work};
use follow::Observed;
use metrics::{Metrics, State};

/// Who reports.
const CONTROLLER: &str = "outrigger.dev/companions";
/// The check of its health.
const CHECK: &str = "cluster";
/// How often it is looked, beside when the cluster has news.
const LOOK: Duration = Duration::from_secs(1);
/// After a look, for so long there is no other.
const REST: Duration = Duration::from_millis(100);
/// How long a policy rests whose companion could not be written.
const RETRY: Duration = Duration::from_secs(5);

/// Who keeps companions.
struct Keeper {
    client: Client,
    config: Config,
    observed: Arc<Observed>,
    recorder: Recorder,
    metrics: Metrics,
    health: Health,
    /// What was not written, why, and when to try again.
    failed: BTreeMap<Key, (Note, Instant)>,
    /// What was told of policies.
    told: BTreeMap<Key, Note>,
    /// Companions in namespaces that are not listed, as was told.
    outside: usize,
}

/// Keeps companions until shutdown.
///
/// # Errors
/// Why it could not start, or which part ended.
pub async fn run(config: Config, shutdown: Shutdown) -> Result<()> {
    let client = cluster::client(&config.cluster).await?;
    let (metrics, health) = (Metrics::default(), Health::default());
    let mut registry = Registry::default();
    metrics.register(&mut registry);
    health.declare(CHECK, "the cluster is being read");
    let listener = Listener::bind(config.metrics_listen, Arc::new(registry), health.clone()).await?;
    if config.source_addresses == SourceAddresses::Masqueraded {
        tracing::warn!("no companion is written: `sourceAddresses: masqueraded`");
    }
    let host = nix::unistd::gethostname().context("the name of this machine")?;
    let reporter =
        Reporter { controller: CONTROLLER.to_owned(), instance: Some(host.to_string_lossy().into_owned()) };
    let namespaces = config.namespaces.iter().cloned().collect::<Vec<_>>().join(",");
    let observed = Arc::<Observed>::default();
    let keeper = Keeper {
        recorder: Recorder::new(client.clone(), reporter),
        client: client.clone(),
        config,
        observed: observed.clone(),
        metrics,
        health,
        failed: BTreeMap::new(),
        told: BTreeMap::new(),
        outside: 0,
    };
    let mut tasks = JoinSet::new();
    tasks.spawn(listener.serve(shutdown.clone()));
    tasks.spawn(follow::follow(client, observed));
    tasks.spawn(keeper.run());
    service::ready("keeping companions");
    tracing::info!(namespaces, "companions are kept");
    tokio::select! {
        () = shutdown.wait() => {}
        _ended = tasks.join_next() => {
            anyhow::ensure!(shutdown.is_triggered(), "a part of it ended; see its log");
        }
    }
    service::stopping();
    tracing::info!("companions are kept no longer");
    Ok(())
}

impl Keeper {
    async fn run(mut self) {
        loop {
            let decided = decide::decide(&self.observed.lock(), &self.config);
            self.metrics.synced(decided.is_some());
            match decided {
                Some(decided) => {
                    self.health.ready(CHECK);
                    self.keep(decided).await;
                }
                None => self.health.unready(CHECK, self.observed.lock().trouble()),
            }
            tokio::time::sleep(REST).await;
            let _due = tokio::time::timeout(LOOK, self.observed.news.notified()).await;
        }
    }

    async fn keep(&mut self, Decided { work, mut notes, kept, outside }: Decided) {
        let about: BTreeSet<&Key> = work.iter().map(|work| &work.about).collect();
        self.failed.retain(|key, _| about.contains(key));
        for work in work {
            self.write(work).await;
        }
        notes.extend(self.failed.iter().map(|(key, (note, _))| (key.clone(), note.clone())));
        let count = |state| {
            let noted = notes.values().filter(|note| note.state == state).count();
            if state == State::Kept { kept } else { noted }
        };
        self.metrics.decided(count, outside);
        for (key, note) in &notes {
            if self.told.get(key) != Some(note) {
                self.tell(key, note).await;
            }
        }
        self.told = notes;
        if outside != self.outside && outside > 0 {
            tracing::warn!(outside, "companions in namespaces that are not listed are left as they are");
        }
        self.outside = outside;
    }

    async fn write(&mut self, work: Work) {
        let now = Instant::now();
        let (key, uid) = (work.about.clone(), work.uid.clone());
        if self.failed.get(&key).is_some_and(|(_, at)| *at > now) {
            return;
        }
        match write::write(&self.client, &self.observed, work).await {
            Ok(is_written) => {
                if is_written {
                    self.metrics.wrote(true);
                    let (namespace, policy) = &key;
                    tracing::info!(namespace, policy, "a companion was brought in line");
                }
                self.failed.remove(&key);
            }
            Err(text) => {
                self.metrics.wrote(false);
                let note = Note { uid, state: State::NotWritten, text };
                self.failed.insert(key, (note, now + RETRY));
            }
        }
    }

    /// What is wrong is an event on the policy, never a change of it.
    async fn tell(&self, (namespace, name): &Key, note: &Note) {
        let (reason, text) = (note.state.reason(), &note.text);
        tracing::warn!(namespace, policy = name, reason, text, "a policy has no companion as it should be");
        let regarding = ObjectReference {
            api_version: Some("networking.k8s.io/v1".to_owned()),
            kind: Some("NetworkPolicy".to_owned()),
            namespace: Some(namespace.clone()),
            name: Some(name.clone()),
            uid: Some(note.uid.clone()),
            ..ObjectReference::default()
        };
        let told = event(EventType::Warning, reason, "Accompany", note.text.clone());
        publish(&self.recorder, &told, &regarding).await;
    }
}
