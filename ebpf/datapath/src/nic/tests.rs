use crate::{
    Action, Address, Port, Reason,
    abi::{
        CidrKey, EndpointEntry, EndpointKey, Hook, Place, PolicyKey, PrefixEntry, PrefixKey, TunnelEntry,
        TunnelKey, endpoint_flag, settings_flag,
    },
    guard,
    model::Frame,
    testing::{ACK, OWN, RST, SYN, SYN_ACK, World, address, echo, fragments_v4, icmp, tcp, udp, unreachable},
};

/// This host's addresses outside of the mesh, and somebody else's.
const HOST: [&str; 2] = ["192.0.2.10", "2001:db8::10"];
const ELSE: [&str; 2] = ["198.51.100.7", "2001:db8:1::7"];
const NODE: &str = "192.0.2.3";
const NIC: u32 = 4;
const TUNNEL: u16 = 8473;

/// Everything is denied on the NIC, in both directions, but for what a test allows.
fn world() -> World {
    let mut world = World::new();
    for bank in [crate::abi::Bank::A, crate::abi::Bank::B] {
        let place = Place::nic(bank).number();
        let own = EndpointEntry {
            identity: 1,
            previous: 0,
            mark: 0,
            tunnel_set: 0,
            tunnel: Address::NONE,
            flags: endpoint_flag::OWN,
            reserved: 0,
        };
        let key = |text: &str| EndpointKey { bank: place, reserved: [0; 3], address: address(text) };
        for text in HOST {
            world.model.endpoints.insert(key(text), own);
        }
        world.model.endpoints.insert(key(NODE), EndpointEntry { identity: 6, flags: 0, ..own });
        let device = TunnelKey { bank: place, reserved: [0; 3], set: NIC, address: Address::NONE };
        world.model.tunnels.insert(device, TunnelEntry::default());
        let settings = world.model.settings[usize::from(bank.number())].as_mut().unwrap();
        settings.nic_flags = settings_flag::GOVERNS;
        settings.nic_ingress_default = Action::Deny.number();
        settings.nic_egress_default = Action::Deny.number();
        settings.nic_tunnel_port = Port::new(TUNNEL);
        let prefix_len = CidrKey::BASE_BITS + 96 + 8;
        let bank = bank.number();
        let mesh = PrefixKey { prefix_len, bank, reserved: [0; 3], address: address("10.0.0.0") };
        world.model.prefixes.insert(mesh, PrefixEntry::default());
    }
    world
}

/// Allows a port of both banks to everybody.
fn allow(world: &mut World, hook: Hook, protocol: u8, port: u16) {
    for bank in [crate::abi::Bank::A, crate::abi::Bank::B] {
        let key = PolicyKey {
            prefix_len: PolicyKey::BASE_BITS + 16,
            bank: Place::nic(bank).number(),
            direction: hook.direction().number(),
            protocol,
            reserved: 0,
            class: 0,
            port: Port::new(port),
            padding: [0; 2],
        };
        let entry = crate::testing::entry(1000 + u32::from(port), Action::Allow);
        world.model.policy.insert(key, entry);
    }
}

fn passes_from(world: &World, hook: Hook, packet: &[u8], device: u32, arrived_by: u32) -> bool {
    let frame = Frame { ifindex: device, arrived_by, ..Frame::of_ip(packet) };
    guard(&frame, &world.moment(hook), &world.model)
}

fn comes(world: &World, packet: &[u8]) -> bool {
    passes_from(world, Hook::GuardIngress, packet, NIC, 0)
}

fn goes(world: &World, packet: &[u8]) -> bool {
    passes_from(world, Hook::GuardEgress, packet, NIC, 0)
}

#[test]
fn what_no_rule_allows_is_dropped_and_replies_pass() {
    for (own, other) in HOST.into_iter().zip(ELSE) {
        let mut world = world();
        allow(&mut world, Hook::GuardIngress, 6, 22);
        allow(&mut world, Hook::GuardEgress, 17, 53);
        assert!(!comes(&world, &tcp(other, 4000, own, 80, SYN)));
        assert_eq!(world.model.counter(Hook::GuardIngress, Reason::PolicyDenied).packets, 1);
        assert!(!goes(&world, &tcp(own, 4000, other, 80, SYN)));
        assert_eq!(world.flow_count(), 0, "a denied packet leaves no flow");
        assert!(comes(&world, &tcp(other, 4000, own, 22, SYN)));
        assert!(goes(&world, &tcp(own, 22, other, 4000, SYN_ACK)));
        assert!(comes(&world, &tcp(other, 4000, own, 22, ACK)));
        assert!(goes(&world, &udp(own, 5000, other, 53)));
        assert!(comes(&world, &udp(other, 53, own, 5000)));
        assert!(!comes(&world, &udp(other, 53, own, 5001)));
        assert!(!comes(&world, &echo(other, own, false, 1)));
        assert!(!comes(&world, &echo(other, own, true, 1)), "a reply to nothing");
    }
}

#[test]
fn without_a_scope_nothing_is_looked_at() {
    let mut world = world();
    world.settings().nic_flags = 0;
    assert!(comes(&world, &tcp(ELSE[0], 4000, HOST[0], 80, SYN)));
    assert!(goes(&world, &tcp(HOST[0], 80, ELSE[0], 4000, SYN_ACK)));
    assert_eq!(world.flow_count(), 0);
    assert!(!comes(&world, &udp(ELSE[0], 1, OWN, 2)), "the guard stays");
}

#[test]
fn only_nics_and_this_hosts_own_traffic_are_governed() {
    let world = world();
    let packet = tcp(ELSE[0], 4000, HOST[0], 80, SYN);
    assert!(passes_from(&world, Hook::GuardIngress, &packet, NIC + 1, 0), "no NIC");
    assert!(comes(&world, &tcp(ELSE[0], 4000, "203.0.113.9", 80, SYN)), "for somebody behind this host");
    assert!(goes(&world, &tcp("203.0.113.9", 4000, ELSE[0], 80, SYN)), "from somebody behind this host");
    // What a container sends, masqueraded, has this host's address.
    assert!(passes_from(&world, Hook::GuardEgress, &tcp(HOST[0], 4000, ELSE[0], 80, SYN), NIC, 9));
    assert!(comes(&world, &tcp(ELSE[0], 80, HOST[0], 4000, SYN_ACK)), "the answer to the container");
    assert!(!comes(&world, &tcp(ELSE[0], 80, HOST[0], 4000, SYN)), "nobody answers with a SYN");
    // The same ports, used again: by the container, and by this host itself.
    assert!(passes_from(&world, Hook::GuardEgress, &tcp(HOST[0], 4000, ELSE[0], 80, RST), NIC, 9));
    assert!(passes_from(&world, Hook::GuardEgress, &tcp(HOST[0], 4000, ELSE[0], 80, SYN), NIC, 9));
    assert!(comes(&world, &tcp(ELSE[0], 80, HOST[0], 4000, SYN_ACK)));
    assert!(!goes(&world, &tcp(HOST[0], 4000, ELSE[0], 80, SYN)));
    assert!(!goes(&world, &tcp(HOST[0], 4000, ELSE[0], 80, ACK)));
    assert!(passes_from(&world, Hook::GuardEgress, &udp(HOST[0], 4000, ELSE[0], 53), NIC, 9));
    assert!(!goes(&world, &udp(HOST[0], 4000, ELSE[0], 53)));
}

#[test]
fn audit_reports_and_drops_nothing() {
    let mut world = world();
    world.settings().nic_flags |= settings_flag::AUDIT;
    let packet = tcp(ELSE[0], 4000, HOST[0], 80, SYN);
    assert!(comes(&world, &packet));
    let events = world.model.take_events();
    assert_eq!(events.iter().map(|event| event.reason).collect::<Vec<_>>(), [Reason::Audited.number()]);
    assert!(goes(&world, &tcp(HOST[0], 80, ELSE[0], 4000, SYN_ACK)));
    assert!(comes(&world, &echo(ELSE[0], HOST[0], true, 1)), "also what has no flow");
}

#[test]
fn an_unconfirmed_policy_stops_to_drop_at_its_deadline() {
    let mut world = world();
    let now = world.moment(Hook::GuardIngress).tick();
    world.settings().nic_deadline = now + 5;
    let syn = tcp(ELSE[0], 4000, HOST[0], 80, SYN);
    assert!(!comes(&world, &syn));
    world.wait(4);
    assert!(!comes(&world, &syn));
    world.wait(4);
    assert!(comes(&world, &syn));
    assert_eq!(world.model.counter(Hook::GuardIngress, Reason::Audited).packets, 1);
}

#[test]
fn a_flow_that_was_refused_lives_again_after_the_deadline() {
    let mut world = world();
    world.settings().nic_flags |= settings_flag::AUDIT;
    assert!(comes(&world, &tcp(ELSE[0], 4000, HOST[0], 80, SYN)));
    world.publish();
    let now = world.moment(Hook::GuardIngress).tick();
    world.settings().nic_deadline = now + 5;
    let data = tcp(ELSE[0], 4000, HOST[0], 80, ACK);
    assert!(!comes(&world, &data), "enforced");
    assert!(!goes(&world, &tcp(HOST[0], 80, ELSE[0], 4000, ACK)), "in both directions");
    world.wait(10);
    assert!(comes(&world, &data));
    assert!(goes(&world, &tcp(HOST[0], 80, ELSE[0], 4000, ACK)));
}

#[test]
fn connections_from_before_go_on_where_either_end_might_have_opened_them() {
    let mut world = world();
    allow(&mut world, Hook::GuardIngress, 6, 22);
    allow(&mut world, Hook::GuardEgress, 6, 443);
    let (own, other) = (HOST[0], ELSE[0]);
    assert!(goes(&world, &tcp(own, 22, other, 4000, ACK)), "a session of sshd");
    assert!(comes(&world, &tcp(other, 4000, own, 22, ACK)));
    assert!(comes(&world, &tcp(other, 443, own, 5000, ACK)), "a download");
    assert!(!comes(&world, &tcp(other, 4000, own, 80, ACK)));
    assert!(!comes(&world, &tcp(other, 443, own, 5001, SYN)), "an opening is none of them");
    assert!(!goes(&world, &tcp(own, 80, other, 4000, RST)));
}

#[test]
fn connections_from_before_outlive_a_publication_whoever_spoke_first() {
    let mut world = world();
    allow(&mut world, Hook::GuardIngress, 6, 22);
    let (own, other) = (HOST[0], ELSE[0]);
    assert!(goes(&world, &tcp(own, 22, other, 4000, ACK)));
    world.publish();
    assert!(goes(&world, &tcp(own, 22, other, 4000, ACK)), "by the rule for what comes in");
    assert!(comes(&world, &tcp(other, 4000, own, 22, ACK)));
}

#[test]
fn no_segment_makes_way_for_an_opening_that_is_denied() {
    let mut world = world();
    world.settings().nic_egress_default = Action::Allow.number();
    for (own, other) in HOST.into_iter().zip(ELSE) {
        for flags in [0, ACK] {
            assert!(comes(&world, &tcp(other, 443, own, 5432, flags)), "an answer to what went out before");
            assert!(!comes(&world, &tcp(other, 443, own, 5432, SYN)));
            world.publish();
            world.settings().nic_egress_default = Action::Allow.number();
            assert!(!comes(&world, &tcp(other, 443, own, 5432, SYN)));
        }
    }
}

#[test]
fn what_comes_to_a_forwarded_port_stays_this_hosts() {
    let mut world = world();
    allow(&mut world, Hook::GuardIngress, 6, 8080);
    assert!(comes(&world, &tcp(ELSE[0], 4000, HOST[0], 8080, SYN)));
    // The container's answer, with the host's address again.
    let answer = tcp(HOST[0], 8080, ELSE[0], 4000, SYN_ACK);
    assert!(passes_from(&world, Hook::GuardEgress, &answer, NIC, 9));
    assert!(comes(&world, &tcp(ELSE[0], 4000, HOST[0], 8080, ACK)));
    world.publish();
    world.model.policy.clear();
    assert!(!comes(&world, &tcp(ELSE[0], 4000, HOST[0], 8080, ACK)), "a new refusal cuts it");
    assert!(!passes_from(&world, Hook::GuardEgress, &tcp(HOST[0], 8080, ELSE[0], 4000, ACK), NIC, 9));
}

#[test]
fn discovery_small_paths_and_tunnels_are_never_closed() {
    let world = world();
    for kind in [133, 134, 135, 136, 130, 143, 2] {
        assert!(comes(&world, &icmp(ELSE[1], HOST[1], kind, [0; 6], &[0; 40])), "{kind}");
        assert!(goes(&world, &icmp(HOST[1], ELSE[1], kind, [0; 6], &[0; 40])), "{kind}");
    }
    let mut too_big = icmp(ELSE[0], HOST[0], 3, [0; 6], &udp(HOST[0], 1, ELSE[0], 2));
    assert!(!comes(&world, &too_big), "port unreachable about nothing");
    too_big[21] = 4;
    assert!(comes(&world, &too_big));
    assert!(comes(&world, &udp(NODE, 5000, HOST[0], TUNNEL)));
    assert!(goes(&world, &udp(HOST[0], 5000, NODE, TUNNEL)));
    assert!(!comes(&world, &udp(ELSE[0], 5000, HOST[0], TUNNEL)), "from no node");
    assert_eq!(world.flow_count(), 0, "tunnels are no flows");
}

#[test]
fn errors_and_fragments_belong_to_flows() {
    let mut world = world();
    allow(&mut world, Hook::GuardEgress, 17, 53);
    let query = udp(HOST[0], 5000, ELSE[0], 53);
    let error = unreachable("203.0.113.1", HOST[0], &query, 28);
    assert!(!comes(&world, &error));
    assert!(goes(&world, &query));
    assert!(comes(&world, &error), "of any router");

    allow(&mut world, Hook::GuardIngress, 17, 9000);
    let [first, later] = fragments_v4(&udp(ELSE[0], 1, HOST[0], 9000), 8, 7);
    assert!(!comes(&world, &later));
    assert!(comes(&world, &first) && comes(&world, &later));
    let [first, later] = fragments_v4(&udp(ELSE[0], 1, HOST[0], 9001), 8, 8);
    assert!(!comes(&world, &first) && !comes(&world, &later));
}

#[test]
fn packets_to_everybody_need_a_rule() {
    let mut world = world();
    let discover = udp(ELSE[0], 68, "255.255.255.255", 67);
    assert!(!comes(&world, &discover));
    allow(&mut world, Hook::GuardIngress, 17, 67);
    assert!(comes(&world, &discover));
    assert_eq!(world.flow_count(), 0);
}
