//! Who has which identity, indexed for the rest of the resolution.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::UnusableIdentities;
use crate::facts::{Facts, NamedPort};
use crate::identity::Identity;
use crate::labels::Labels;
use crate::rules::Subject;
use crate::selector::Selector;

/// How many have an identity.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Population {
    /// Pods and external workloads.
    pub(super) members: usize,
    /// Those that policy is compiled for.
    pub(super) subjects: usize,
}

/// Those of one identity who have a port of some name and protocol.
#[derive(Default)]
pub(super) struct Holders<'a> {
    /// Their addresses, and the ports: several where containers of one pod use the name twice.
    pub(super) each: Vec<(&'a [IpAddr], BTreeSet<u16>)>,
    members: Agreement,
    subjects: Agreement,
}

/// Whether some give a name the same ports.
#[derive(Default)]
struct Agreement {
    holders: usize,
    numbers: BTreeSet<u16>,
    any: BTreeSet<u16>,
    broken: bool,
}

impl Agreement {
    fn add(&mut self, numbers: &BTreeSet<u16>) {
        if self.holders == 0 {
            self.numbers.clone_from(numbers);
        }
        self.broken |= self.numbers != *numbers;
        self.any.extend(numbers);
        self.holders += 1;
    }

    /// `None` where they disagree, or some of the population do not have the name.
    fn among(&self, population: usize) -> Option<&BTreeSet<u16>> {
        (!self.broken && (self.holders == 0 || self.holders == population)).then_some(&self.numbers)
    }
}

impl Holders<'_> {
    /// The ports, where all with that identity agree.
    pub(super) fn agreed_by_members(&self, population: Population) -> Option<&BTreeSet<u16>> {
        self.members.among(population.members)
    }

    /// All ports that somebody with that identity, whom policy is compiled for, has under the name.
    pub(super) fn any_of_subjects(&self) -> &BTreeSet<u16> {
        &self.subjects.any
    }

    /// The ports, where all with that identity that policy is compiled for agree.
    pub(super) fn agreed_by_subjects(&self, population: Population) -> Option<&BTreeSet<u16>> {
        self.subjects.among(population.subjects)
    }
}

/// Those who have a port of one name and protocol.
type ByIdentity<'a> = BTreeMap<Identity, Holders<'a>>;

/// Who has which identity and which named ports.
pub(super) struct Directory<'a> {
    /// The labels of every identity in use, reserved ones among them.
    pub(super) labels: BTreeMap<Identity, Arc<Labels>>,
    /// Of identities that are not reserved.
    pub(super) populations: BTreeMap<Identity, Population>,
    ports: BTreeMap<&'a str, BTreeMap<u8, ByIdentity<'a>>>,
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
            populations: BTreeMap::new(),
            ports: BTreeMap::new(),
            pods: BTreeMap::new(),
            workloads: BTreeMap::new(),
        };
        for (name, pod) in &facts.pods {
            let identity = directory.identify(facts.labels_of_pod(pod), identities)?;
            directory.pods.insert(name, identity);
            directory.add(identity, &pod.addresses, &pod.named_ports, false);
        }
        for (name, workload) in &facts.workloads {
            if workload.transit {
                directory
                    .labels
                    .entry(Identity::REMOTE_NODE)
                    .or_insert_with(|| Arc::new(Labels::of_remote_node()));
                directory.workloads.insert(name, Identity::REMOTE_NODE);
                continue;
            }
            let identity = directory.identify(facts.labels_of_workload(workload), identities)?;
            directory.workloads.insert(name, identity);
            directory.add(identity, &workload.addresses, &workload.named_ports, true);
        }
        Ok(directory)
    }

    /// A directory of identities whose members are counted already. Whose ports have names is to be added.
    pub(super) fn of_counted(
        labels: BTreeMap<Identity, Arc<Labels>>,
        populations: BTreeMap<Identity, Population>,
    ) -> Self {
        let (ports, pods, workloads) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { labels, populations, ports, pods, workloads }
    }

    fn add(&mut self, identity: Identity, addresses: &'a [IpAddr], named: &'a [NamedPort], is_subject: bool) {
        let population = self.populations.entry(identity).or_default();
        population.members += 1;
        population.subjects += usize::from(is_subject);
        self.add_ports(identity, addresses, named, is_subject);
    }

    /// Adds the named ports of one that has the identity.
    pub(super) fn add_ports(
        &mut self,
        identity: Identity,
        addresses: &'a [IpAddr],
        named: &'a [NamedPort],
        is_subject: bool,
    ) {
        let mut numbers: BTreeMap<(&'a str, u8), BTreeSet<u16>> = BTreeMap::new();
        for port in named {
            numbers.entry((&port.name, port.protocol)).or_default().insert(port.number);
        }
        for ((name, protocol), numbers) in numbers {
            let holders = self.ports.entry(name).or_default().entry(protocol).or_default();
            let holders = holders.entry(identity).or_default();
            holders.members.add(&numbers);
            if is_subject {
                holders.subjects.add(&numbers);
            }
            holders.each.push((addresses, numbers));
        }
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
        let subjects = self.populations.iter().filter(|(_, population)| population.subjects > 0);
        subjects.map(|(identity, _)| *identity)
    }

    pub(super) fn population(&self, identity: Identity) -> Population {
        self.populations.get(&identity).copied().unwrap_or_default()
    }

    /// Who has a port of that name and protocol, by identity.
    pub(super) fn holders(&self, name: &str, protocol: u8) -> Option<&ByIdentity<'a>> {
        self.ports.get(name)?.get(&protocol)
    }

    /// Whether the object governs those with the identity.
    pub(super) fn governs(&self, subject: &Subject, identity: Identity) -> bool {
        self.labels.get(&identity).is_some_and(|labels| subject.matches(labels))
    }

    /// Whether it may, as far as the labels can be read.
    pub(super) fn may_govern(&self, subject: &Subject, identity: Identity) -> bool {
        self.labels.get(&identity).is_some_and(|labels| subject.may_match(labels))
    }

    /// The identities of pods and external workloads that the selector matches; of one that denies, may match.
    pub(super) fn select(&self, selector: &Selector, denies: bool) -> BTreeSet<Identity> {
        let is_selected = |labels: &Arc<Labels>| {
            if denies { selector.may_match(labels) } else { selector.matches(labels) }
        };
        let identities = self.populations.keys().copied();
        identities.filter(|identity| self.labels.get(identity).is_some_and(is_selected)).collect()
    }
}
