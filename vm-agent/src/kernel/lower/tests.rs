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

/// States of one mesh: hosts and pods with underlays of either family or both, relays, and two policies.
fn states() -> impl Strategy<Value = NodeState> {
    let tunnels = || subsequence(vec!["192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2"], 0..3);
    let one = (tunnels(), 0..3, select(vec![300, 301])).prop_map(|(tunnels, kind, number)| {
        let behind = || Arc::new(BTreeSet::from(["outrigger-system/node-a".to_owned()]));
        let kind = match kind {
            0 => EndpointKind::Workload,
            1 => EndpointKind::Transit,
            _ => EndpointKind::Pod { behind: behind() },
        };
        endpoint(number, &tunnels, kind)
    });
    let address =
        select(vec!["10.244.240.1", "10.244.1.1", "10.244.1.2", "10.244.1.3", "fd00::1", "fd00::2"]);
    let role = select(vec![Role::Host, Role::Transit]);
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
    fn what_was_lowered_before_makes_no_difference(states in vec(states(), 1..6)) {
        let mut lowering = Lowering::default();
        for state in states {
            prop_assert_eq!(lowering.lower(&state, &[], 1450, None), super::lower(&state, &[], 1450));
        }
    }
}

#[test]
fn a_change_lowers_only_what_changed() {
    let many: BTreeMap<String, Arc<Endpoint>> =
        (0..200).map(|last| (format!("10.244.7.{last}"), pod(&["192.0.2.1", "192.0.2.2"], &[]))).collect();
    let mut state = state(Role::Host, many.iter().map(|(a, e)| (a.as_str(), Arc::clone(e))).collect());
    let mut lowering = Lowering::default();
    let before = lowering.lower(&state, &[], 1450, None).contents.endpoints;
    // A set of tunnels that nobody had leaves the numbers of the others.
    state
        .endpoints
        .insert("10.244.7.9".parse().unwrap(), Endpoint::clone(&pod(&["192.0.2.3", "192.0.2.4"], &[])));
    let after = lowering.lower(&state, &[], 1450, None).contents.endpoints;
    assert!(after.shares_pages_with(&before), "all was lowered again");
    assert_eq!(before.differences(&after).count(), 1);
}
