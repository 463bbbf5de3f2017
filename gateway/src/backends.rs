//! External workloads behind Services of a cluster: a Service that asks for them gets `EndpointSlice`s of the gateway's own.
//! `follow` sees Services and slices, `plan` says what is to be written, `write` writes it. Nothing is written while all is
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
use crate::mesh_view::{Backend, MeshView};
use crate::store::{Pools, Store, WorkloadName, Workloads};

mod follow;
mod plan;
mod service;
mod slice;
mod times;
mod write;

use follow::{Key, Observed};
use plan::{Member, Note, Plan, Rules};
use service::{Service, Wish};
use slice::Slice;
use times::Times;

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
    settings: Settings,
    recorder: Recorder,
    times: Times,
    looked: Instant,
    /// What was not written, why, and when to try again.
    failed: BTreeMap<Key, (String, Instant)>,
    /// What was told of Services.
    told: BTreeSet<(Key, Note)>,
}

/// What is to be done for one Service.
struct Work {
    key: Key,
    uid: String,
    service: Option<Box<Service>>,
    plan: Plan,
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
        settings,
        times: Times::default(),
        looked: Instant::now(),
        failed: BTreeMap::new(),
        told: BTreeSet::new(),
    };
    tokio::join!(follow::follow(client, observed), keeper.run());
}

impl Keeper {
    async fn run(mut self) {
        loop {
            let _due = tokio::time::timeout(LOOK, self.observed.news.notified()).await;
            if let Some((work, orphans)) = self.look(Instant::now()) {
                self.write(work, orphans).await;
            }
            tokio::time::sleep(REST).await;
        }
    }

    /// What is to be done; `None` before all is known.
    fn look(&mut self, now: Instant) -> Option<(Vec<Work>, Vec<Slice>)> {
        // A machine that slept heard of nobody.
        let passed = now.saturating_duration_since(self.looked).min(LOOK * 3);
        self.looked = now;
        let observed = self.observed.clone();
        let seen = observed.lock();
        if !seen.is_whole() || !self.mesh.summary().synced {
            return None;
        }
        let passed = if seen.is_current() { passed } else { Duration::ZERO };
        let (services, slices) = (&seen.services.objects, &seen.slices.objects);
        let workloads = self.store.workloads();
        let backends = self.backends(services.keys().map(|(namespace, _)| namespace.as_str()), &workloads);
        let silent = backends.iter().filter(|(_, backend)| !backend.connected);
        let is_gone = |namespace: &str, workload: &str| {
            let name = WorkloadName::try_new(namespace, workload);
            name.is_ok_and(|name| !workloads.contains_key(&name))
        };
        let gone = slices.values().flat_map(|slice| {
            let gone = slice.endpoints.iter().filter(|of| is_gone(&slice.namespace, &of.workload));
            gone.map(|of| (slice.namespace.clone(), of.address))
        });
        self.times.look(passed, silent.map(|(name, _)| name.clone()), gone);
        let mut of_service: BTreeMap<Key, Vec<&Slice>> = BTreeMap::new();
        for slice in slices.values() {
            let key = (slice.namespace.clone(), slice.service.clone());
            of_service.entry(key).or_default().push(slice);
        }
        let mut work = Vec::new();
        for (key, wish) in services {
            let existing = if matches!(wish, Wish::Wanted(_)) { of_service.remove(key) } else { None };
            work.push(self.work(key, wish, &existing.unwrap_or_default(), &backends, &workloads));
        }
        let orphans = of_service.into_values().flatten().cloned().collect();
        Some((work, orphans))
    }

    /// The workloads of these namespaces as something behind Services.
    fn backends<'a>(
        &self,
        namespaces: impl Iterator<Item = &'a str>,
        workloads: &Workloads,
    ) -> BTreeMap<WorkloadName, Backend> {
        let namespaces: BTreeSet<&str> = namespaces.collect();
        let of_them = workloads.iter().filter(|(name, _)| namespaces.contains(name.namespace.as_str()));
        let known = of_them.filter_map(|(name, workload)| Some((name.clone(), self.mesh.backend(workload)?)));
        known.collect()
    }

    fn work(
        &self,
        key: &Key,
        wish: &Wish,
        existing: &[&Slice],
        backends: &BTreeMap<WorkloadName, Backend>,
        workloads: &Workloads,
    ) -> Work {
        let (service, uid, mut plan) = match wish {
            Wish::Wanted(service) => {
                let namespace = &service.owner.namespace;
                let members: Vec<Member> = backends
                    .iter()
                    .filter(|(name, _)| name.namespace == *namespace)
                    .filter_map(|(name, backend)| self.member(name, backend, workloads))
                    .collect();
                let rules = Rules {
                    stale_share: self.settings.stale_share,
                    lingers: &|gone| self.times.lingers(namespace, gone.address),
                };
                let plan = plan::plan(service, &members, existing, &rules);
                (Some(service.clone()), service.owner.uid.clone(), plan)
            }
            Wish::Refused { uid, reason } => {
                let note = Note { reason: "ExternalWorkloadsRefused", text: reason.clone() };
                (None, uid.clone(), Plan { notes: [note].into(), ..Plan::default() })
            }
        };
        if let Some((reason, _)) = self.failed.get(key) {
            plan.notes.insert(Note { reason: "EndpointSlicesNotWritten", text: reason.clone() });
        }
        Work { key: key.clone(), uid, service, plan }
    }

    fn member(&self, name: &WorkloadName, backend: &Backend, workloads: &Workloads) -> Option<Member> {
        let workload = workloads.get(name)?;
        let own = workload.addresses.iter().copied();
        Some(Member {
            name: name.name.clone(),
            addresses: own.filter(|address| self.settings.pools.contains(*address)).collect(),
            group: backend.group.clone(),
            zone: backend.zone.clone(),
            ready: backend.ready,
            overdue: self.times.overdue(name, self.settings.lease),
        })
    }

    async fn write(&mut self, work: Vec<Work>, orphans: Vec<Slice>) {
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
            && let Err(reason) = write::remove(&self.client, &self.observed, orphans).await
        {
            tracing::warn!(reason, "slices of Services that are gone are not removed");
            tokio::time::sleep(RETRY).await;
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
