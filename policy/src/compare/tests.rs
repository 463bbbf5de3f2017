use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::rules::precedence::NETWORK_POLICY;
use crate::state::{Default, DirectionPolicy, Reach};

fn rule(origin: &str, peers: Peers, ports: Ports) -> Rule {
    Rule { origin: origin.into(), peers, ports, action: RuleAction::Allow, precedence: NETWORK_POLICY }
}

fn isolated(rules: Vec<Rule>) -> Policy {
    let default = Default::Deny { by: vec!["p".to_owned()] };
    Policy { ingress: DirectionPolicy { default, rules }, ..Policy::unrestricted() }
}

fn id(number: u32) -> Identity {
    Identity::try_new(number).unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn endpoints() -> BTreeMap<IpAddr, Identity> {
    [("10.0.0.1", 300), ("10.0.0.2", 300), ("10.0.0.3", 301), ("fd00::1", 300)]
        .into_iter()
        .map(|(address, identity)| (ip(address), id(identity)))
        .collect()
}

fn changes(before: &Policy, after: &Policy) -> Vec<Difference> {
    differences(before, after, endpoints().into_iter())
}

fn tcp(first: u16, last: u16) -> Ports {
    Ports::Only(vec![PortRange { protocol: 6, first, last }])
}

#[test]
fn equal_policies_differ_in_nothing() {
    let policy = isolated(vec![rule("a", Peers::Any, tcp(80, 90))]);
    assert_eq!(changes(&policy, &policy), []);
    let renamed = isolated(vec![rule("b", Peers::Any, tcp(80, 90))]);
    assert_eq!(changes(&policy, &renamed), [], "another name decides alike");
}

#[test]
fn what_becomes_isolated_is_said_once_for_each_kind_of_remote() {
    let found = changes(&Policy::unrestricted(), &isolated(Vec::new()));
    assert!(found.iter().all(|one| one.ports == DifferentPorts::All && one.direction == Direction::Ingress));
    assert!(found.iter().all(|one| one.after == (RuleAction::Deny, "default-deny ingress (p)".to_owned())));
    let kinds: BTreeSet<_> = found
        .iter()
        .map(|one| (one.identity.map(Identity::get), one.remote.is_ipv4(), one.endpoints))
        .collect();
    let expected = [
        (Some(300), true, 2),
        (Some(301), true, 1),
        (Some(300), false, 1),
        (None, true, 0),
        (None, false, 0),
    ];
    assert_eq!(kinds, BTreeSet::from(expected));
}

#[test]
fn only_the_ports_that_change_are_named() {
    let of = |identity, ports| {
        let peers =
            Peers::Only { identities: Arc::new([id(identity)].into_iter().collect()), blocks: Vec::new() };
        isolated(vec![rule("a", peers, ports)])
    };
    let found = changes(&of(301, tcp(80, 90)), &of(301, tcp(85, 100)));
    let ports: Vec<_> = found.iter().map(|one| (one.identity, one.ports, one.after.0)).collect();
    let range = |first, last| DifferentPorts::Range(PortRange { protocol: 6, first, last });
    assert_eq!(
        ports,
        [
            (Some(id(301)), range(80, 84), RuleAction::Deny),
            (Some(id(301)), range(91, 100), RuleAction::Allow)
        ]
    );
}

#[test]
fn the_edges_of_blocks_are_asked_about() {
    let of = |cidr: &str, except: &[&str]| {
        let except = except.iter().map(|text| text.parse().unwrap()).collect();
        let block = Block { cidr: cidr.parse().unwrap(), except, reach: Reach::Outside };
        isolated(vec![rule("a", Peers::Only { identities: Arc::default(), blocks: vec![block] }, Ports::Any)])
    };
    let found = changes(&of("192.0.2.0/24", &[]), &of("192.0.2.0/24", &["192.0.2.0/25"]));
    let remotes: Vec<_> = found.iter().map(|one| (one.remote, one.identity)).collect();
    assert_eq!(remotes, [(ip("192.0.2.0"), None)]);
    // What reaches the end of all addresses has none behind it.
    let found = changes(&of("255.255.255.0/24", &[]), &of("255.255.255.255/32", &[]));
    assert_eq!(found.len(), 1);
}

proptest! {
    /// A flow that is decided differently is in a difference, and no other one is.
    #[test]
    fn every_change_is_found_and_no_other(
        rules in proptest::collection::vec((0..3_u32, 0..6_u16, 0..6_u16, any::<bool>()), 0..5),
        kept in proptest::collection::vec(any::<bool>(), 5),
        asked in (0..4_usize, 0..8_u16),
    ) {
        let all: Vec<Rule> = rules.iter().map(|(identity, a, b, deny)| {
            let peers = Peers::Only { identities: Arc::new([id(300 + identity)].into_iter().collect()), blocks: Vec::new() };
            let action = if *deny { RuleAction::Deny } else { RuleAction::Allow };
            Rule { action, ..rule("r", peers, tcp(*a.min(b), *a.max(b))) }
        }).collect();
        let some = all.iter().zip(&kept).filter(|(_, kept)| **kept).map(|(rule, _)| rule.clone()).collect();
        let (before, after) = (isolated(all), isolated(some));
        let (remote, identity) = endpoints().into_iter().nth(asked.0).unwrap();
        let flow = Flow { direction: Direction::Ingress, identity: Some(identity), remote, protocol: 6, port: asked.1 };
        let differs = evaluate(&before, &flow).action != evaluate(&after, &flow).action;
        let is_named = changes(&before, &after).iter().any(|one| {
            let of_kind = one.identity == Some(identity) && one.remote.is_ipv4() == remote.is_ipv4();
            of_kind && match one.ports {
                DifferentPorts::All => true,
                DifferentPorts::Range(range) => range.protocol == 6 && (range.first..=range.last).contains(&asked.1),
                DifferentPorts::OtherProtocols => false,
            }
        });
        prop_assert_eq!(differs, is_named);
    }
}
