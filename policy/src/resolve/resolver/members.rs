//! Pods and external workloads with their label sets, each set made once and counted.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::claims::{Claims, Kind};
use super::{Fact, Shared};
use crate::facts::{Facts, Namespace, Pod, Relabel, Workload};
use crate::identity::Identity;
use crate::labels::Labels;
use crate::resolve::UnusableIdentities;
use crate::resolve::directory::Directory;
use crate::resolve::register::{Population, Register};
use crate::state::{Endpoint, EndpointKind, differences};

/// All members.
#[derive(Debug, Default)]
pub(super) struct Members {
    cluster: String,
    namespaces: BTreeMap<String, Arc<Namespace>>,
    pods: BTreeMap<Arc<str>, Member<Pod>>,
    workloads: BTreeMap<Arc<str>, Member<Workload>>,
    sets: BTreeMap<Arc<Labels>, Set>,
    /// Those sets that have numbers, by number.
    register: Register,
    /// The numbers that the sets were given last.
    numbers: Arc<BTreeMap<Labels, Identity>>,
    /// Whether a set was never given one.
    unnumbered: bool,
    /// How many transit nodes there are.
    transit: usize,
    workload_changes: u64,
    /// How often the label sets in use, their numbers, or whose policy is compiled became others.
    scope: u64,
}

/// What [`Members::observe`] found.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Changed {
    /// Whether any member became another.
    pub(super) members: bool,
    /// Whether the label sets became others.
    pub(super) label_sets: bool,
}

#[derive(Debug)]
struct Member<F> {
    fact: Arc<F>,
    labels: Arc<Labels>,
}

/// A label set in use.
#[derive(Debug, Default)]
struct Set {
    population: Population,
    number: Option<Identity>,
}

impl Members {
    pub(super) fn of_cluster(cluster: &str) -> Self {
        Self { cluster: cluster.to_owned(), ..Self::default() }
    }

    pub(super) fn cluster(&self) -> &str {
        &self.cluster
    }

    pub(super) fn label_sets(&self) -> impl ExactSizeIterator<Item = &Labels> {
        self.sets.keys().map(|labels| &**labels)
    }

    pub(super) fn workload(&self, name: &str) -> Option<(Identity, &Labels)> {
        let Member { fact, labels } = self.workloads.get(name)?;
        let number = if fact.role.is_cluster_node() {
            Some(Identity::REMOTE_NODE)
        } else {
            self.sets.get(labels)?.number
        };
        Some((number?, labels))
    }

    pub(super) const fn workload_changes(&self) -> u64 {
        self.workload_changes
    }

    /// How often what selectors are asked about became another.
    pub(super) const fn scope(&self) -> u64 {
        self.scope
    }

    /// Takes over what became another.
    pub(super) fn observe(&mut self, facts: &Facts, claims: &mut Claims) -> Changed {
        let relabelled = differences(&self.namespaces, &facts.namespaces, Arc::ptr_eq);
        let relabelled: BTreeSet<String> = relabelled.map(|(name, ..)| name.clone()).collect();
        self.namespaces.clone_from(&facts.namespaces);
        let mut changed = Changed::default();
        let transit_before = self.transit > 0;
        let pods = changes(&self.pods, &facts.pods, &relabelled);
        let workloads = changes(&self.workloads, &facts.workloads, &relabelled);
        // What comes before what goes: a set that is still used is not numbered anew.
        let mut gone = Vec::new();
        for (name, fact) in pods {
            let new = fact.map(|fact| self.member(&name, fact, facts, claims, &mut changed));
            let old = replace(&mut self.pods, name.clone(), new);
            gone.extend(old.map(|old| Gone::of(&name, old, self.pods.get(&name))));
        }
        for (name, fact) in workloads {
            self.workload_changes += 1;
            self.transit += usize::from(fact.as_ref().is_some_and(|fact| fact.role.is_cluster_node()));
            let new = fact.map(|fact| self.member(&name, fact, facts, claims, &mut changed));
            let old = replace(&mut self.workloads, name.clone(), new);
            self.transit -= usize::from(old.as_ref().is_some_and(|old| old.fact.role.is_cluster_node()));
            gone.extend(old.map(|old| Gone::of(&name, old, self.workloads.get(&name))));
        }
        for gone in gone {
            changed.members = true;
            claims.remove(gone.kind, &gone.name, &gone.addresses);
            if gone.has_labels {
                changed.label_sets |= self.leave(&gone.labels, gone.kind);
            }
        }
        let transit_now = self.transit > 0;
        if transit_before != transit_now {
            self.register.reserve(Identity::REMOTE_NODE, transit_now.then(Labels::of_remote_node));
        }
        self.scope += u64::from(changed.label_sets) + u64::from(transit_before != transit_now);
        changed
    }

    /// A new member: claims its addresses, and counts for its labels.
    fn member<F: Fact>(
        &mut self,
        name: &Arc<str>,
        fact: Arc<F>,
        facts: &Facts,
        claims: &mut Claims,
        changed: &mut Changed,
    ) -> Member<F> {
        changed.members = true;
        claims.add(F::KIND, name, fact.addresses());
        let labels = fact.labels(facts);
        if !fact.has_labels() {
            return Member { fact, labels: Arc::new(labels) };
        }
        let labels = match self.sets.get_key_value(&labels) {
            Some((known, _)) => Arc::clone(known),
            None => Arc::new(labels),
        };
        let set = self.sets.entry(Arc::clone(&labels)).or_insert_with(|| {
            changed.label_sets = true;
            self.unnumbered = true;
            Set::default()
        });
        set.population.members += 1;
        if F::KIND == Kind::Workload {
            self.scope += u64::from(set.population.subjects == 0);
            set.population.subjects += 1;
        }
        if let Some(number) = set.number {
            self.register.put(number, &labels, set.population);
        }
        Member { fact, labels }
    }

    /// One member less has the labels. Whether it was the last.
    fn leave(&mut self, labels: &Arc<Labels>, kind: Kind) -> bool {
        let Some(set) = self.sets.get_mut(labels) else { return false };
        set.population.members -= 1;
        if kind == Kind::Workload {
            set.population.subjects -= 1;
            self.scope += u64::from(set.population.subjects == 0);
        }
        if let Some(number) = set.number {
            self.register.put(number, labels, set.population);
        }
        let last = set.population.members == 0;
        if last {
            self.sets.remove(labels);
        }
        last
    }

    /// Gives the label sets their numbers.
    pub(super) fn number(
        &mut self,
        identities: &Arc<BTreeMap<Labels, Identity>>,
        claims: &mut Claims,
    ) -> Result<(), UnusableIdentities> {
        if !self.unnumbered && Arc::ptr_eq(&self.numbers, identities) {
            return Ok(());
        }
        let numbers = self.numbers(identities)?;
        let mut renumbered = BTreeSet::new();
        let mut changed = Vec::new();
        for ((labels, set), identity) in self.sets.iter_mut().zip(numbers) {
            let before = set.number.replace(identity);
            if before == Some(identity) {
                continue;
            }
            self.scope += 1;
            changed.push((identity, labels, set.population));
            if let Some(before) = before {
                self.register.remove(before);
                renumbered.insert(Arc::clone(labels));
            }
        }
        // After what was removed: one set may have the number that another had.
        for (identity, labels, population) in changed {
            self.register.put(identity, labels, population);
        }
        self.numbers = Arc::clone(identities);
        self.unnumbered = false;
        if !renumbered.is_empty() {
            self.workload_changes += 1;
            let pods = self.pods.values().filter(|pod| renumbered.contains(&pod.labels));
            let workloads = self.workloads.values().filter(|workload| renumbered.contains(&workload.labels));
            let pods = pods.flat_map(|pod| &pod.fact.addresses);
            for address in pods.chain(workloads.flat_map(|workload| &workload.fact.addresses)) {
                claims.touch(*address);
            }
        }
        Ok(())
    }

    /// The numbers of the label sets, in their order. Both maps are sorted alike: one walk finds all.
    fn numbers(&self, identities: &BTreeMap<Labels, Identity>) -> Result<Vec<Identity>, UnusableIdentities> {
        let mut known = identities.iter().peekable();
        let mut numbers = Vec::with_capacity(self.sets.len());
        for labels in self.sets.keys() {
            let found = loop {
                let Some(&(other, &identity)) = known.peek() else { break None };
                match other.cmp(labels) {
                    Ordering::Less => drop(known.next()),
                    Ordering::Equal => break Some(identity),
                    Ordering::Greater => break None,
                }
            };
            let Some(identity) = found else {
                return Err(UnusableIdentities::Unallocated { labels: Labels::clone(labels) });
            };
            if identity.is_reserved() {
                return Err(UnusableIdentities::Reserved { identity, labels: Labels::clone(labels) });
            }
            numbers.push(identity);
        }
        let mut sorted = numbers.clone();
        sorted.sort_unstable();
        let shared = sorted
            .windows(2)
            .find_map(|pair| (pair.first() == pair.last()).then(|| pair.first().copied())?);
        if let Some(identity) = shared {
            let holders = self.sets.keys().zip(&numbers).filter(|(_, number)| **number == identity);
            let mut holders = holders.map(|(labels, _)| Labels::clone(labels));
            if let (Some(first), Some(second)) = (holders.next(), holders.next()) {
                return Err(UnusableIdentities::Shared { identity, first, second });
            }
        }
        Ok(numbers)
    }

    /// The endpoint at an address of the one with that name.
    pub(super) fn endpoint(
        &self,
        kind: Kind,
        name: &Arc<str>,
        relabel: Option<&Relabel>,
    ) -> Option<Endpoint> {
        let (identity, tunnels, kind) = match kind {
            Kind::Pod => {
                let Member { fact, labels } = self.pods.get(name)?;
                let kind = EndpointKind::Pod { behind: Arc::clone(&fact.behind) };
                (self.sets.get(labels)?.number?, &fact.tunnels, kind)
            }
            Kind::Workload => {
                let Member { fact, labels } = self.workloads.get(name)?;
                let identity = if fact.role.is_cluster_node() {
                    Identity::REMOTE_NODE
                } else {
                    self.sets.get(labels)?.number?
                };
                (identity, &fact.tunnels, fact.role.into())
            }
        };
        Some(Endpoint::relabelled(identity, relabel, tunnels, kind, name))
    }

    /// Who has which identity.
    pub(super) const fn register(&self) -> &Register {
        &self.register
    }

    /// Adds the names of ports.
    pub(super) fn name_ports<'a>(&'a self, directory: &mut Directory<'a>) {
        let number = |labels: &Arc<Labels>| self.sets.get(labels).and_then(|set| set.number);
        for Member { fact, labels } in self.pods.values().filter(|pod| !pod.fact.named_ports.is_empty()) {
            if let Some(identity) = number(labels) {
                directory.add_ports(identity, &fact.addresses, &fact.named_ports, false);
            }
        }
        let workloads = self.workloads.values().filter(|workload| !workload.fact.role.is_cluster_node());
        for Member { fact, labels } in workloads.filter(|workload| !workload.fact.named_ports.is_empty()) {
            if let Some(identity) = number(labels) {
                directory.add_ports(identity, &fact.addresses, &fact.named_ports, true);
            }
        }
    }
}

/// A member that is gone, or became another.
struct Gone {
    kind: Kind,
    name: Arc<str>,
    /// The addresses that it has no more.
    addresses: Vec<IpAddr>,
    labels: Arc<Labels>,
    has_labels: bool,
}

impl Gone {
    fn of<F: Fact>(name: &Arc<str>, old: Member<F>, new: Option<&Member<F>>) -> Self {
        let Member { fact, labels } = old;
        let kept: BTreeSet<IpAddr> = new
            .into_iter()
            .flat_map(|new| new.fact.addresses())
            .map(|a| crate::state::canonical(*a))
            .collect();
        let addresses = fact.addresses().iter().copied();
        Self {
            kind: F::KIND,
            name: Arc::clone(name),
            addresses: addresses.filter(|a| !kept.contains(&crate::state::canonical(*a))).collect(),
            labels,
            has_labels: fact.has_labels(),
        }
    }
}

/// The members that became others, with what they are now.
fn changes<F: Fact>(
    known: &BTreeMap<Arc<str>, Member<F>>,
    now: &Shared<F>,
    relabelled: &BTreeSet<String>,
) -> Vec<(Arc<str>, Option<Arc<F>>)> {
    let same = |member: &Member<F>, fact: &Arc<F>| {
        Arc::ptr_eq(&member.fact, fact) && (relabelled.is_empty() || !relabelled.contains(fact.namespace()))
    };
    let changes = differences(known, now, same);
    changes.map(|(name, _, fact)| (Arc::clone(name), fact.cloned())).collect()
}

fn replace<F>(
    members: &mut BTreeMap<Arc<str>, Member<F>>,
    name: Arc<str>,
    new: Option<Member<F>>,
) -> Option<Member<F>> {
    match new {
        Some(new) => members.insert(name, new),
        None => members.remove(&name),
    }
}
