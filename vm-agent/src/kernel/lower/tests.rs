use std::collections::{BTreeMap, BTreeSet};

use policy::identity::Identity;
use policy::state::{Default as DefaultVerdict, DirectionPolicy, Peers, Policy, Ports, Rule, RuleAction};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::*;

/// With every prefix.
fn lower(state: &NodeState) -> Lowered {
    super::lower(state, &state.settings.prefixes, 1450)
}

fn identity(number: u32) -> Identity {
    Identity::try_new(number).unwrap()
}

fn endpoint(number: u32, tunnels: &[&str], kind: EndpointKind) -> Arc<Endpoint> {
    let tunnels = Arc::new(tunnels.iter().map(|address| address.parse().unwrap()).collect());
    Arc::new(Endpoint {
        identity: identity(number),
        previous: None,
        mark: identity(number),
        tunnels,
        kind,
        owner: None,
    })
}

fn pod(tunnels: &[&str], behind: &[&str]) -> Arc<Endpoint> {
    let behind = Arc::new(behind.iter().map(|name| (*name).to_owned()).collect());
    endpoint(300, tunnels, EndpointKind::Pod { behind })
}

fn state(role: Role, endpoints: Vec<(&str, Arc<Endpoint>)>) -> NodeState {
    let open = DirectionPolicy { default: DefaultVerdict::Allow, rules: Vec::new() };
    NodeState {
        endpoints: endpoints
            .into_iter()
            .map(|(address, endpoint)| (address.parse().unwrap(), Endpoint::clone(&endpoint)))
            .collect(),
        identities: Pages::new(),
        policy: Arc::new(Policy { ingress: open.clone(), egress: open }),
        settings: NodeSettings {
            workload: "outrigger-system/node-a".to_owned(),
            identity: identity(6),
            mark: identity(6),
            addresses: vec!["10.244.240.1".parse().unwrap(), "fd00::1".parse().unwrap()],
            prefixes: vec!["10.244.240.0/20".parse().unwrap(), "fd00::/112".parse().unwrap()],
            role,
            mode: Mode::Enforce,
            tunnel_port: 8479,
            rejected: Vec::new(),
            nic: None,
            partly_enforced: Vec::new(),
            probes: Vec::new(),
        },
    }
}

fn entry(lowered: &Lowered, address: &str) -> EndpointEntry {
    let address = Address::from(address.parse::<IpAddr>().unwrap());
    *lowered.contents.endpoints.get(&EndpointKey { bank: 0, reserved: [0; 3], address }).unwrap()
}

fn members(lowered: &Lowered, set: u32) -> BTreeSet<IpAddr> {
    lowered.contents.tunnels.keys().filter(|key| key.set == set).map(|key| key.address.into()).collect()
}

#[test]
fn what_is_here_has_no_tunnel() {
    let transit = state(
        Role::Transit,
        vec![
            ("10.244.240.1", endpoint(6, &["192.0.2.1"], EndpointKind::Transit)),
            ("10.244.1.5", pod(&["192.0.2.1", "192.0.2.2"], &["outrigger-system/node-a"])),
            ("10.244.2.5", pod(&["192.0.2.2"], &["outrigger-system/node-b"])),
        ],
    );
    let lowered = lower(&transit);
    let own = entry(&lowered, "10.244.240.1");
    assert_eq!((own.flags, own.tunnel), (endpoint_flag::OWN | endpoint_flag::ROUTER, Address::NONE));
    let behind = entry(&lowered, "10.244.1.5");
    assert_eq!((behind.flags, behind.tunnel, behind.tunnel_set), (endpoint_flag::BEHIND, Address::NONE, 0));
    let elsewhere = entry(&lowered, "10.244.2.5");
    assert_eq!((elsewhere.flags, elsewhere.tunnel), (0, Address::from_v4([192, 0, 2, 2])));
    let settings = lowered.contents.settings.unwrap();
    assert_ne!(settings.flags & settings_flag::TRANSIT, 0);
    assert_eq!(settings.mtu, 1450);
}

#[test]
fn a_host_has_nothing_behind_it() {
    let lowered =
        lower(&state(Role::Host, vec![("10.244.1.5", pod(&["192.0.2.1"], &["outrigger-system/node-a"]))]));
    assert_eq!(entry(&lowered, "10.244.1.5").flags, 0);
}

#[test]
fn a_node_sends_to_a_family_that_it_has() {
    let tunnel = |own: &[&str]| {
        let own = endpoint(6, own, EndpointKind::Workload);
        let peer = pod(&["192.0.2.2", "2001:db8::2"], &["outrigger-system/node-b"]);
        let lowered = lower(&state(Role::Host, vec![("fd00::1", own), ("10.244.2.5", peer)]));
        IpAddr::from(entry(&lowered, "10.244.2.5").tunnel).to_string()
    };
    assert_eq!(tunnel(&["2001:db8::1"]), "2001:db8::2");
    assert_eq!(tunnel(&["192.0.2.1"]), "192.0.2.2");
    assert_eq!(tunnel(&["2001:db8::1", "192.0.2.1"]), "192.0.2.2");
    assert_eq!(tunnel(&[]), "192.0.2.2");
}

#[test]
fn sets_of_tunnels_are_shared_and_keep_their_numbers() {
    let first = lower(&state(
        Role::Host,
        vec![
            ("10.244.1.5", pod(&["192.0.2.1", "192.0.2.2"], &[])),
            ("10.244.1.6", pod(&["192.0.2.2", "192.0.2.1"], &[])),
            ("10.244.1.7", pod(&["192.0.2.1", "2001:db8::1"], &[])),
            ("10.244.1.8", pod(&["192.0.2.1"], &[])),
            ("10.244.1.9", pod(&[], &[])),
        ],
    ));
    let (a, b, c) = (entry(&first, "10.244.1.5"), entry(&first, "10.244.1.6"), entry(&first, "10.244.1.7"));
    assert_eq!(a.tunnel_set, b.tunnel_set);
    assert_ne!(a.tunnel_set, c.tunnel_set);
    assert_eq!(members(&first, a.tunnel_set), ["192.0.2.1", "192.0.2.2"].map(|a| a.parse().unwrap()).into());
    assert_eq!(a.tunnel, Address::from_v4([192, 0, 2, 1]), "the first is preferred");
    assert_eq!(b.tunnel, Address::from_v4([192, 0, 2, 2]));
    assert_eq!(entry(&first, "10.244.1.8").tunnel_set, 0);
    let unreachable = entry(&first, "10.244.1.9");
    assert_eq!((unreachable.tunnel, unreachable.tunnel_set), (Address::NONE, 0));

    let alone = lower(&state(Role::Host, vec![("10.244.1.7", pod(&["192.0.2.1", "2001:db8::1"], &[]))]));
    assert_eq!(entry(&alone, "10.244.1.7").tunnel_set, c.tunnel_set, "numbers depend on the members only");
}

#[test]
fn prefixes_are_v4_mapped() {
    let lowered = lower(&state(Role::Host, Vec::new()));
    let lengths: Vec<u32> = lowered.contents.prefixes.keys().map(|key| key.prefix_len).collect();
    assert_eq!(lengths, [32 + 112, 32 + 96 + 20]);
}

#[test]
fn a_relabel_keeps_the_old_identity_and_mark() {
    let mut peer = Endpoint::clone(&endpoint(301, &["192.0.2.9"], EndpointKind::Workload));
    peer.previous = Some(identity(300));
    peer.mark = identity(300);
    let lowered = lower(&state(Role::Host, vec![("10.244.240.9", Arc::new(peer))]));
    let entry = entry(&lowered, "10.244.240.9");
    assert_eq!((entry.identity, entry.previous, entry.mark), (301, 300, 300));
}

#[test]
fn settings_say_who_and_how() {
    let mut audited = state(Role::Host, Vec::new());
    audited.settings.mode = Mode::Audit;
    audited.settings.addresses.remove(1);
    let settings = lower(&audited).contents.settings.unwrap();
    assert_ne!(settings.flags & settings_flag::AUDIT, 0);
    assert_eq!(settings.flags & (settings_flag::TRANSIT | settings_flag::CIDR_RULES), 0);
    assert_eq!(settings.address_v4, Address::from_v4([10, 244, 240, 1]));
    assert_eq!(settings.address_v6, Address::NONE);
}

#[test]
fn hosts_whose_underlays_do_not_meet_are_reached_by_a_relay_that_stands_in_both() {
    let own = endpoint(300, &["192.0.2.1"], EndpointKind::Workload);
    let far = endpoint(300, &["2001:db8::9"], EndpointKind::Workload);
    let near = endpoint(300, &["192.0.2.9"], EndpointKind::Workload);
    let relay = |v4: &str, v6: &str| endpoint(6, &[v4, v6], EndpointKind::Transit);
    let lame = endpoint(6, &["192.0.2.4"], EndpointKind::Transit);
    let world = |relays: Vec<(&'static str, Arc<Endpoint>)>| {
        let hosts = [("10.244.240.1", &own), ("10.244.240.8", &far), ("10.244.240.9", &near)];
        let hosts = hosts.map(|(address, endpoint)| (address, Arc::clone(endpoint)));
        lower(&state(Role::Host, hosts.into_iter().chain(relays).collect()))
    };
    let one = ("10.244.240.2", relay("192.0.2.2", "2001:db8::2"));
    let two = ("10.244.240.3", relay("192.0.2.3", "2001:db8::3"));
    let both = world(vec![one.clone(), two, ("10.244.240.4", lame)]);
    let entry_far = entry(&both, "10.244.240.8");
    let relays = ["192.0.2.2", "192.0.2.3"].map(|a| a.parse::<IpAddr>().unwrap());
    assert!(relays.contains(&entry_far.tunnel.into()), "{entry_far:?}");
    let senders = ["192.0.2.2", "192.0.2.3", "2001:db8::9"].map(|a| a.parse().unwrap());
    assert_eq!(members(&both, entry_far.tunnel_set), senders.into());
    let entry_near = entry(&both, "10.244.240.9");
    assert_eq!((entry_near.tunnel, entry_near.tunnel_set), (Address::from_v4([192, 0, 2, 9]), 0));

    let single = world(vec![one]);
    assert_eq!(IpAddr::from(entry(&single, "10.244.240.8").tunnel).to_string(), "192.0.2.2");
    let none = entry(&world(Vec::new()), "10.244.240.8");
    assert_eq!((IpAddr::from(none.tunnel).to_string(), none.tunnel_set), ("2001:db8::9".to_owned(), 0));
}

fn addresses(texts: &[&str]) -> BTreeSet<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// Two transit nodes, a node of the cluster with a pod, a pod of a node without an agent, and a host.
fn cluster(role: Role, own: (&'static str, Arc<Endpoint>)) -> NodeState {
    let transit = |tunnels: &[&str]| endpoint(6, tunnels, EndpointKind::Transit);
    let both = pod(&["192.0.2.2", "192.0.2.3"], &["outrigger-system/t-1", "outrigger-system/t-2"]);
    let endpoints = vec![
        ("10.244.240.2", transit(&["192.0.2.2"])),
        ("10.244.240.3", transit(&["192.0.2.3"])),
        ("10.244.240.4", endpoint(6, &["192.0.2.4"], EndpointKind::Node)),
        ("10.244.240.5", endpoint(300, &["192.0.2.5"], EndpointKind::Workload)),
        ("10.244.1.4", pod(&["192.0.2.4"], &["outrigger-system/node-c"])),
        ("10.244.1.9", both),
        own,
    ];
    state(role, endpoints)
}

fn around(silent: &[&str]) -> Around<'static> {
    Around { nic: None, silent: addresses(silent).into() }
}

fn lowered(state: &NodeState, silent: &[&str]) -> Lowered {
    Lowering::default().lower(state, &state.settings.prefixes, 1450, &around(silent))
}

fn tunnel(lowered: &Lowered, address: &str) -> String {
    IpAddr::from(entry(lowered, address).tunnel).to_string()
}

#[test]
fn between_hosts_and_nodes_of_the_cluster_stand_transit_nodes() {
    let transit = ["192.0.2.2", "192.0.2.3"];
    let own = ("10.244.240.1", endpoint(300, &["192.0.2.1"], EndpointKind::Workload));
    let host = lowered(&cluster(Role::Host, own), &[]);
    for inside in ["10.244.1.4", "10.244.240.4"] {
        assert!(transit.contains(&tunnel(&host, inside).as_str()), "{}", tunnel(&host, inside));
        let senders = members(&host, entry(&host, inside).tunnel_set);
        assert_eq!(senders, addresses(&["192.0.2.2", "192.0.2.3", "192.0.2.4"]));
    }
    assert_eq!(tunnel(&host, "10.244.240.5"), "192.0.2.5");
    assert_eq!(host.contents.settings.unwrap().flags & settings_flag::TRANSIT, 0);

    let own = ("10.244.240.1", endpoint(6, &["192.0.2.4"], EndpointKind::Node));
    let mut state = cluster(Role::Node, own);
    state.settings.workload = "outrigger-system/node-c".to_owned();
    let node = lowered(&state, &[]);
    assert!(transit.contains(&tunnel(&node, "10.244.240.5").as_str()));
    let senders = members(&node, entry(&node, "10.244.240.5").tunnel_set);
    assert_eq!(senders, addresses(&["192.0.2.2", "192.0.2.3", "192.0.2.5"]));
    let behind = entry(&node, "10.244.1.4");
    assert_eq!((behind.flags, behind.tunnel), (endpoint_flag::BEHIND, Address::NONE));
    let settings = node.contents.settings.unwrap();
    assert_ne!(settings.flags & settings_flag::TRANSIT, 0);
    assert_eq!(settings.mtu, 0, "it relays for nobody");

    let own = ("10.244.240.1", endpoint(6, &["192.0.2.1"], EndpointKind::Transit));
    let relay = lowered(&cluster(Role::Transit, own), &[]);
    assert_eq!(tunnel(&relay, "10.244.1.4"), "192.0.2.4");
    assert_eq!(entry(&relay, "10.244.1.4").tunnel_set, 0, "nobody else speaks for the pod");
    for (address, flags) in [
        ("10.244.1.4", endpoint_flag::PAST_MESH),
        ("10.244.240.4", endpoint_flag::PAST_MESH | endpoint_flag::ROUTER),
        ("10.244.240.5", 0),
    ] {
        assert_eq!(entry(&relay, address).flags, flags, "{address}");
        assert_eq!(entry(&host, address).flags & endpoint_flag::PAST_MESH, 0, "{address}");
    }
    assert_eq!(tunnel(&relay, "10.244.240.5"), "192.0.2.5");
}

/// Whichever the addresses are, what goes from a host to the node and back goes by one transit node.
#[test]
fn both_ends_choose_the_same_transit_node_and_hosts_share_them() {
    let mut chosen = BTreeMap::new();
    for last in 10..60 {
        let (host, underlay) = (format!("10.244.240.{last}"), format!("192.0.2.{last}"));
        let workload = endpoint(300, &[&underlay], EndpointKind::Workload);
        let mut near =
            cluster(Role::Host, ("10.244.240.1", endpoint(300, &["192.0.2.1"], EndpointKind::Workload)));
        near.settings.addresses = vec![host.parse().unwrap()];
        near.endpoints.insert(host.parse().unwrap(), Endpoint::clone(&workload));
        let mut far = cluster(Role::Node, ("10.244.240.1", endpoint(6, &["192.0.2.4"], EndpointKind::Node)));
        far.endpoints.insert(host.parse().unwrap(), Endpoint::clone(&workload));
        let out = tunnel(&lowered(&near, &[]), "10.244.1.4");
        assert_eq!(out, tunnel(&lowered(&far, &[]), &host), "{host}");
        *chosen.entry(out).or_insert(0) += 1;
    }
    assert!(chosen.len() == 2 && chosen.values().all(|hosts| *hosts > 15), "{chosen:?}");
}

#[test]
fn a_transit_node_that_does_not_answer_is_not_sent_to_and_may_still_send() {
    let own = ("10.244.240.1", endpoint(300, &["192.0.2.1"], EndpointKind::Workload));
    let state = cluster(Role::Host, own);
    let all = lowered(&state, &[]);
    for (silent, other) in [("192.0.2.2", "192.0.2.3"), ("192.0.2.3", "192.0.2.2")] {
        let lowered = lowered(&state, &[silent]);
        for inside in ["10.244.1.4", "10.244.240.4", "10.244.1.9"] {
            assert_eq!(tunnel(&lowered, inside), other);
            assert_eq!(entry(&lowered, inside).tunnel_set, entry(&all, inside).tunnel_set);
        }
        assert_eq!(lowered.contents.tunnels, all.contents.tunnels);
        // It itself is still reached by its own tunnel: somebody has to find out when it is back.
        assert_eq!(tunnel(&lowered, "10.244.240.2"), "192.0.2.2");
    }
    let none = lowered(&state, &["192.0.2.2", "192.0.2.3"]);
    assert_eq!(none.contents.endpoints, all.contents.endpoints, "nobody better is known");
}

#[test]
fn who_chooses_among_transit_nodes_may_ask_them_whether_they_are_there() {
    let may = |lowered: &Lowered| lowered.rules.values().any(|origin| &**origin == "failsafe/transit");
    let own = ("10.244.240.1", endpoint(300, &["192.0.2.1"], EndpointKind::Workload));
    let state = cluster(Role::Host, own.clone());
    let choosing = lowered(&state, &[]);
    let asked: Vec<String> = choosing.choices.keys().map(ToString::to_string).collect();
    assert_eq!(asked, ["10.244.240.2", "10.244.240.3"]);
    assert!(may(&choosing));

    let one_transit = super::tests::state(
        Role::Host,
        vec![
            ("10.244.240.2", endpoint(6, &["192.0.2.2"], EndpointKind::Transit)),
            ("10.244.1.4", pod(&["192.0.2.2"], &["outrigger-system/t-1"])),
            own.clone(),
        ],
    );
    let alone = lowered(&one_transit, &[]);
    assert!(alone.choices.is_empty() && !may(&alone));

    let mut lowering = Lowering::default();
    let of = |lowering: &mut Lowering, state| may(&lowering.lower(state, &[], 1450, &around(&[])));
    assert!(of(&mut lowering, &state) && !of(&mut lowering, &one_transit) && of(&mut lowering, &state));

    let inside = cluster(Role::Node, ("10.244.240.1", endpoint(6, &["192.0.2.4"], EndpointKind::Node)));
    let inside = lowered(&inside, &[]);
    assert!(!inside.choices.is_empty() && !may(&inside), "policy is left to the ends");
    let relay = cluster(Role::Transit, ("10.244.240.1", endpoint(6, &["192.0.2.1"], EndpointKind::Transit)));
    assert!(lowered(&relay, &[]).choices.is_empty());
}

/// States of one mesh: hosts and pods with underlays of either family or both, relays, and two policies.
fn states() -> impl Strategy<Value = NodeState> {
    let tunnels = || subsequence(vec!["192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2"], 0..3);
    let one = (tunnels(), 0..4, select(vec![300, 301])).prop_map(|(tunnels, kind, number)| {
        let behind = || Arc::new(BTreeSet::from(["outrigger-system/node-a".to_owned()]));
        let kind = match kind {
            0 => EndpointKind::Workload,
            1 => EndpointKind::Transit,
            2 => EndpointKind::Node,
            _ => EndpointKind::Pod { behind: behind() },
        };
        endpoint(number, &tunnels, kind)
    });
    let address =
        select(vec!["10.244.240.1", "10.244.1.1", "10.244.1.2", "10.244.1.3", "fd00::1", "fd00::2"]);
    let role = select(vec![Role::Host, Role::Transit, Role::Node]);
    (btree_map(address, one, 0..6), role, any::<bool>()).prop_map(|(endpoints, role, is_closed)| {
        let mut state = state(role, endpoints.into_iter().collect());
        if is_closed {
            let from_300 = Rule {
                origin: "NetworkPolicy/shop/db#ingress[0]".into(),
                peers: Peers::Only {
                    identities: Arc::new(BTreeSet::from([identity(300)])),
                    blocks: Vec::new(),
                },
                ports: Ports::Any,
                action: RuleAction::Allow,
                precedence: 1,
            };
            let by = vec!["NetworkPolicy/shop/db".to_owned()];
            Arc::make_mut(&mut state.policy).ingress =
                DirectionPolicy { default: DefaultVerdict::Deny { by }, rules: vec![from_300] };
        }
        state
    })
}

proptest! {
    #[test]
    fn what_was_lowered_before_makes_no_difference(
        states in vec((states(), subsequence(vec!["192.0.2.1", "2001:db8::2"], 0..3)), 1..6),
    ) {
        let mut lowering = Lowering::default();
        for (state, silent) in states {
            let around = Around { nic: None, silent: addresses(&silent).into() };
            let anew = Lowering::default().lower(&state, &[], 1450, &around);
            prop_assert_eq!(lowering.lower(&state, &[], 1450, &around), anew);
        }
    }
}

#[test]
fn a_change_lowers_only_what_changed() {
    let many: BTreeMap<String, Arc<Endpoint>> =
        (0..200).map(|last| (format!("10.244.7.{last}"), pod(&["192.0.2.1", "192.0.2.2"], &[]))).collect();
    let mut state = state(Role::Host, many.iter().map(|(a, e)| (a.as_str(), Arc::clone(e))).collect());
    let mut lowering = Lowering::default();
    let before = lowering.lower(&state, &[], 1450, &Around::default()).contents.endpoints;
    // A set of tunnels that nobody had leaves the numbers of the others.
    state
        .endpoints
        .insert("10.244.7.9".parse().unwrap(), Endpoint::clone(&pod(&["192.0.2.3", "192.0.2.4"], &[])));
    let after = lowering.lower(&state, &[], 1450, &Around::default()).contents.endpoints;
    assert!(after.shares_pages_with(&before), "all was lowered again");
    assert_eq!(before.differences(&after).count(), 1);
}
