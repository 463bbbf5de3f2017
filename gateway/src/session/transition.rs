//! What leads from one published state to the next, encoded once per audience, and the latest of those steps.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use policy::state::{Endpoint, differences};
use proto::convert::{address_to_wire, endpoint_to_wire};
use proto::v1::ResourceSet;

use super::audience::Audience;
use super::encode;
use super::generation::Published;
use crate::store::WorkloadName;

/// How many steps are kept at most.
const MAX_STEPS: usize = 512;
/// How many bytes the kept steps have at most.
const MAX_BYTES: usize = 64 << 20;

/// One step.
#[derive(Debug)]
pub struct Transition {
    from: u64,
    everyone: Vec<Bytes>,
    /// Audiences that learn something.
    audiences: BTreeMap<Audience, Vec<Bytes>>,
    /// Workloads that learn something alone: their settings, or all that differs where they changed the audience.
    workloads: BTreeMap<WorkloadName, Vec<Bytes>>,
    /// Workloads that changed the audience, with the one before; `None`: they were not there.
    moved: BTreeMap<WorkloadName, Option<Audience>>,
    bytes: usize,
}

/// The latest steps, oldest first, without a gap.
#[derive(Clone, Debug, Default)]
pub struct Log {
    steps: VecDeque<Arc<Transition>>,
    bytes: usize,
}

impl Transition {
    /// The step between two states that follow each other.
    #[must_use]
    pub fn between(before: &Published, after: &Published) -> Self {
        let everyone = encode::parts(endpoints_since(before, after));
        let mut audiences = BTreeMap::new();
        for (audience, view) in after.views() {
            let Some(old) = before.view(audience).filter(|old| !Arc::ptr_eq(old, view)) else { continue };
            let parts = encode::parts(view.since(old));
            if !parts.is_empty() {
                audiences.insert(audience.clone(), parts);
            }
        }
        let moved = after.moved(before);
        let mut workloads: BTreeMap<WorkloadName, Vec<Bytes>> = BTreeMap::new();
        for (workload, old) in &moved {
            let old = old.as_ref().and_then(|old| before.view(old));
            let new = after.audience(workload).and_then(|new| after.view(new));
            if let Some((old, new)) = old.zip(new) {
                workloads.insert(workload.clone(), encode::parts(new.since(old)));
            }
        }
        for workload in after.with_other_settings(before) {
            let parts = after.settings(&workload).map(encode::parts).unwrap_or_default();
            workloads.entry(workload).or_default().extend(parts);
        }
        workloads.retain(|_, parts| !parts.is_empty());
        let all = audiences.values().chain(workloads.values()).flatten().chain(&everyone);
        let bytes = all.map(Bytes::len).sum();
        let from = before.generation().counter;
        Self { from, everyone, audiences, workloads, moved, bytes }
    }

    /// What a workload of the audience (after the step) is told.
    fn parts(&self, workload: &WorkloadName, audience: &Audience) -> impl Iterator<Item = &Bytes> {
        let audience = if self.moved.contains_key(workload) { None } else { self.audiences.get(audience) };
        self.everyone
            .iter()
            .chain(audience.into_iter().flatten())
            .chain(self.workloads.get(workload).into_iter().flatten())
    }
}

impl Log {
    /// Adds the newest step; the oldest ones go where there are too many.
    pub fn push(&mut self, step: Transition) {
        self.bytes += step.bytes;
        self.steps.push_back(Arc::new(step));
        while self.steps.len() > MAX_STEPS || self.bytes > MAX_BYTES {
            let Some(oldest) = self.steps.pop_front() else { break };
            self.bytes -= oldest.bytes;
        }
    }

    /// Everything a workload is told from a generation on, in order. `None` where the log does not reach back that
    /// far, or the workload was not always there.
    #[must_use]
    pub fn since(&self, counter: u64, workload: &WorkloadName, now: &Audience) -> Option<Vec<Bytes>> {
        let mut audience = now.clone();
        let mut steps = Vec::new();
        // From the newest on: most agents are one step behind.
        for step in self.steps.iter().rev() {
            steps.push((step, audience.clone()));
            if let Some(before) = step.moved.get(workload) {
                audience = before.clone()?;
            }
            if step.from <= counter {
                break;
            }
        }
        steps.last().filter(|(oldest, _)| oldest.from == counter)?;
        let parts = steps.iter().rev().flat_map(|(step, audience)| step.parts(workload, audience));
        Some(parts.cloned().collect())
    }
}

fn endpoints_since(before: &Published, after: &Published) -> ResourceSet {
    let (old, new) = (&before.compiled().state.endpoints, &after.compiled().state.endpoints);
    let same = |old: &Arc<Endpoint>, new: &Arc<Endpoint>| Arc::ptr_eq(old, new) || is_told_alike(old, new);
    let mut set = ResourceSet::default();
    for (address, _, now) in differences(old, new, same) {
        match now {
            Some(endpoint) => set.endpoints.push(endpoint_to_wire(*address, endpoint)),
            None => set.removed_endpoints.push(address_to_wire(*address)),
        }
    }
    set
}

/// Whether everyone is told the same of both: names are told apart from endpoints.
fn is_told_alike(a: &Endpoint, b: &Endpoint) -> bool {
    let Endpoint { identity, previous, mark, tunnels, kind, owner: _ } = a;
    *identity == b.identity
        && *previous == b.previous
        && *mark == b.mark
        && *tunnels == b.tunnels
        && *kind == b.kind
}
