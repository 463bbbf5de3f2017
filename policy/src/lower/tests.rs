use std::net::IpAddr;

use datapath::abi::CidrKey;
use proptest::prelude::*;

use super::*;
use crate::evaluate::{Flow, Tier, evaluate, matches};
use crate::identity::Identity;
use crate::rules::precedence::{ADMIN, NETWORK_POLICY};
use crate::state::{Block, Default, DirectionPolicy, PortRange, Reach};

mod maps;

fn id(number: u32) -> Identity {
    Identity::try_new(number).unwrap()
}

fn only(identities: &[u32], blocks: Vec<Block>) -> Peers {
    Peers::Only { identities: Arc::new(identities.iter().copied().map(id).collect()), blocks }
}

fn block(cidr: &str, except: &[&str]) -> Block {
    Block {
        cidr: cidr.parse().unwrap(),
        except: except.iter().map(|e| e.parse().unwrap()).collect(),
        reach: Reach::Everyone,
    }
}

fn tcp(first: u16, last: u16) -> Ports {
    Ports::Only(vec![PortRange { protocol: 6, first, last }])
}

fn rule(origin: &str, peers: Peers, ports: Ports, action: RuleAction, precedence: u32) -> Rule {
    Rule { origin: origin.into(), peers, ports, action, precedence }
}

fn allow(origin: &str, peers: Peers, ports: Ports) -> Rule {
    rule(origin, peers, ports, RuleAction::Allow, NETWORK_POLICY)
}

fn ingress(rules: Vec<Rule>) -> Policy {
    let default = Default::Deny { by: vec!["NetworkPolicy/shop/db".into()] };
    Policy { ingress: DirectionPolicy { default, rules }, ..Policy::unrestricted() }
}

fn port_entries(lowered: &Lowered) -> Vec<(u16, u8)> {
    lowered.entries.keys().map(|key| (key.port, key.port_prefix_len)).collect()
}

#[test]
fn defaults_have_names() {
    let lowered = lower(&ingress(Vec::new()));
    assert_eq!((lowered.ingress.action, lowered.egress.action), (Action::Deny, Action::Allow));
    assert_eq!(&*lowered.names[&lowered.ingress.rule], "default-deny ingress (NetworkPolicy/shop/db)");
    assert_eq!(&*lowered.names[&lowered.egress.rule], "default-allow egress");
    assert!(lowered.entries.is_empty() && lowered.cidrs.is_empty());
}

#[test]
fn an_empty_list_is_never_everything() {
    for dead in [
        allow("a", only(&[], vec![]), Ports::Any),
        allow("a", Peers::Any, Ports::Only(vec![])),
        allow("a", only(&[300], vec![block("10.0.0.0/8", &[])]), Ports::Only(vec![])),
    ] {
        let lowered = lower(&ingress(vec![dead]));
        assert!(lowered.entries.is_empty() && lowered.classes.is_empty() && lowered.cidrs.is_empty());
    }
}

#[test]
fn port_ranges_at_mask_boundaries() {
    let entries =
        |first, last| port_entries(&lower(&ingress(vec![allow("a", Peers::Any, tcp(first, last))])));
    assert_eq!(entries(0, 65535), [(0, 0)]);
    assert_eq!(entries(1024, 65535).len(), 6);
    assert_eq!(entries(1, 65535).len(), 16);
    assert_eq!(entries(65535, 65535), [(65535, 16)]);
    assert_eq!(entries(8080, 8080), [(8080, 16)]);
}

#[test]
fn an_exception_within_a_range_is_one_entry() {
    let deny = rule("b", Peers::Any, tcp(80, 80), RuleAction::Deny, NETWORK_POLICY);
    let lowered = lower(&ingress(vec![allow("a", Peers::Any, tcp(0, 65535)), deny]));
    assert_eq!(port_entries(&lowered), [(0, 0), (80, 16)]);
}

#[test]
fn ipv6_blocks_leave_ipv4_alone() {
    let lowered = lower(&ingress(vec![allow("a", only(&[], vec![block("::/0", &[])]), Ports::Any)]));
    let mapped = Address::from("::ffff:0:0".parse::<IpAddr>().unwrap());
    assert_eq!(lowered.cidrs[&(mapped, 96)], CidrEntry { class: 0, outside: 0 });
    assert_ne!(lowered.cidrs[&(Address::NONE, 0)].class, 0);
}

#[test]
fn a_relabel_writes_one_entry() {
    let policy = |peers: &[u32]| {
        ingress(vec![
            allow("NetworkPolicy/shop/db#ingress[0]", only(peers, vec![]), tcp(5432, 5433)),
            allow("NetworkPolicy/shop/db#ingress[1]", only(&[400], vec![]), Ports::Any),
        ])
    };
    let (before, after) = (lower(&policy(&[300, 301])), lower(&policy(&[300, 301, 302])));
    assert_eq!(before.entries, after.entries);
    let mut classes = after.classes.clone();
    assert_eq!(classes.remove(&302), before.classes.get(&300).copied());
    assert_eq!(classes, before.classes);
}

#[test]
fn a_new_rule_leaves_the_numbers_of_the_others() {
    let old =
        allow("NetworkPolicy/shop/db#ingress[0]", only(&[300], vec![block("10.0.0.0/8", &[])]), tcp(1, 1));
    let new = allow("NetworkPolicy/shop/a#ingress[0]", only(&[301], vec![]), tcp(2, 2));
    let (before, after) = (lower(&ingress(vec![old.clone()])), lower(&ingress(vec![new, old])));
    assert!(before.entries.iter().all(|(key, value)| after.entries.get(key) == Some(value)));
    assert_eq!((before.classes[&300], &before.cidrs), (after.classes[&300], &after.cidrs));
}

#[test]
fn keys_carry_bank_and_base_bits() {
    let policy = ingress(vec![allow("a", only(&[300], vec![block("10.0.0.0/8", &[])]), tcp(80, 80))]);
    let lowered = lower(&policy);
    let (key, value) = lowered.policy(Bank::B).next().unwrap();
    assert_eq!((key.bank, key.direction, key.protocol, key.port.get()), (1, 0, 6, 80));
    assert_eq!(key.prefix_len, PolicyKey::BASE_BITS + 16);
    assert_eq!(value.rank, Rank::new(NETWORK_POLICY, Action::Allow));
    let (key, _) = lowered.cidrs(Bank::A).next().unwrap();
    assert_eq!((key.bank, key.prefix_len), (0, CidrKey::BASE_BITS + 96 + 8));
    assert_eq!(lowered.classes(Bank::B).next().unwrap().0.bank, 1);
    assert_eq!(lowered.policy(Bank::A).count(), 2);
}

const CIDRS: [&str; 14] = [
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.1.0.0/16",
    "10.1.2.0/24",
    "10.1.2.3/32",
    "10.1.2.2/31",
    "192.168.0.0/16",
    "::/0",
    "::/64",
    "::fffe:0:0/95",
    "::ffff:10.1.0.0/112",
    "2001:db8::/32",
    "2001:db8::/64",
    "2001:db8::1/128",
];
const ADDRESSES: [&str; 11] = [
    "10.1.2.3",
    "10.1.2.2",
    "10.1.2.9",
    "10.1.9.9",
    "10.9.9.9",
    "192.168.1.1",
    "8.8.8.8",
    "::1",
    "::ffff:10.1.2.3",
    "2001:db8::1",
    "2001:db8:1::1",
];
const PORTS: [u16; 12] = [0, 1, 2, 79, 80, 81, 1023, 1024, 32767, 32768, 65534, 65535];

fn any_block() -> impl Strategy<Value = Block> {
    let cidr = || prop::sample::select(&CIDRS[..]).prop_map(|text| text.parse::<ipnet::IpNet>().unwrap());
    let reach = prop::sample::select(&[Reach::Everyone, Reach::Outside][..]);
    (cidr(), prop::collection::vec(cidr(), 0..3), reach).prop_map(|(cidr, except, reach)| Block {
        cidr,
        except,
        reach,
    })
}

fn any_peers() -> impl Strategy<Value = Peers> {
    let identities = prop::collection::btree_set((300_u32..304).prop_map(id), 0..4);
    prop_oneof![
        1 => Just(Peers::Any),
        4 => (identities, prop::collection::vec(any_block(), 0..3))
            .prop_map(|(identities, blocks)| Peers::Only { identities: Arc::new(identities), blocks }),
    ]
}

fn any_ports() -> impl Strategy<Value = Ports> {
    let port = || prop::sample::select(&PORTS[..]);
    let range = (prop::sample::select(&[1_u8, 6, 17][..]), port(), port())
        .prop_map(|(protocol, first, last)| PortRange { protocol, first, last });
    prop_oneof![1 => Just(Ports::Any), 4 => prop::collection::vec(range, 0..4).prop_map(Ports::Only)]
}

fn any_rule() -> impl Strategy<Value = Rule> {
    let action = prop::sample::select(&[RuleAction::Allow, RuleAction::Deny, RuleAction::Pass][..]);
    let precedences = &[0_u32, 1, NETWORK_POLICY, NETWORK_POLICY + 1, ADMIN, ADMIN + 1, u32::MAX][..];
    (0..9_usize, any_peers(), any_ports(), action, prop::sample::select(precedences)).prop_map(
        |(origin, peers, ports, action, precedence)| {
            let rule = rule(&format!("r{origin}"), peers, ports, action, precedence);
            // No language passes from namespaces to the baseline.
            let action = if rule.tier() == Tier::Namespace && action == RuleAction::Pass {
                RuleAction::Deny
            } else {
                action
            };
            Rule { action, ..rule }
        },
    )
}

fn any_direction() -> impl Strategy<Value = DirectionPolicy> {
    let default =
        prop_oneof![Just(Default::Allow), Just(Default::Deny { by: vec!["NetworkPolicy/shop/db".into()] })];
    (default, prop::collection::vec(any_rule(), 0..6))
        .prop_map(|(default, rules)| DirectionPolicy { default, rules })
}

fn any_flow() -> impl Strategy<Value = Flow> {
    (
        prop::sample::select(&DIRECTIONS[..]),
        prop::option::weighted(0.8, (299_u32..305).prop_map(id)),
        prop::sample::select(&ADDRESSES[..]),
        prop::sample::select(&[1_u8, 6, 6, 17, 132][..]),
        prop_oneof![3 => prop::sample::select(&PORTS[..]), 1 => any::<u16>()],
    )
        .prop_map(|(direction, identity, remote, protocol, port)| Flow {
            direction,
            identity,
            remote: remote.parse().unwrap(),
            protocol,
            port,
        })
}

/// Whether what has this name decides the flow: the default, or one of the rules that no other outdoes.
fn decisive(policy: &Policy, flow: &Flow, name: &str) -> bool {
    match evaluate(policy, flow).reason {
        // What the baseline passes on is allowed, and so may an equal rule name it.
        Reason::Default(default) => {
            default.describe(flow.direction) == name || is_baseline_allow(policy, flow, name)
        }
        Reason::Rule(winner) => policy.direction(flow.direction).rules.iter().any(|rule| {
            let equal = (rule.precedence, rule.action) == (winner.precedence, winner.action);
            equal && matches(rule, flow) && &*rule.origin == name
        }),
    }
}

fn is_baseline_allow(policy: &Policy, flow: &Flow, name: &str) -> bool {
    policy.direction(flow.direction).rules.iter().any(|rule| {
        (rule.tier(), rule.action) == (Tier::Baseline, RuleAction::Allow)
            && matches(rule, flow)
            && &*rule.origin == name
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    /// Law 1: what stands in the maps decides as the specification, and names a rule that did decide.
    #[test]
    fn lowered_decides_as_evaluate(
        ingress in any_direction(),
        egress in any_direction(),
        flows in prop::collection::vec(any_flow(), 12),
    ) {
        let policy = Policy { ingress, egress };
        let lowered = lower(&policy);
        let maps = maps::Maps::of(&lowered, Bank::B);
        for flow in &flows {
            let expected = evaluate(&policy, flow);
            let (decided, rule) = naive::decide(&lowered, flow);
            let answer = maps.ask(flow);
            prop_assert_eq!(decided, action(expected.action), "{:?}", flow);
            prop_assert_eq!(answer.allowed == 1, decided == Action::Allow, "datapath: {:?}", flow);
            for rule in [rule, answer.rule] {
                prop_assert!(decisive(&policy, flow, &lowered.names[&rule]), "{:?} by {}", flow, lowered.names[&rule]);
            }
        }
    }
}
