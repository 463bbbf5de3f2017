//! Resolution that goes on from what it found before: a change costs what it concerns, and one walk over all names.
//! What it gives is what [`super::resolve`] gives.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

mod claims;
mod compiled;
mod members;

use claims::Claims;
use compiled::Compiled;
use members::Members;

use super::{Resolved, UnusableIdentities};
use crate::facts::{Facts, Relabel};
use crate::identity::Identity;
use crate::labels::Labels;
use crate::rules::PolicyObject;
use crate::state::{State, differences};

/// What was found out so far. Facts that are the same as before must be behind the same `Arc` to cost nothing.
#[derive(Debug, Default)]
pub struct Resolver {
    members: Members,
    claims: Claims,
    relabels: BTreeMap<IpAddr, Relabel>,
    compiled: Compiled,
    /// Whether members became others since policies were compiled.
    moved: bool,
}

impl Resolver {
    /// Takes over the facts, and says whether the label sets that need a number became others.
    pub fn observe(&mut self, facts: &Facts) -> bool {
        if self.members.cluster() != facts.cluster {
            *self = Self { members: Members::of_cluster(&facts.cluster), ..Self::default() };
        }
        let changed = self.members.observe(facts, &mut self.claims);
        self.moved |= changed.members;
        changed.label_sets
    }

    /// The label sets that need a number.
    #[must_use]
    pub fn label_sets(&self) -> impl ExactSizeIterator<Item = &Labels> {
        self.members.label_sets()
    }

    /// The identity of an external workload or transit node, and its labels; `None` before the first resolution that
    /// knows it.
    #[must_use]
    pub fn workload(&self, name: &str) -> Option<(Identity, &Labels)> {
        self.members.workload(name)
    }

    /// The objects that do not do all that they say: each with whom it concerns, and what that is.
    pub fn warned(&self) -> impl Iterator<Item = (&PolicyObject, &BTreeSet<Identity>, &BTreeSet<String>)> {
        self.compiled.warned()
    }

    /// How often external workloads and transit nodes became others, or had others' identities, so far.
    #[must_use]
    pub const fn workload_changes(&self) -> u64 {
        self.members.workload_changes()
    }

    /// Resolves the facts with these numbers. They cost nothing where they are behind the same `Arc` as before.
    ///
    /// # Errors
    /// [`UnusableIdentities`] as [`super::resolve`].
    pub fn resolve(
        &mut self,
        facts: &Facts,
        identities: &Arc<BTreeMap<Labels, Identity>>,
    ) -> Result<Resolved, UnusableIdentities> {
        self.observe(facts);
        self.members.number(identities, &mut self.claims)?;
        for (address, ..) in differences(&self.relabels, &facts.relabels, |a, b| a == b) {
            self.claims.touch(*address);
        }
        self.relabels.clone_from(&facts.relabels);
        self.claims.settle(&self.members, &self.relabels);
        let moved = std::mem::take(&mut self.moved);
        self.compiled.update(facts, &self.members, moved);
        let warnings: BTreeSet<String> =
            self.claims.warnings().chain(self.compiled.warnings()).cloned().collect();
        let state = State {
            endpoints: self.claims.endpoints().clone(),
            identities: self.compiled.labels().clone(),
            policies: self.compiled.policies().clone(),
            host_policies: self.compiled.host_policies().clone(),
        };
        Ok(Resolved { state, warnings })
    }
}

/// Pods and external workloads, as far as they are alike.
trait Fact {
    /// The part of claims that it has.
    const KIND: claims::Kind;

    fn namespace(&self) -> &str;
    fn labels(&self, facts: &Facts) -> Labels;
    fn addresses(&self) -> &[IpAddr];
    /// Whether its identity is made of its labels.
    fn has_labels(&self) -> bool;
}

impl Fact for crate::facts::Pod {
    const KIND: claims::Kind = claims::Kind::Pod;

    fn namespace(&self) -> &str {
        &self.namespace
    }

    fn labels(&self, facts: &Facts) -> Labels {
        facts.labels_of_pod(self)
    }

    fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    fn has_labels(&self) -> bool {
        true
    }
}

impl Fact for crate::facts::Workload {
    const KIND: claims::Kind = claims::Kind::Workload;

    fn namespace(&self) -> &str {
        &self.namespace
    }

    fn labels(&self, facts: &Facts) -> Labels {
        facts.labels_of_workload(self)
    }

    fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    fn has_labels(&self) -> bool {
        !self.role.is_cluster_node()
    }
}

type Shared<T> = BTreeMap<Arc<str>, Arc<T>>;
