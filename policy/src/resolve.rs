//! From facts to state: gives every address its identity and every identity of an external workload its compiled
//! policy. Deterministic. The caller owns the numbers of identities: it asks [`identity_labels`] which label sets
//! need one, and passes the numbers in. [`resolve`] begins anew; a [`Resolver`] goes on from what it found before.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

mod directory;
mod endpoints;
mod named;
mod peers;
mod policies;
mod register;
mod resolver;
#[cfg(test)]
mod tests;

pub use resolver::Resolver;

use directory::{Census, Directory};
use peers::PeerCache;
use policies::Contribution;

use crate::facts::Facts;
use crate::identity::Identity;
use crate::labels::Labels;
use crate::state::{Policy, State};

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
    let workloads = facts.workloads.values().filter(|workload| !workload.role.is_cluster_node());
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
    let census = Census::of(facts, identities)?;
    let mut warnings = BTreeSet::new();
    let endpoints = endpoints::endpoints(facts, &census, &mut warnings);
    let (policies, host_policies) = policies(facts, &census.directory(facts), &mut warnings);
    let state = State { endpoints, identities: census.register.into_labels(), policies, host_policies };
    Ok(Resolved { state, warnings })
}

/// Policies by identity.
type Policies = BTreeMap<Identity, Arc<Policy>>;

/// The policies of all that policy is compiled for, as endpoints and as hosts.
fn policies(
    facts: &Facts,
    directory: &Directory<'_>,
    warnings: &mut BTreeSet<String>,
) -> (Policies, Policies) {
    let mut cache = PeerCache::new(facts, directory);
    let contributions: Vec<_> =
        facts.policies.values().map(|object| Contribution::of(object, &mut cache)).collect();
    warnings.extend(contributions.iter().flat_map(|contribution| contribution.warnings.iter().cloned()));
    let (mut policies, mut of_hosts) = (Policies::new(), Policies::new());
    for &identity in directory.register().subjects() {
        let (policy, of_host) = policies::policies_of(identity, contributions.iter());
        policies.insert(identity, Arc::new(policy));
        of_hosts.extend(of_host.map(|policy| (identity, Arc::new(policy))));
    }
    (policies, of_hosts)
}
