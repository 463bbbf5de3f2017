//! From facts to state: gives every address its identity and every identity of an external workload its compiled
//! policy. Deterministic. The caller owns the numbers of identities: it asks [`identity_labels`] which label sets
//! need one, and passes the numbers in.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use datapath::Direction;

mod directory;
mod endpoints;
mod named;
mod peers;
#[cfg(test)]
mod tests;

use directory::Directory;
use peers::PeerCache;

use crate::facts::Facts;
use crate::identity::Identity;
use crate::labels::Labels;
use crate::rules::{PolicyObject, RuleSpec};
use crate::state::{Default, DirectionPolicy, Policy, Rule, State};

/// A state, and what is noteworthy about how it came about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The state.
    pub state: State,
    /// What users should know, one sentence each: contested addresses, ambiguous port names, and
    /// the warnings of the policies.
    pub warnings: BTreeSet<String>,
}

/// Numbers of identities that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnusableIdentities {
    /// A label set has no number.
    #[error("labels {labels} have no identity number")]
    Unallocated {
        /// The label set.
        labels: Labels,
    },
    /// Two label sets have the same number.
    #[error("identity {identity} was given to labels {first} and to labels {second}")]
    Shared {
        /// The number.
        identity: Identity,
        /// A label set.
        first: Labels,
        /// Another label set.
        second: Labels,
    },
    /// An ordinary label set has a reserved number.
    #[error("labels {labels} were given the reserved identity {identity}")]
    Reserved {
        /// The number.
        identity: Identity,
        /// The label set.
        labels: Labels,
    },
}

/// The label sets that need a number. Reserved identities have theirs and are not among them.
#[must_use]
pub fn identity_labels(facts: &Facts) -> BTreeSet<Labels> {
    let pods = facts.pods.values().map(|pod| facts.labels_of_pod(pod));
    let workloads = facts.workloads.values().filter(|workload| !workload.transit);
    pods.chain(workloads.map(|workload| facts.labels_of_workload(workload))).collect()
}

/// Resolves the facts with these numbers.
///
/// # Errors
/// [`UnusableIdentities`] when a label set has no number, a reserved one, or that of another set.
pub fn resolve(
    facts: &Facts,
    identities: &BTreeMap<Labels, Identity>,
) -> Result<Resolved, UnusableIdentities> {
    let directory = Directory::of(facts, identities)?;
    let mut warnings = BTreeSet::new();
    let endpoints = endpoints::endpoints(facts, &directory, &mut warnings);
    let policies = policies(facts, &directory, &mut warnings);
    let state = State { endpoints, identities: directory.labels, policies };
    Ok(Resolved { state, warnings })
}

/// The policies, object by object in the order of their names, so that rules stand in the order of their origins.
fn policies(
    facts: &Facts,
    directory: &Directory<'_>,
    warnings: &mut BTreeSet<String>,
) -> BTreeMap<Identity, Arc<Policy>> {
    let mut policies: BTreeMap<Identity, Policy> =
        directory.subjects().map(|identity| (identity, Policy::unrestricted())).collect();
    let mut cache = PeerCache::new(directory);
    for object in facts.policies.values() {
        warnings.extend(object.warnings.iter().map(|warning| format!("{}: {warning}", object.origin)));
        let subjects: Vec<Identity> =
            directory.subjects().filter(|id| directory.matches(&object.subject, *id)).collect();
        // Whom it may select is isolated as if it did, and allowed nothing by it.
        let uncertain = |id: &Identity| directory.may_match(&object.subject, *id) && !subjects.contains(id);
        for identity in directory.subjects().filter(uncertain) {
            for (direction, rules) in
                [(Direction::Ingress, &object.ingress), (Direction::Egress, &object.egress)]
            {
                if let Some(policy) = policies.get_mut(&identity).filter(|_| rules.is_some()) {
                    isolate(policy.of_mut(direction), &object.origin);
                }
            }
        }
        if !subjects.is_empty() {
            add(object, &subjects, &mut policies, &mut cache, warnings);
        }
    }
    policies.into_iter().map(|(identity, policy)| (identity, Arc::new(policy))).collect()
}

/// Adds an object's rules to the policies of the identities that it selects.
fn add<'a>(
    object: &'a PolicyObject,
    subjects: &[Identity],
    policies: &mut BTreeMap<Identity, Policy>,
    cache: &mut PeerCache<'a>,
    warnings: &mut BTreeSet<String>,
) {
    for (direction, rules) in [(Direction::Ingress, &object.ingress), (Direction::Egress, &object.egress)] {
        let Some(rules) = rules else { continue };
        for identity in subjects {
            if let Some(policy) = policies.get_mut(identity) {
                isolate(policy.of_mut(direction), &object.origin);
            }
        }
        for spec in rules {
            let shared = cache.peers(&spec.peers);
            let egress =
                (direction == Direction::Egress).then(|| named::egress(spec, &shared, cache.directory()));
            for identity in subjects {
                let resolved = match &egress {
                    Some(rules) => rules.clone(),
                    None => vec![ingress(spec, &shared, *identity, cache.directory(), warnings)],
                };
                if let Some(policy) = policies.get_mut(identity) {
                    policy.of_mut(direction).rules.extend(resolved);
                }
            }
        }
    }
}

fn isolate(direction: &mut DirectionPolicy, origin: &str) {
    match &mut direction.default {
        Default::Deny { by } => by.push(origin.to_owned()),
        Default::Allow => direction.default = Default::Deny { by: vec![origin.to_owned()] },
    }
}

fn ingress(
    spec: &RuleSpec,
    peers: &crate::state::Peers,
    subject: Identity,
    directory: &Directory<'_>,
    warnings: &mut BTreeSet<String>,
) -> Rule {
    let ports = named::ingress(spec, subject, directory, warnings);
    Rule {
        origin: Arc::clone(&spec.origin),
        peers: peers.clone(),
        ports,
        action: spec.action,
        precedence: spec.precedence,
    }
}

impl Policy {
    const fn of_mut(&mut self, direction: Direction) -> &mut DirectionPolicy {
        match direction {
            Direction::Ingress => &mut self.ingress,
            Direction::Egress => &mut self.egress,
        }
    }
}
