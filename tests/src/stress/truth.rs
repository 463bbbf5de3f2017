//! What a revision allows, by the specification: facts made from the objects, `policy::resolve` and
//! `policy::evaluate`. Neither the gateway nor a kernel is asked.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use datapath::Direction;
use policy::evaluate::{Flow, evaluate};
use policy::facts::{Facts, Namespace, Pod, Workload};
use policy::identity::Identity;
use policy::labels::Labels;
use policy::state::{RuleAction, State};

use super::world::{Actor, GROUPS, NAMESPACE, World};

/// A place where a packet is decided over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hop {
    /// A host, for packets of a flow that is opened toward it or by it.
    Host {
        /// The host's number.
        host: usize,
        /// Of the flow's opener.
        direction: Direction,
        /// The other end.
        remote: IpAddr,
    },
    /// The transit node, which lets pass what is from or to a pod behind it.
    Transit {
        /// The pod.
        pod: IpAddr,
    },
}

/// A flow of probes as policy sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Who decides, in the order in which packets pass.
    pub hops: Vec<Hop>,
    /// IP protocol number.
    pub protocol: u8,
    /// The opener's destination port.
    pub port: u16,
}

/// For each flow and each place on its path, whether the revision lets the packet pass.
pub fn verdicts(world: &World, hosts: &[[IpAddr; 2]], asked: &[Asked]) -> Result<Vec<Vec<bool>>> {
    let state = state(&facts(world, hosts)?)?;
    let flow = |asked: &Asked| {
        let hop = |hop: &Hop| passes(&state, hosts, hop, asked.protocol, asked.port);
        asked.hops.iter().map(hop).collect::<Result<Vec<_>>>()
    };
    asked.iter().map(flow).collect()
}

fn passes(state: &State, hosts: &[[IpAddr; 2]], hop: &Hop, protocol: u8, port: u16) -> Result<bool> {
    let (host, direction, remote) = match *hop {
        Hop::Transit { pod } => return Ok(state.endpoints.contains_key(&pod)),
        Hop::Host { host, direction, remote } => (host, direction, remote),
    };
    // Who is no endpoint can neither send nor be sent to, whatever policy says.
    let Some(endpoint) = state.endpoints.get(&remote) else { return Ok(false) };
    let own =
        hosts.get(host).and_then(|[v4, _]| state.endpoints.get(v4)).context("a host without endpoint")?;
    let policy = state.policies.get(&own.identity).context("a host without policy")?;
    let flow = Flow { direction, identity: Some(endpoint.identity), remote, protocol, port };
    Ok(evaluate(policy, &flow).action == RuleAction::Allow)
}

fn facts(world: &World, hosts: &[[IpAddr; 2]]) -> Result<Facts> {
    let mut facts = Facts { cluster: "default".to_owned(), ..Facts::default() };
    let labels = BTreeMap::from([("team".to_owned(), "shop".to_owned())]);
    facts.namespaces.insert(NAMESPACE.to_owned(), Arc::new(Namespace { labels, unreadable: false }));
    for actor in Actor::ALL.into_iter().filter(|actor| world.exists(*actor)) {
        let addresses = world.addresses_of(actor).map(|both| both.to_vec()).unwrap_or_default();
        let pod = Pod {
            namespace: NAMESPACE.to_owned(),
            labels: BTreeMap::from([("app".to_owned(), world.app_of(actor))]),
            service_account: "default".to_owned(),
            addresses,
            ..Pod::default()
        };
        facts.pods.insert(format!("{NAMESPACE}/{}", actor.name()).into(), Arc::new(pod));
    }
    for ((group, tier), addresses) in GROUPS.into_iter().zip(world.tiers()).zip(hosts) {
        let labels = [("role", "host"), ("tier", tier)];
        let workload = Workload {
            namespace: NAMESPACE.to_owned(),
            labels: labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            service_account: "default".to_owned(),
            addresses: addresses.to_vec(),
            ..Workload::default()
        };
        facts.workloads.insert(format!("{NAMESPACE}/{group}").into(), Arc::new(workload));
    }
    for raw in world.policies() {
        let policy = policy::networkpolicy::parse(&raw)?;
        facts.policies.insert(Arc::clone(&policy.origin), Arc::new(policy));
    }
    Ok(facts)
}

fn state(facts: &Facts) -> Result<State> {
    let labels = policy::resolve::identity_labels(facts);
    let numbered = labels.into_iter().zip(1000_u32..);
    let numbers = numbered.map(|(labels, number)| Ok((labels, Identity::try_new(number)?)));
    let numbers: BTreeMap<Labels, Identity> = numbers.collect::<Result<_>>()?;
    let state = policy::resolve(facts, &numbers)?.state;
    ensure!(!state.policies.is_empty(), "no host has a policy");
    Ok(state)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;
    use crate::stress::world::port;

    fn world() -> (World, [[IpAddr; 2]; 2]) {
        let address = |at: u8| [IpAddr::from([10, 100, 1, at]), format!("fd00:100:1::{at}").parse().unwrap()];
        let actors = Actor::ALL.into_iter().zip(2_u8..).map(|(actor, at)| (actor, address(at)));
        let host = |at: u8| [IpAddr::from([10, 244, 240, at]), format!("fd00:244::{at}").parse().unwrap()];
        (World::new(actors.collect()), [host(1), host(2)])
    }

    fn udp(hop: Hop, port: u16) -> Asked {
        Asked { hops: vec![hop], protocol: 17, port }
    }

    #[test]
    fn through_all_changes_the_swapped_rule_allows_the_one_and_denies_the_other() {
        let (mut world, hosts) = world();
        let mut random = StdRng::seed_from_u64(7);
        let pod = |actor, host| {
            let remote = world.addresses_of(actor).unwrap()[host];
            [Direction::Ingress, Direction::Egress].map(|direction| Hop::Host { host, direction, remote })
        };
        let xenon = [pod(Actor::Xenon, 0), pod(Actor::Xenon, 1)].concat();
        let zinc = [pod(Actor::Zinc, 0), pod(Actor::Zinc, 1)].concat();
        let forth = Hop::Host { host: 1, direction: Direction::Ingress, remote: hosts[0][0] };
        let back = Hop::Host { host: 0, direction: Direction::Ingress, remote: hosts[1][0] };
        let mut swaps = 0;
        for _ in 0..60 {
            let before = world.app_of(Actor::Xenon);
            world.change(&mut random, 3);
            swaps += u32::from(before != world.app_of(Actor::Xenon));
            let of = |hops: &[Hop], port| {
                let asked: Vec<_> = hops.iter().map(|hop| udp(*hop, port)).collect();
                verdicts(&world, &hosts, &asked).unwrap().concat()
            };
            assert_eq!(of(&xenon, port::SWAP), [true; 4]);
            assert_eq!(of(&zinc, port::SWAP), [false; 4]);
            assert_eq!(of(&[forth, back], port::HOSTS), [true, false]);
        }
        assert!(swaps > 5);
    }

    #[test]
    fn what_comes_and_goes_is_allowed_and_denied_in_turn() {
        let (mut world, hosts) = world();
        let mut random = StdRng::seed_from_u64(7);
        let ingress = |actor, port| {
            let remote = world.addresses_of(actor).unwrap()[1];
            udp(Hop::Host { host: 0, direction: Direction::Ingress, remote }, port)
        };
        let asked = [
            ingress(Actor::Flip, port::FLIP),
            ingress(Actor::Flip, port::RANGE[0]),
            ingress(Actor::Flip, port::RANGE[1]),
            ingress(Actor::Block, port::BLOCK),
            ingress(Actor::Ghost, port::ANY),
        ];
        let mut seen = vec![(false, false); asked.len()];
        for _ in 0..100 {
            world.change(&mut random, 3);
            for (seen, verdict) in seen.iter_mut().zip(verdicts(&world, &hosts, &asked).unwrap().concat()) {
                *seen = (seen.0 || verdict, seen.1 || !verdict);
            }
        }
        assert_eq!(seen, [(true, true); 5]);
    }
}
