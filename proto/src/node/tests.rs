//! Laws: a round trip is identity, an update applies whole or not at all, arbitrary bytes never panic.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use policy::rules::precedence;
use policy::state::{
    Block, Default as Fallback, DirectionPolicy, EndpointKind, Mode, Peers, PortRange, Ports, Probe,
    ProbeKind, Reach, Role, Rule, RuleAction,
};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;

use super::*;
use crate::convert::address_to_wire;

fn identity() -> impl Strategy<Value = Identity> {
    (1_u32..=0x00ff_ffff).prop_map(|number| Identity::try_new(number).unwrap())
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<[u8; 4]>().prop_map(|octets| IpAddr::V4(Ipv4Addr::from(octets))),
        any::<[u8; 16]>().prop_map(|octets| IpAddr::V6(Ipv6Addr::from(octets)).to_canonical()),
    ]
}

/// Addresses and identities that several states have.
fn known_address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![(0_u8..8).prop_map(|last| IpAddr::V4(Ipv4Addr::new(10, 0, 0, last))), address()]
}

fn known_identity() -> impl Strategy<Value = Identity> {
    prop_oneof![(300_u32..306).prop_map(|number| Identity::try_new(number).unwrap()), identity()]
}

fn prefix() -> impl Strategy<Value = IpNet> {
    (address(), 0_u8..=128).prop_map(|(address, length)| match address {
        IpAddr::V4(v4) => IpNet::V4(Ipv4Net::new(v4, length % 33).unwrap().trunc()),
        IpAddr::V6(v6) => IpNet::V6(Ipv6Net::new(v6, length.max(97)).unwrap().trunc()),
    })
}

fn endpoint() -> impl Strategy<Value = Endpoint> {
    let kind = prop_oneof![
        btree_set("[a-z]{1,4}/[a-z]{1,4}", 0..3)
            .prop_map(|behind| EndpointKind::Pod { behind: Arc::new(behind) }),
        Just(EndpointKind::Workload),
        Just(EndpointKind::Transit),
        Just(EndpointKind::Node),
    ];
    (identity(), proptest::option::of(identity()), vec(address(), 0..3), kind, any::<bool>()).prop_map(
        |(identity, previous, tunnels, kind, lagging)| {
            let mark = previous.filter(|_| lagging).unwrap_or(identity);
            Endpoint { identity, previous, mark, tunnels: Arc::new(tunnels), kind, owner: None }
        },
    )
}

fn rule() -> impl Strategy<Value = Rule> {
    let reach = prop_oneof![Just(Reach::Everyone), Just(Reach::Outside)];
    let block = (prefix(), vec(prefix(), 0..2), reach).prop_map(|(cidr, except, reach)| Block {
        cidr,
        except,
        reach,
    });
    let peers = prop_oneof![
        Just(Peers::Any),
        (btree_set(identity(), 0..4), vec(block, 0..3))
            .prop_map(|(identities, blocks)| Peers::Only { identities: Arc::new(identities), blocks }),
    ];
    let range = (0_u8..255, any::<u16>(), any::<u16>()).prop_map(|(protocol, a, b)| PortRange {
        protocol,
        first: a.min(b),
        last: a.max(b),
    });
    let ports = prop_oneof![Just(Ports::Any), vec(range, 0..4).prop_map(Ports::Only)];
    let strength = prop_oneof![
        (Just(RuleAction::Allow), 0..=precedence::HIGHEST),
        (Just(RuleAction::Deny), 0..=precedence::HIGHEST),
        (Just(RuleAction::Pass), precedence::ADMIN..=precedence::HIGHEST),
        (Just(RuleAction::Pass), 0..precedence::NETWORK_POLICY),
    ];
    ("[A-Za-z/#]{1,12}", peers, ports, strength).prop_map(|(origin, peers, ports, (action, precedence))| {
        Rule { origin: Arc::from(origin.as_str()), peers, ports, action, precedence }
    })
}

fn direction() -> impl Strategy<Value = DirectionPolicy> {
    let default =
        prop_oneof![Just(Fallback::Allow), vec("[a-z/]{1,8}", 0..3).prop_map(|by| Fallback::Deny { by })];
    (default, vec(rule(), 0..4)).prop_map(|(default, rules)| DirectionPolicy { default, rules })
}

fn settings() -> impl Strategy<Value = NodeSettings> {
    let role = prop_oneof![Just(Role::Host), Just(Role::Transit), Just(Role::Node)];
    (identity(), identity(), any::<[u8; 4]>(), vec(prefix(), 0..4), role, any::<bool>(), 1_u16..).prop_map(
        |(identity, mark, v4, prefixes, role, audit, tunnel_port)| NodeSettings {
            workload: "shop/db".to_owned(),
            identity,
            mark,
            addresses: vec![IpAddr::V4(v4.into())],
            prefixes,
            role,
            mode: if audit { Mode::Audit } else { Mode::Enforce },
            tunnel_port,
            rejected: vec!["NetworkPolicy/shop/x: no".to_owned()],
            nic: None,
            partly_enforced: Vec::new(),
            probes: probes(),
        },
    )
}

/// One of each kind, and one that a later version knows.
fn probes() -> Vec<Probe> {
    let kinds = [
        ProbeKind::Tcp { port: 5432 },
        ProbeKind::Http { port: 80, path: "/healthz".to_owned(), host: "db.example".to_owned() },
        ProbeKind::Exec { name: "ready".to_owned() },
        ProbeKind::Unknown("grpc".to_owned()),
    ];
    let probe = |kind| Probe { kind, period_s: 10, timeout_s: 1, successes: 1, failures: 3 };
    kinds.into_iter().map(probe).collect()
}

fn node() -> impl Strategy<Value = Node> {
    (
        (
            btree_map(known_address(), endpoint(), 0..6),
            btree_map(known_address(), Just(Arc::from("shop/gone")), 0..3),
        ),
        btree_map(known_identity(), Just(()), 0..4),
        (direction(), direction()),
        settings(),
    )
        .prop_map(|((mut endpoints, mut homeless), identities, (ingress, egress), settings)| {
            for endpoint in endpoints.values_mut().step_by(2) {
                endpoint.owner = Some(Arc::from("shop/api"));
            }
            homeless.retain(|address, _| !endpoints.contains_key(address));
            let labels = |identity: &Identity| (*identity, Arc::from(format!("k8s:app=a{identity};")));
            Node {
                endpoints: endpoints.into(),
                homeless,
                identities: identities.keys().map(labels).collect(),
                policy: Some(Arc::new(Policy { ingress, egress })),
                settings: Some(settings),
                gateways: vec!["gw:7443".to_owned()],
            }
        })
}

proptest! {
    #[test]
    fn a_round_trip_is_identity(node in node()) {
        let mut read = Node::default();
        read.apply(&node.parts()).unwrap();
        prop_assert_eq!(&read, &node);
        prop_assert_eq!(read.digest(), node.digest());
        prop_assert_eq!(read.state().unwrap().endpoints, node.endpoints);
    }

    #[test]
    fn changes_lead_from_one_state_to_the_next(nodes in vec(node(), 1..5)) {
        let mut parts = Vec::from(nodes[0].parts());
        for [before, after] in nodes.array_windows() {
            let changes = after.changes_since(before).unwrap();
            let mut next = before.clone();
            next.apply(&[&changes]).unwrap();
            prop_assert_eq!(&next, after);
            prop_assert!(after.changes_since(after).unwrap().is_empty());
            parts.push(changes);
            let mut at_once = Node::default();
            at_once.apply(&parts).unwrap();
            prop_assert_eq!(&at_once, after);
        }
    }

    #[test]
    fn what_an_update_cannot_say_is_no_change(node in node()) {
        for less in [
            Node { policy: None, ..node.clone() },
            Node { settings: None, ..node.clone() },
            Node { gateways: Vec::new(), ..node.clone() },
        ] {
            prop_assert_eq!(less.changes_since(&node), None);
            let mut more = less.clone();
            more.apply(&[node.changes_since(&less).unwrap()]).unwrap();
            prop_assert_eq!(&more, &node);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..200)) {
        let _result = Node::default().apply(&[bytes]);
    }

    #[test]
    fn different_states_have_different_digests(a in node(), b in node()) {
        prop_assert_eq!(a == b, a.digest() == b.digest());
    }

    #[test]
    fn what_is_refused_changes_nothing(mut node in node()) {
        let before = node.clone();
        let good = v1::ResourceSet { removed_identities: vec![300], ..Default::default() };
        let bad = v1::ResourceSet {
            endpoints: vec![v1::Endpoint { address: vec![10, 0, 0, 1], identity: 0x0100_0000, ..Default::default() }],
            removed_endpoints: node.endpoints.keys().map(|&address| address_to_wire(address)).collect(),
            ..Default::default()
        };
        let refused = node.apply(&[good.encode_to_vec(), bad.encode_to_vec()]).unwrap_err();
        prop_assert!(refused.to_string().contains("endpoint 10.0.0.1: identity 16777216"), "{refused}");
        prop_assert_eq!(node, before);
    }
}

#[test]
fn removals_of_what_is_not_there_are_no_error() {
    let removal = v1::ResourceSet {
        removed_endpoints: vec![vec![10, 0, 0, 1]],
        removed_identities: vec![300],
        ..Default::default()
    };
    let mut node = Node::default();
    node.apply(&[removal.encode_to_vec()]).unwrap();
    assert_eq!(node, Node::default());
}

/// Threat row 32: an absent set is refused, a set of an unknown kind denies; neither ever allows.
#[test]
fn absent_or_unknown_sets_never_allow() {
    let wire = |rule: v1::Rule| v1::Policy {
        ingress: Some(v1::DirectionPolicy {
            default: Some(v1::direction_policy::Default::Deny(v1::DenyDefault::default())),
            rules: vec![rule],
        }),
        egress: Some(v1::DirectionPolicy {
            default: Some(v1::direction_policy::Default::Allow(v1::AllowDefault {})),
            rules: vec![],
        }),
    };
    let any_ports = Some(v1::Ports { ports: Some(v1::ports::Ports::Any(v1::AnyPort {})) });
    let allow = i32::from(v1::Verdict::Allow);

    let absent = v1::Rule { peers: None, ports: any_ports.clone(), verdict: allow, ..Default::default() };
    assert!(policy_from_wire(&wire(absent)).is_err());

    let unknown = v1::Rule {
        peers: Some(v1::Peers { peers: None }),
        ports: any_ports.clone(),
        verdict: allow,
        ..Default::default()
    };
    assert_eq!(policy_from_wire(&wire(unknown)).unwrap().ingress.rules[0].action, RuleAction::Deny);

    let empty = v1::Rule {
        peers: Some(v1::Peers { peers: Some(v1::peers::Peers::Only(v1::PeerSet::default())) }),
        ports: any_ports.clone(),
        verdict: allow,
        ..Default::default()
    };
    let nothing = Peers::Only { identities: Arc::new(BTreeSet::new()), blocks: vec![] };
    assert_eq!(policy_from_wire(&wire(empty)).unwrap().ingress.rules[0].peers, nothing);

    let unspecified = v1::Rule {
        peers: Some(v1::Peers { peers: Some(v1::peers::Peers::Any(v1::AnyPeer {})) }),
        ports: any_ports,
        verdict: 77,
        ..Default::default()
    };
    assert_eq!(policy_from_wire(&wire(unspecified)).unwrap().ingress.rules[0].action, RuleAction::Deny);
}

#[test]
fn endpoints_of_successive_updates_share_their_parts() {
    let update = |last: u8| {
        let endpoint = v1::Endpoint {
            address: vec![10, 0, 0, last],
            identity: 300,
            mark: 300,
            tunnels: vec![vec![192, 0, 2, 1]],
            kind: Some(v1::endpoint::Kind::Pod(v1::PodKind { behind: vec!["nodes/a".to_owned()] })),
            ..Default::default()
        };
        [v1::ResourceSet { endpoints: vec![endpoint], ..Default::default() }.encode_to_vec()]
    };
    let (mut node, mut pool) = (Node::default(), Pool::default());
    node.apply_shared(&update(1), &mut pool).unwrap();
    let before = node.clone();
    node.apply_shared(&update(2), &mut pool).unwrap();
    node.apply_shared(&update(1), &mut Pool::of(&before.endpoints)).unwrap();
    let tunnels: Vec<_> = node.endpoints.values().map(|endpoint| Arc::as_ptr(&endpoint.tunnels)).collect();
    assert!(matches!(tunnels.as_slice(), [one, two] if one == two), "{tunnels:?}");
}

#[test]
fn a_name_outlives_its_endpoint() {
    let address = vec![10, 0, 0, 1];
    let endpoint = v1::Endpoint {
        address: address.clone(),
        identity: 300,
        mark: 300,
        kind: Some(v1::endpoint::Kind::Workload(v1::WorkloadKind {})),
        ..Default::default()
    };
    let add = v1::ResourceSet { endpoints: vec![endpoint], ..Default::default() };
    let remove = v1::ResourceSet { removed_endpoints: vec![address.clone()], ..Default::default() };
    let owner = v1::Owner { address, owner: "shop/db".to_owned() };
    let name = v1::ResourceSet { owners: vec![owner], ..Default::default() };
    let owner_after = |sets: &[&v1::ResourceSet]| {
        let mut node = Node::default();
        for set in sets {
            node.apply(&[set.encode_to_vec()]).unwrap();
        }
        node.endpoints.values().map(|endpoint| endpoint.owner.clone()).next().flatten()
    };
    for sets in
        [vec![&name, &add], vec![&add, &name], vec![&add, &name, &remove, &add], vec![&name, &remove, &add]]
    {
        assert_eq!(owner_after(&sets).as_deref(), Some("shop/db"), "{sets:?}");
    }
}
