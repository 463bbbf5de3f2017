//! A published state, with what each audience is told of it. A snapshot is encoded when somebody first needs it.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use policy::identity::Identity;
use policy::state::{NodeSettings, Policy};
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
    audiences: BTreeMap<WorkloadName, Audience>,
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
        let directory = Directory::of(&compiled.state, before.map(|before| &before.directory));
        let audiences: BTreeMap<_, _> = compiled
            .nodes
            .iter()
            .map(|(name, settings)| (name.clone(), audience_of(name, settings)))
            .collect();
        let mut views = BTreeMap::new();
        for audience in audiences.values() {
            if !views.contains_key(audience) {
                let policy = policy_of(&compiled, audience.identity);
                let before = before.and_then(|before| before.views.get(audience));
                views.insert(audience.clone(), directory.view(audience, policy, before));
            }
        }
        Self { generation, compiled, gateways, directory, views, audiences, everyone: OnceLock::new() }
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

    pub(super) fn audiences(&self) -> &BTreeMap<WorkloadName, Audience> {
        &self.audiences
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

    /// Whether a workload is told other settings than before.
    pub(super) fn has_other_settings(&self, workload: &WorkloadName, before: &Self) -> bool {
        self.compiled.nodes.get(workload) != before.compiled.nodes.get(workload)
            || self.gateways != before.gateways
    }

    fn everyone(&self) -> &Encoded {
        self.everyone.get_or_init(|| Encoded::of(everyone_part(&self.compiled.state.endpoints)))
    }
}

fn audience_of(name: &WorkloadName, settings: &NodeSettings) -> Audience {
    Audience { identity: settings.identity, namespace: name.namespace.as_str().into() }
}

/// The policy of an identity; no policy selects transit nodes.
fn policy_of(compiled: &Compiled, identity: Identity) -> Arc<Policy> {
    let found = compiled.state.policies.get(&identity);
    found.map_or_else(|| Arc::new(Policy::unrestricted()), Arc::clone)
}
