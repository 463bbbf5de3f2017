//! Small clusters with `NetworkPolicy` objects, decided from the objects themselves by a second reading, and by all
//! that stands between a manifest and a packet: decode, resolve, the wire, lower, the maps.

mod cluster;
mod naive;

use std::collections::BTreeMap;

use datapath::abi::Bank;
use datapath::model::Model;
use datapath::{Address, Direction};
use policy::evaluate::{Flow, evaluate};
use policy::identity::Identity;
use policy::labels::Labels;
use policy::state::{Policy, RuleAction};
use proto::convert::{policy_from_wire, policy_to_wire};

use super::choices::Choices;
use super::tables;
use cluster::{Cluster, Thing};
use naive::Probe;

const PROBES: usize = 6;
const PROTOCOLS: [(&str, u8); 3] = [("TCP", 6), ("UDP", 17), ("SCTP", 132)];

/// Whatever the cluster: the compiled policies are unchanged by the wire, and what is allowed by the specification and
/// by the maps is what the objects say, read a second time.
///
/// # Panics
///
/// If that is not so.
pub fn world(data: &[u8]) {
    let mut choices = Choices::new(data);
    let cluster = Cluster::choose(&mut choices);
    let facts = cluster.facts();
    let numbers: BTreeMap<Labels, Identity> = policy::resolve::identity_labels(&facts)
        .into_iter()
        .zip(Identity::FIRST_ALLOCATED..)
        .map(|(labels, number)| (labels, Identity::try_new(number).unwrap()))
        .collect();
    let state = policy::resolve(&facts, &numbers).unwrap().state;
    let mut models: BTreeMap<Identity, (Model, policy::lower::Lowered)> = BTreeMap::new();
    for _ in 0..PROBES {
        let (probe, protocol) = choose(&mut choices, &cluster);
        let expected = naive::allows(&cluster, &probe);
        let identity = state.endpoints[&probe.subject.addresses[0]].identity;
        let policy = &state.policies[&identity];
        let flow = Flow {
            direction: if probe.ingress { Direction::Ingress } else { Direction::Egress },
            identity: state.endpoints.get(&probe.address).map(|endpoint| endpoint.identity),
            remote: probe.address,
            protocol,
            port: probe.port,
        };
        let allowed = evaluate(policy, &flow).action == RuleAction::Allow;
        assert_eq!(allowed, expected, "{probe:?} in {cluster:?}: {policy:?}");
        let (model, lowered) = models.entry(identity).or_insert_with(|| in_maps(policy));
        tables::agree(policy, lowered, &flow, tables::answer(model, Bank::A, &flow));
    }
}

/// The policy as an agent gets it, in the maps.
fn in_maps(policy: &Policy) -> (Model, policy::lower::Lowered) {
    let received = policy_from_wire(&policy_to_wire(policy)).unwrap();
    assert_eq!(&received, policy, "the wire changes the policy");
    let lowered = policy::lower(&received);
    let mut model = Model::default();
    tables::fill(&mut model, Bank::A, &lowered, [Address::NONE; 2], 256);
    (model, lowered)
}

fn choose<'a>(choices: &mut Choices<'_>, cluster: &'a Cluster) -> (Probe<'a>, u8) {
    let subjects: Vec<&Thing> = cluster.workloads.iter().filter(|workload| !workload.transit).collect();
    let others: Vec<&Thing> = cluster.pods.iter().chain(&cluster.workloads).collect();
    let other = others.get(choices.below(others.len() + 1)).copied();
    let is_v6 = choices.flag();
    let nobody = if is_v6 { "2001:db8::1" } else { "203.0.113.1" };
    let address = other.map_or_else(|| nobody.parse().unwrap(), |thing| thing.addresses[usize::from(is_v6)]);
    let (protocol, number) = choices.one_of(&PROTOCOLS);
    let probe = Probe {
        subject: choices.one_of(&subjects),
        ingress: choices.flag(),
        // A transit node has an address, but no labels that a selector could match and no names for ports.
        remote: other.filter(|thing| !thing.transit),
        address,
        protocol,
        port: choices.one_of(&[53, 80, 80, 81, 443, 8080, 0, 65_535]),
    };
    (probe, number)
}
