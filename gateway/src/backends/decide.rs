//! What is to be done for all Services, from what is known at one moment. Pure: what was seen, workloads and the time are
//! arguments.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::Settings;
use super::follow::{Key, Seen};
use super::plan::{self, Member, Note, Plan, Rules};
use super::service::{Service, Wish};
use super::slice::Slice;
use super::times::Times;
use crate::mesh_view::{Backend, MeshView};
use crate::store::{WorkloadName, Workloads};

/// Time between two looks that counts at most.
const LONGEST: Duration = Duration::from_secs(3);

/// Who decides, and what it remembers.
pub(super) struct Decider {
    settings: Settings,
    times: Times,
    looked: Instant,
}

/// What is to be done.
pub(super) struct Decided {
    pub(super) work: Vec<Work>,
    /// Slices of Services that are gone, or want none any more.
    pub(super) orphans: Vec<Slice>,
}

/// What is to be done for one Service.
pub(super) struct Work {
    pub(super) key: Key,
    pub(super) uid: String,
    pub(super) service: Option<Box<Service>>,
    pub(super) plan: Plan,
}

impl Decider {
    pub(super) fn new(settings: Settings, now: Instant) -> Self {
        Self { settings, times: Times::default(), looked: now }
    }

    /// What is to be done; `None` before all is known.
    pub(super) fn decide(
        &mut self,
        seen: &Seen,
        workloads: &Workloads,
        mesh: &dyn MeshView,
        now: Instant,
    ) -> Option<Decided> {
        // A machine that slept heard of nobody.
        let passed = now.saturating_duration_since(self.looked).min(LONGEST);
        self.looked = now;
        if !seen.is_whole() || !mesh.summary().synced {
            return None;
        }
        let passed = if seen.is_current() { passed } else { Duration::ZERO };
        let (services, slices) = (&seen.services.objects, &seen.slices.objects);
        let namespaces = services.keys().map(|(namespace, _)| namespace.as_str());
        let backends = backends(mesh, namespaces, workloads);
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
            work.push(self.work(key, wish, &existing.unwrap_or_default(), &backends, workloads));
        }
        let orphans = of_service.into_values().flatten().cloned().collect();
        Some(Decided { work, orphans })
    }

    fn work(
        &self,
        key: &Key,
        wish: &Wish,
        existing: &[&Slice],
        backends: &BTreeMap<WorkloadName, Backend>,
        workloads: &Workloads,
    ) -> Work {
        let (service, uid, plan) = match wish {
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
}

/// The workloads of these namespaces as something behind Services.
fn backends<'a>(
    mesh: &dyn MeshView,
    namespaces: impl Iterator<Item = &'a str>,
    workloads: &Workloads,
) -> BTreeMap<WorkloadName, Backend> {
    let namespaces: BTreeSet<&str> = namespaces.collect();
    let of_them = workloads.iter().filter(|(name, _)| namespaces.contains(name.namespace.as_str()));
    of_them.filter_map(|(name, workload)| Some((name.clone(), mesh.backend(workload)?))).collect()
}

#[cfg(test)]
mod tests;
