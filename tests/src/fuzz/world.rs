//! Small clusters under policies of every language, decided from the objects themselves by a second reading, and by all
//! that stands between a manifest and a packet: decode, resolve, the wire, lower, the maps.

mod choose;
mod cluster;
mod oracle;

use std::collections::BTreeMap;
use std::sync::Arc;

use datapath::abi::Bank;
use datapath::model::Model;
use datapath::{Address, Direction};
use policy::evaluate::{Flow, Reason, evaluate};
use policy::identity::Identity;
use policy::labels::Labels;
use policy::lower::Lowered;
use policy::resolve::Resolver;
use policy::state::{Policy, RuleAction, State};
use proto::convert::{policy_from_wire, policy_to_wire};

use super::choices::Choices;
use super::tables;
use cluster::Cluster;
use oracle::{Probe, Ruling};

/// How many flows of each cluster are decided.
pub const PROBES: usize = 10;

/// Whatever the cluster: the compiled policies are unchanged by the wire, and the specification and the maps decide as the
/// objects do, read a second time. What they name as the reason is a rule that decides there too, or the objects that
/// isolate.
///
/// # Panics
///
/// If that is not so.
pub fn world(data: &[u8]) {
    let mut choices = Choices::new(data);
    let cluster = Cluster::choose(&mut choices);
    let state = resolved(&mut choices, &cluster);
    let mut models: BTreeMap<Identity, (Model, Lowered)> = BTreeMap::new();
    for _ in 0..PROBES {
        let probe = choose::probe(&mut choices, &cluster);
        let ruling = oracle::rule(&cluster, &probe);
        let identity = state.endpoints[&probe.subject.addresses[0]].identity;
        let policy = &state.policies[&identity];
        let flow = Flow {
            direction: if probe.ingress { Direction::Ingress } else { Direction::Egress },
            identity: state.endpoints.get(&probe.address).map(|endpoint| endpoint.identity),
            remote: probe.address,
            protocol: probe.protocol,
            port: probe.port,
        };
        let verdict = evaluate(policy, &flow);
        let reason = match verdict.reason {
            Reason::Rule(rule) => rule.origin.to_string(),
            Reason::Default(default) => default.describe(flow.direction),
        };
        agree(&ruling, verdict.action == RuleAction::Allow, &reason, &probe, &cluster);
        let (model, lowered) = models.entry(identity).or_insert_with(|| in_maps(policy));
        let answer = tables::answer(model, Bank::A, &flow);
        let reason = lowered.names.get(&answer.rule).map_or("no name", |name| name);
        agree(&ruling, answer.allowed == 1, reason, &probe, &cluster);
    }
}

fn agree(ruling: &Ruling, allowed: bool, reason: &str, probe: &Probe<'_>, cluster: &Cluster) {
    assert!(
        ruling.allowed == allowed && ruling.because.contains(reason),
        "allowed {allowed} by {reason}, but it is {ruling:?}\n{probe:?}\n{cluster}"
    );
}

/// The state, found at once and by way of a part of the facts.
fn resolved(choices: &mut Choices<'_>, cluster: &Cluster) -> State {
    let facts = cluster.facts();
    let numbers: BTreeMap<Labels, Identity> = policy::resolve::identity_labels(&facts)
        .into_iter()
        .zip(Identity::FIRST_ALLOCATED..)
        .map(|(labels, number)| (labels, Identity::try_new(number).unwrap()))
        .collect();
    let anew = policy::resolve(&facts, &numbers).unwrap();
    let numbers = Arc::new(numbers);
    let mut resolver = Resolver::default();
    for _ in 0..choices.below(3) {
        let mut part = facts.clone();
        part.namespaces.retain(|_, _| !choices.seldom(6));
        part.pods.retain(|_, _| !choices.seldom(6));
        part.workloads.retain(|_, _| !choices.seldom(6));
        part.policies.retain(|_, _| !choices.seldom(3));
        part.cidr_groups.retain(|_, _| !choices.seldom(3));
        part.services.retain(|_, _| !choices.seldom(3));
        // Without some namespaces there are other labels, which have no numbers.
        let _unallocated = resolver.resolve(&part, &numbers);
    }
    assert_eq!(resolver.resolve(&facts, &numbers).unwrap(), anew, "{cluster}");
    anew.state
}

/// The policy as an agent gets it, in the maps.
fn in_maps(policy: &Policy) -> (Model, Lowered) {
    let received = policy_from_wire(&policy_to_wire(policy)).unwrap();
    assert_eq!(&received, policy, "the wire changes the policy");
    let lowered = policy::lower(&received);
    let mut model = Model::default();
    tables::fill(&mut model, Bank::A, &lowered, [Address::NONE; 2], 256);
    (model, lowered)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rand::rngs::StdRng;
    use rand::{Rng as _, SeedableRng as _};

    use super::{Choices, Cluster, choose, oracle};

    /// Flows are decided by every language either way, and by every default.
    #[test]
    fn random_clusters_reach_every_language() {
        let mut random = StdRng::seed_from_u64(7);
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for _ in 0..1000 {
            let mut bytes = vec![0; 4096];
            random.fill_bytes(&mut bytes);
            let mut choices = Choices::new(&bytes);
            let cluster = Cluster::choose(&mut choices);
            let ruling = oracle::rule(&cluster, &choose::probe(&mut choices, &cluster));
            let kind = ruling.because.first().unwrap().split(['/', ' ']).next().unwrap();
            *counts.entry(format!("{kind} {}", ruling.allowed)).or_default() += 1;
            assert!(!choices.is_empty(), "{cluster} is made of more");
        }
        let kinds = ["ClusterNetworkPolicy", "AdminNetworkPolicy", "BaselineAdminNetworkPolicy"];
        let cilium = ["CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy"];
        for kind in kinds.iter().chain(&cilium) {
            for allowed in [true, false] {
                let count = counts.get(&format!("{kind} {allowed}")).copied().unwrap_or_default();
                assert!(count >= 2, "{kind} decides {count} of 1000: {counts:?}");
            }
        }
        for reason in ["NetworkPolicy true", "default-allow true", "default-deny false"] {
            assert!(counts.get(reason).is_some_and(|count| *count >= 20), "{reason}: {counts:?}");
        }
        println!("{counts:?}");
    }
}
