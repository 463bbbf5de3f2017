//! The identities in use: their labels, how many have them, and who has which label, so that a selector looks at few.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

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

/// The identities in use.
#[derive(Debug, Default)]
pub(super) struct Register {
    /// The labels of each, reserved ones among them.
    labels: BTreeMap<Identity, Arc<Labels>>,
    /// Of those that are not reserved.
    populations: BTreeMap<Identity, Population>,
    /// Those that policy is compiled for.
    subjects: BTreeSet<Identity>,
    /// Who has a label with a value, of those that are not reserved.
    holders: BTreeMap<String, BTreeMap<String, BTreeSet<Identity>>>,
}

impl Register {
    /// The labels of every identity.
    pub(super) const fn labels(&self) -> &BTreeMap<Identity, Arc<Labels>> {
        &self.labels
    }

    /// The labels of every identity, and nothing else.
    pub(super) fn into_labels(self) -> BTreeMap<Identity, Arc<Labels>> {
        self.labels
    }

    /// The identities that policy is compiled for.
    pub(super) const fn subjects(&self) -> &BTreeSet<Identity> {
        &self.subjects
    }

    pub(super) fn population(&self, identity: Identity) -> Population {
        self.populations.get(&identity).copied().unwrap_or_default()
    }

    /// Puts a reserved identity there, which is nobody's to select by its labels, or takes it away.
    pub(super) fn reserve(&mut self, identity: Identity, labels: Option<Labels>) {
        match labels {
            Some(labels) => drop(self.labels.insert(identity, Arc::new(labels))),
            None => drop(self.labels.remove(&identity)),
        }
    }

    /// Says how many have an identity; nobody has it any more where there are none.
    pub(super) fn put(&mut self, identity: Identity, labels: &Arc<Labels>, population: Population) {
        if population.members == 0 {
            return self.remove(identity);
        }
        if self.populations.insert(identity, population).is_none() {
            for (label, value) in &labels.0 {
                let values = self.holders.entry(label.clone()).or_default();
                values.entry(value.clone()).or_default().insert(identity);
            }
            self.labels.insert(identity, Arc::clone(labels));
        }
        if population.subjects > 0 {
            self.subjects.insert(identity);
        } else {
            self.subjects.remove(&identity);
        }
    }

    /// Nobody has the identity any more.
    pub(super) fn remove(&mut self, identity: Identity) {
        self.subjects.remove(&identity);
        if self.populations.remove(&identity).is_none() {
            return;
        }
        let Some(labels) = self.labels.remove(&identity) else { return };
        for (label, value) in &labels.0 {
            let Some(values) = self.holders.get_mut(label) else { continue };
            if let Some(holders) = values.get_mut(value) {
                holders.remove(&identity);
                if holders.is_empty() {
                    values.remove(value);
                }
            }
            if values.is_empty() {
                self.holders.remove(label);
            }
        }
    }

    /// The identities of pods and external workloads that the selector matches; of one that denies, may match.
    pub(super) fn select(&self, selector: &Selector, denies: bool) -> BTreeSet<Identity> {
        let is_selected = |identity: &Identity| {
            self.labels.get(identity).is_some_and(|labels| {
                if denies { selector.may_match(labels) } else { selector.matches(labels) }
            })
        };
        // Who is selected has one of the values: nobody else is to be looked at.
        let fewest = if denies {
            self.fewest(selector.demands_of_readable())
        } else {
            self.fewest(selector.demands())
        };
        match fewest {
            Some(fewest) => fewest.into_iter().flatten().copied().filter(is_selected).collect(),
            None => self.populations.keys().copied().filter(is_selected).collect(),
        }
    }

    /// Those that policy is compiled for and whom the object may govern, as far as labels can be read.
    pub(super) fn may_be_governed(&self, subject: &Subject) -> BTreeSet<Identity> {
        let may_match =
            |identity: &Identity| self.labels.get(identity).is_some_and(|labels| subject.may_match(labels));
        let Some(selector) = subject.selector() else { return BTreeSet::new() };
        match self.fewest(selector.demands_of_readable()) {
            Some(fewest) => {
                let few = fewest.into_iter().flatten().copied();
                few.filter(|identity| self.subjects.contains(identity)).filter(may_match).collect()
            }
            None => self.subjects.iter().copied().filter(may_match).collect(),
        }
    }

    /// Whether the object governs those with the identity.
    pub(super) fn governs(&self, subject: &Subject, identity: Identity) -> bool {
        self.labels.get(&identity).is_some_and(|labels| subject.matches(labels))
    }

    /// Of labels each of which has to have one of some values, those who fulfil the hardest one; `None` where nothing
    /// is demanded.
    fn fewest<'a>(
        &self,
        demands: impl Iterator<Item = (&'a str, &'a BTreeSet<String>)>,
    ) -> Option<Vec<&BTreeSet<Identity>>> {
        let holders = demands.map(|(label, values)| -> Vec<&BTreeSet<Identity>> {
            let known = self.holders.get(label);
            values.iter().filter_map(|value| known?.get(value)).collect()
        });
        holders.min_by_key(|holders| holders.iter().map(|each| each.len()).sum::<usize>())
    }
}
