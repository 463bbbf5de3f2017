//! Who has which identity, indexed for the rest of the resolution.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::UnusableIdentities;
use crate::facts::{Facts, NamedPort};
use crate::identity::Identity;
use crate::labels::Labels;
use crate::selector::Selector;

/// A pod or external workload, as rules see it.
pub(super) struct Member<'a> {
    pub(super) addresses: &'a [IpAddr],
    pub(super) named_ports: &'a [NamedPort],
    /// Whether policy is compiled for it.
    pub(super) is_subject: bool,
}

/// The members of every identity.
pub(super) struct Directory<'a> {
    /// The labels of every identity in use, reserved ones among them.
    pub(super) labels: BTreeMap<Identity, Arc<Labels>>,
    /// Pods and external workloads; reserved identities have none.
    pub(super) members: BTreeMap<Identity, Vec<Member<'a>>>,
    pods: BTreeMap<&'a str, Identity>,
    workloads: BTreeMap<&'a str, Identity>,
}

impl<'a> Directory<'a> {
    pub(super) fn of(
        facts: &'a Facts,
        identities: &BTreeMap<Labels, Identity>,
    ) -> Result<Self, UnusableIdentities> {
        let mut directory = Self {
            labels: BTreeMap::new(),
            members: BTreeMap::new(),
            pods: BTreeMap::new(),
            workloads: BTreeMap::new(),
        };
        for (name, pod) in &facts.pods {
            let identity = directory.identify(facts.labels_of_pod(pod), identities)?;
            directory.pods.insert(name, identity);
            let member =
                Member { addresses: &pod.addresses, named_ports: &pod.named_ports, is_subject: false };
            directory.members.entry(identity).or_default().push(member);
        }
        for (name, workload) in &facts.workloads {
            if workload.transit {
                let labels = Arc::new(Labels::of_remote_node());
                directory.labels.insert(Identity::REMOTE_NODE, labels);
                directory.workloads.insert(name, Identity::REMOTE_NODE);
                continue;
            }
            let identity = directory.identify(facts.labels_of_workload(workload), identities)?;
            directory.workloads.insert(name, identity);
            let member = Member {
                addresses: &workload.addresses,
                named_ports: &workload.named_ports,
                is_subject: true,
            };
            directory.members.entry(identity).or_default().push(member);
        }
        Ok(directory)
    }

    /// The number of a label set, checked: two sets under one number would merge two workloads' rights.
    fn identify(
        &mut self,
        labels: Labels,
        identities: &BTreeMap<Labels, Identity>,
    ) -> Result<Identity, UnusableIdentities> {
        let Some(&identity) = identities.get(&labels) else {
            return Err(UnusableIdentities::Unallocated { labels });
        };
        if identity.is_reserved() {
            return Err(UnusableIdentities::Reserved { identity, labels });
        }
        match self.labels.get(&identity) {
            None => {
                self.labels.insert(identity, Arc::new(labels));
            }
            Some(first) if **first != labels => {
                let first = Labels::clone(first);
                return Err(UnusableIdentities::Shared { identity, first, second: labels });
            }
            Some(_) => {}
        }
        Ok(identity)
    }

    pub(super) fn of_pod(&self, name: &str) -> Option<Identity> {
        self.pods.get(name).copied()
    }

    pub(super) fn of_workload(&self, name: &str) -> Option<Identity> {
        self.workloads.get(name).copied()
    }

    /// The identities that policy is compiled for.
    pub(super) fn subjects(&self) -> impl Iterator<Item = Identity> {
        let subjects =
            self.members.iter().filter(|(_, members)| members.iter().any(|member| member.is_subject));
        subjects.map(|(identity, _)| *identity)
    }

    pub(super) fn matches(&self, selector: &Selector, identity: Identity) -> bool {
        self.labels.get(&identity).is_some_and(|labels| selector.matches(labels))
    }

    /// The identities of pods and external workloads that the selector matches.
    pub(super) fn select(&self, selector: &Selector) -> BTreeSet<Identity> {
        self.members.keys().copied().filter(|identity| self.matches(selector, *identity)).collect()
    }
}
