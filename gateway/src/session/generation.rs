//! A published state, with what each audience is told of it. A snapshot is encoded when somebody first needs it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use policy::state::{NodeSettings, Policy, differences};
use prost::Message as _;
use proto::node::{StateDigest, combined_digest, everyone_part, part_digest, workload_part};
use proto::v1::{Generation, ResourceSet};

use super::audience::{Audience, Directory, Encoded, View};
use super::encode;
use crate::index::Compiled;
use crate::store::WorkloadName;

/// A published state.
#[derive(Debug)]
pub struct Published {
    generation: Generation,
    compiled: Arc<Compiled>,
    gateways: Arc<Vec<String>>,
    directory: Directory,
    views: BTreeMap<Audience, Arc<View>>,
    audiences: Arc<BTreeMap<WorkloadName, Audience>>,
    /// Of a workload that no policy selects, and of transit nodes.
    unrestricted: Arc<Policy>,
    everyone: OnceLock<Encoded>,
}

impl Published {
    /// Publishes a state under a number. `before` is the state it follows; parts that did not change are shared.
    #[must_use]
    pub fn new(
        generation: Generation,
        compiled: Arc<Compiled>,
        gateways: Arc<Vec<String>>,
        before: Option<&Self>,
    ) -> Self {
        let known = before.map(|before| (&before.directory, &before.compiled.state));
        let directory = Directory::of(&compiled.state, known);
        let unrestricted = before
            .map_or_else(|| Arc::new(Policy::unrestricted()), |before| Arc::clone(&before.unrestricted));
        let audiences = match before.filter(|before| Arc::ptr_eq(&before.compiled.nodes, &compiled.nodes)) {
            Some(before) => Arc::clone(&before.audiences),
            None => Arc::new(audiences(&compiled)),
        };
        let renamed = before.and_then(|before| directory.renamed(&before.directory));
        let distinct: BTreeSet<&Audience> = match before {
            Some(before) if Arc::ptr_eq(&before.audiences, &audiences) => before.views.keys().collect(),
            Some(_) | None => audiences.values().collect(),
        };
        let view = |audience: &Audience| {
            let policy = compiled.state.policies.get(&audience.identity).unwrap_or(&unrestricted);
            let before = before.and_then(|before| before.views.get(audience));
            match (before, &renamed) {
                (Some(before), Some(renamed)) if before.stays(policy, renamed) => Arc::clone(before),
                _ => directory.view(audience, Arc::clone(policy), before),
            }
        };
        let views = distinct.into_iter().map(|audience| (audience.clone(), view(audience))).collect();
        let everyone = OnceLock::new();
        Self { generation, compiled, gateways, directory, views, audiences, unrestricted, everyone }
    }

    /// Its number.
    #[must_use]
    pub const fn generation(&self) -> Generation {
        self.generation
    }

    /// The state.
    #[must_use]
    pub const fn compiled(&self) -> &Arc<Compiled> {
        &self.compiled
    }

    /// The audience a workload belongs to; `None` for one that is not part of the state.
    #[must_use]
    pub fn audience(&self, workload: &WorkloadName) -> Option<&Audience> {
        self.audiences.get(workload)
    }

    /// The digest of what a workload is told.
    #[must_use]
    pub fn digest(&self, workload: &WorkloadName) -> Option<StateDigest> {
        let view = self.views.get(self.audiences.get(workload)?)?;
        let settings = part_digest(&self.settings(workload)?.encode_to_vec());
        Some(combined_digest(&[self.everyone().digest, view.snapshot().digest, settings]))
    }

    /// Everything a workload is told.
    pub(super) fn snapshot(&self, workload: &WorkloadName) -> Option<Vec<Bytes>> {
        let view = self.views.get(self.audiences.get(workload)?)?;
        let mut parts = self.everyone().parts.clone();
        parts.extend_from_slice(&view.snapshot().parts);
        parts.extend(encode::parts(self.settings(workload)?));
        Some(parts)
    }

    pub(super) fn view(&self, audience: &Audience) -> Option<&Arc<View>> {
        self.views.get(audience)
    }

    pub(super) fn views(&self) -> &BTreeMap<Audience, Arc<View>> {
        &self.views
    }

    /// The settings of a workload as a part of their own.
    pub(super) fn settings(&self, workload: &WorkloadName) -> Option<ResourceSet> {
        self.compiled.nodes.get(workload).map(|settings| workload_part(settings, &self.gateways))
    }

    /// The workloads that are told other settings than before.
    pub(super) fn with_other_settings(&self, before: &Self) -> Vec<WorkloadName> {
        let same = |old: &Arc<NodeSettings>, new: &Arc<NodeSettings>| policy::state::same(old, new);
        if self.gateways != before.gateways {
            return self.compiled.nodes.keys().cloned().collect();
        }
        if Arc::ptr_eq(&self.compiled.nodes, &before.compiled.nodes) {
            return Vec::new();
        }
        let others = differences(&before.compiled.nodes, &self.compiled.nodes, same);
        others.filter(|(_, _, new)| new.is_some()).map(|(name, ..)| name.clone()).collect()
    }

    /// The workloads that changed the audience, with the one before; `None`: they were not there.
    pub(super) fn moved(&self, before: &Self) -> BTreeMap<WorkloadName, Option<Audience>> {
        if Arc::ptr_eq(&self.audiences, &before.audiences) {
            return BTreeMap::new();
        }
        let moved = differences(&before.audiences, &self.audiences, |old, new| old == new);
        let here = moved.filter(|(_, _, new)| new.is_some());
        here.map(|(name, old, _)| (name.clone(), old.cloned())).collect()
    }

    fn everyone(&self) -> &Encoded {
        self.everyone.get_or_init(|| Encoded::of(everyone_part(&self.compiled.state.endpoints)))
    }
}

fn audiences(compiled: &Compiled) -> BTreeMap<WorkloadName, Audience> {
    let nodes = compiled.nodes.iter();
    nodes.map(|(name, settings)| (name.clone(), audience_of(name, settings))).collect()
}

fn audience_of(name: &WorkloadName, settings: &NodeSettings) -> Audience {
    Audience { identity: settings.identity, namespace: name.namespace.as_str().into() }
}
