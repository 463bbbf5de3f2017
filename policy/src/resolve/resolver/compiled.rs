//! Policies that were compiled, with what each object contributed. An object is looked at again when it became another,
//! when identities in use did, or, where it names ports, when any pod or workload did.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::members::Members;
use crate::facts::{CidrGroup, Facts, Service};
use crate::identity::Identity;
use crate::labels::Labels;
use crate::resolve::directory::Directory;
use crate::resolve::peers::PeerCache;
use crate::resolve::policies::{Contribution, names_ports, names_sets, policies_of};
use crate::rules::PolicyObject;
use crate::state::{Policy, differences};

/// All policies.
#[derive(Debug, Default)]
pub(super) struct Compiled {
    labels: BTreeMap<Identity, Arc<Labels>>,
    /// Of the members when policies were compiled last.
    scope: u64,
    contributions: BTreeMap<Arc<str>, Contribution>,
    policies: BTreeMap<Identity, Arc<Policy>>,
    host_policies: BTreeMap<Identity, Arc<Policy>>,
    services: BTreeMap<Arc<str>, Arc<Service>>,
    groups: BTreeMap<Arc<str>, Arc<CidrGroup>>,
}

impl Compiled {
    pub(super) const fn labels(&self) -> &BTreeMap<Identity, Arc<Labels>> {
        &self.labels
    }

    pub(super) const fn policies(&self) -> &BTreeMap<Identity, Arc<Policy>> {
        &self.policies
    }

    pub(super) const fn host_policies(&self) -> &BTreeMap<Identity, Arc<Policy>> {
        &self.host_policies
    }

    pub(super) fn warned(
        &self,
    ) -> impl Iterator<Item = (&PolicyObject, &BTreeSet<Identity>, &BTreeSet<String>)> {
        let warned = self.contributions.values().filter(|contribution| !contribution.warnings.is_empty());
        warned.map(|contribution| (&*contribution.object, &contribution.concerned, &contribution.warnings))
    }

    pub(super) fn warnings(&self) -> impl Iterator<Item = &String> {
        self.contributions.values().flat_map(|contribution| &contribution.warnings)
    }

    /// Compiles what changed; `moved`: pods or workloads became others.
    pub(super) fn update(&mut self, facts: &Facts, members: &Members, moved: bool) {
        let scope_changed = self.scope != members.scope();
        let sets_changed = self.services != facts.services || self.groups != facts.cidr_groups;
        self.services.clone_from(&facts.services);
        self.groups.clone_from(&facts.cidr_groups);
        let is_known = |known: &Contribution, object: &Arc<_>| {
            let refers_to_changes = (moved && names_ports(object)) || (sets_changed && names_sets(object));
            !scope_changed && !refers_to_changes && Arc::ptr_eq(&known.object, object)
        };
        let changes: Vec<_> = differences(&self.contributions, &facts.policies, is_known)
            .map(|(origin, _, object)| (Arc::clone(origin), object.cloned()))
            .collect();
        if changes.is_empty() && !scope_changed {
            return;
        }
        let mut directory = Directory::of(members.register());
        let subjects = members.register().subjects();
        if changes.iter().filter_map(|(_, object)| object.as_ref()).any(|object| names_ports(object)) {
            members.name_ports(&mut directory);
        }
        let mut cache = PeerCache::new(facts, &directory);
        let mut affected = if scope_changed { subjects.clone() } else { BTreeSet::new() };
        for (origin, object) in &changes {
            let new = object.as_ref().map(|object| Contribution::of(object, &mut cache));
            affected.extend(new.iter().flat_map(|new| &new.concerned));
            let old = match new {
                Some(new) => self.contributions.insert(Arc::clone(origin), new),
                None => self.contributions.remove(origin),
            };
            affected.extend(old.iter().flat_map(|old| &old.concerned));
        }
        self.policies.retain(|identity, _| subjects.contains(identity));
        self.host_policies.retain(|identity, _| subjects.contains(identity));
        for identity in affected.intersection(subjects) {
            let (policy, of_host) = policies_of(*identity, self.contributions.values());
            keep(&mut self.policies, *identity, Some(policy));
            keep(&mut self.host_policies, *identity, of_host);
        }
        if scope_changed {
            self.labels.clone_from(members.register().labels());
            self.scope = members.scope();
        }
    }
}

/// Replaces a policy unless it is as it was.
fn keep(policies: &mut BTreeMap<Identity, Arc<Policy>>, identity: Identity, policy: Option<Policy>) {
    match policy {
        Some(policy) if policies.get(&identity).is_some_and(|known| **known == policy) => {}
        Some(policy) => drop(policies.insert(identity, Arc::new(policy))),
        None => drop(policies.remove(&identity)),
    }
}
