//! Who has which identity, indexed for the rest of the resolution.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::UnusableIdentities;
use super::register::{Population, Register};
use crate::facts::{Facts, NamedPort};
use crate::identity::Identity;
use crate::labels::Labels;

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

/// Who has which identity, found out at once from all facts.
#[derive(Default)]
pub(super) struct Census<'a> {
    pub(super) register: Register,
    pods: BTreeMap<&'a str, Identity>,
    workloads: BTreeMap<&'a str, Identity>,
    /// Of identities that are not reserved.
    counted: BTreeMap<Identity, (Arc<Labels>, Population)>,
}

impl<'a> Census<'a> {
    pub(super) fn of(
        facts: &'a Facts,
        identities: &BTreeMap<Labels, Identity>,
    ) -> Result<Self, UnusableIdentities> {
        let mut census = Self::default();
        for (name, pod) in &facts.pods {
            let identity = census.count(facts.labels_of_pod(pod), identities, false)?;
            census.pods.insert(name, identity);
        }
        for (name, workload) in &facts.workloads {
            let identity = if workload.role.is_cluster_node() {
                census.register.reserve(Identity::REMOTE_NODE, Some(Labels::of_remote_node()));
                Identity::REMOTE_NODE
            } else {
                census.count(facts.labels_of_workload(workload), identities, true)?
            };
            census.workloads.insert(name, identity);
        }
        for (identity, (labels, population)) in &census.counted {
            census.register.put(*identity, labels, *population);
        }
        Ok(census)
    }

    /// Counts one with these labels. Their number is checked: two sets under one number would merge two workloads'
    /// rights.
    fn count(
        &mut self,
        labels: Labels,
        identities: &BTreeMap<Labels, Identity>,
        is_subject: bool,
    ) -> Result<Identity, UnusableIdentities> {
        let Some(&identity) = identities.get(&labels) else {
            return Err(UnusableIdentities::Unallocated { labels });
        };
        if identity.is_reserved() {
            return Err(UnusableIdentities::Reserved { identity, labels });
        }
        if let Some((first, _)) = self.counted.get(&identity).filter(|(first, _)| **first != labels) {
            let first = Labels::clone(first);
            return Err(UnusableIdentities::Shared { identity, first, second: labels });
        }
        let (_, population) =
            self.counted.entry(identity).or_insert_with(|| (Arc::new(labels), Population::default()));
        population.members += 1;
        population.subjects += usize::from(is_subject);
        Ok(identity)
    }

    pub(super) fn of_pod(&self, name: &str) -> Option<Identity> {
        self.pods.get(name).copied()
    }

    pub(super) fn of_workload(&self, name: &str) -> Option<Identity> {
        self.workloads.get(name).copied()
    }

    /// Who has which named ports.
    pub(super) fn directory(&'a self, facts: &'a Facts) -> Directory<'a> {
        let mut directory = Directory::of(&self.register);
        for (name, pod) in &facts.pods {
            if let Some(identity) = self.of_pod(name) {
                directory.add_ports(identity, &pod.addresses, &pod.named_ports, false);
            }
        }
        for (name, workload) in
            facts.workloads.iter().filter(|(_, workload)| !workload.role.is_cluster_node())
        {
            if let Some(identity) = self.of_workload(name) {
                directory.add_ports(identity, &workload.addresses, &workload.named_ports, true);
            }
        }
        directory
    }
}

/// Who has which identity and which named ports.
pub(super) struct Directory<'a> {
    register: &'a Register,
    ports: BTreeMap<&'a str, BTreeMap<u8, ByIdentity<'a>>>,
}

impl<'a> Directory<'a> {
    /// Of these identities. Whose ports have names is to be added.
    pub(super) const fn of(register: &'a Register) -> Self {
        Self { register, ports: BTreeMap::new() }
    }

    pub(super) const fn register(&self) -> &'a Register {
        self.register
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

    pub(super) fn population(&self, identity: Identity) -> Population {
        self.register.population(identity)
    }

    /// Who has a port of that name and protocol, by identity.
    pub(super) fn holders(&self, name: &str, protocol: u8) -> Option<&ByIdentity<'a>> {
        self.ports.get(name)?.get(&protocol)
    }
}
