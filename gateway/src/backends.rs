//! External workloads behind Services of a cluster: a Service that asks for them gets `EndpointSlice`s of the gateway's own.
//! `follow` sees Services and slices, `decide` and `plan` say what is to be written, `write` writes it. Nothing is written while all is
//! as it was, and nothing that is somebody else's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{EventType, Recorder, Reporter};

use crate::ledger::events::{CONTROLLER, event, publish};
use crate::mesh_view::MeshView;
use crate::store::{Pools, Store};

mod decide;
mod follow;
mod plan;
mod service;
mod slice;
mod times;
mod write;

use decide::{Decided, Decider, Work};
use follow::{Key, Observed};
use plan::Note;

/// How often it is looked, beside when the cluster has news.
const LOOK: Duration = Duration::from_secs(1);
/// After a look, for so long there is no other.
const REST: Duration = Duration::from_millis(100);
/// Services that are written at a time.
const TOGETHER: usize = 8;
/// How long a Service rests whose slices could not be written.
const RETRY: Duration = Duration::from_secs(5);

/// What an administrator decided.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long an agent may be silent before its workload is left out.
    pub lease: Duration,
    /// The share of a Service's workloads, in percent, that may be left out for that.
    pub stale_share: u8,
    /// The addresses that endpoints may have.
    pub pools: Pools,
}

/// Who keeps the slices.
struct Keeper {
    client: Client,
    observed: Arc<Observed>,
    store: Arc<Store>,
    mesh: Arc<dyn MeshView>,
    recorder: Recorder,
    decider: Decider,
    /// What was not written, why, and when to try again.
    failed: BTreeMap<Key, (String, Instant)>,
    /// When slices of Services that are gone are removed again.
    orphans_due: Instant,
    /// What was told of Services.
    told: BTreeSet<(Key, Note)>,
}

/// Keeps the slices until it is dropped.
pub async fn keep(
    client: Client,
    store: Arc<Store>,
    mesh: Arc<dyn MeshView>,
    settings: Settings,
    instance: String,
) {
    let observed = Arc::<Observed>::default();
    let reporter = Reporter { controller: CONTROLLER.to_owned(), instance: Some(instance) };
    let keeper = Keeper {
        recorder: Recorder::new(client.clone(), reporter),
        client: client.clone(),
        observed: observed.clone(),
        store,
        mesh,
        decider: Decider::new(settings, Instant::now()),
        failed: BTreeMap::new(),
        orphans_due: Instant::now(),
        told: BTreeSet::new(),
    };
    tokio::join!(follow::follow(client, observed), keeper.run());
}

impl Keeper {
    async fn run(mut self) {
        loop {
            let _due = tokio::time::timeout(LOOK, self.observed.news.notified()).await;
            let decided = self.decide();
            // Another gateway may write by now, where this one is not certain.
            if let Some(decided) = decided.filter(|_| self.store.confirm().is_ok()) {
                self.write(decided).await;
            }
            tokio::time::sleep(REST).await;
        }
    }

    fn decide(&mut self) -> Option<Decided> {
        let workloads = self.store.workloads();
        let mut decided =
            self.decider.decide(&self.observed.lock(), &workloads, &*self.mesh, Instant::now())?;
        for work in &mut decided.work {
            if let Some((reason, _)) = self.failed.get(&work.key) {
                let text = reason.clone();
                work.plan.notes.insert(Note { reason: "EndpointSlicesNotWritten", text });
            }
        }
        Some(decided)
    }

    async fn write(&mut self, Decided { work, orphans }: Decided) {
        let now = Instant::now();
        self.failed.retain(|key, _| work.iter().any(|work| work.key == *key));
        for (key, uid, note) in self.untold(&work) {
            self.tell(key, uid, note).await;
        }
        let mut writing = FuturesUnordered::new();
        for Work { key, service, plan, .. } in work {
            let is_due = self.failed.get(&key).is_none_or(|(_, at)| *at <= now);
            let Some(service) = service.filter(|_| is_due && !plan.changes.is_empty()) else { continue };
            if writing.len() >= TOGETHER
                && let Some((key, written)) = writing.next().await
            {
                self.written(key, written);
            }
            let (client, observed) = (self.client.clone(), self.observed.clone());
            writing.push(async move {
                let written = write::write(&client, &observed, &service.owner, plan.changes).await;
                (key, written)
            });
        }
        while let Some((key, written)) = writing.next().await {
            self.written(key, written);
        }
        if !orphans.is_empty()
            && self.orphans_due <= now
            && let Err(reason) = write::remove(&self.client, &self.observed, orphans).await
        {
            tracing::warn!(reason, "slices of Services that are gone are not removed");
            self.orphans_due = Instant::now() + RETRY;
        }
    }

    /// Takes note of what became of the slices of a Service.
    fn written(&mut self, key: Key, written: Result<(), String>) {
        match written {
            Ok(()) => drop(self.failed.remove(&key)),
            Err(reason) => {
                if self.failed.get(&key).is_none_or(|(before, _)| *before != reason) {
                    let (namespace, name) = &key;
                    tracing::warn!(namespace, name, reason, "the endpoints of a Service are not written");
                }
                self.failed.insert(key, (reason, Instant::now() + RETRY));
            }
        }
    }

    /// What is new to know of Services.
    fn untold(&mut self, work: &[Work]) -> Vec<(Key, String, Note)> {
        let (mut now, mut news) = (BTreeSet::new(), Vec::new());
        for work in work {
            for note in &work.plan.notes {
                let entry = (work.key.clone(), note.clone());
                if !self.told.contains(&entry) {
                    news.push((work.key.clone(), work.uid.clone(), note.clone()));
                }
                now.insert(entry);
            }
        }
        self.told = now;
        news
    }

    async fn tell(&self, (namespace, name): Key, uid: String, note: Note) {
        tracing::warn!(namespace, name, reason = note.reason, text = note.text, "about a Service");
        let regarding = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Service".to_owned()),
            namespace: Some(namespace),
            name: Some(name),
            uid: Some(uid),
            ..ObjectReference::default()
        };
        let told = event(EventType::Warning, note.reason, "Serve", note.text);
        publish(&self.recorder, &told, &regarding).await;
    }
}
