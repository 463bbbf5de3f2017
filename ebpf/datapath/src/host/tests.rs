use crate::{
    Action, Address, FlowTable, Outer, Reason,
    abi::{EventKind, Flow, Hook, settings_flag},
    model::Capacity,
    testing::{
        ACK, FIN_ACK, NOBODY, OTHER_TRANSIT_TUNNEL, OWN, OWN_IDENTITY, OWN_V6, PEER, PEER_IDENTITY,
        PEER_TUNNEL, PEER_V6, POD, POD_IDENTITY, RST, SYN, SYN_ACK, TRANSIT_TUNNEL, World, address, echo,
        fragments_v4, from_peer, from_pod, outer, tcp, udp,
    },
};

const TCP: u8 = 6;
const UDP: u8 = 17;

#[test]
fn a_connection_is_established_in_both_families() {
    for (own, peer) in [(OWN, PEER), (OWN_V6, PEER_V6)] {
        let world = World::new();
        assert_eq!(world.in_from_peer(&tcp(peer, 4000, own, 80, SYN)), Reason::NewAllowed);
        assert_eq!(world.only_flow().0, FlowTable::HalfOpen);
        let reply = world.egress(&tcp(own, 80, peer, 4000, SYN_ACK));
        assert_eq!(
            (reply.reason, reply.mark),
            (Reason::Established, OWN_IDENTITY),
            "egress is denied but for replies"
        );
        assert_eq!(reply.tunnel, address(PEER_TUNNEL));
        assert_eq!(world.only_flow().0, FlowTable::Confirmed);
        assert_eq!(world.in_from_peer(&tcp(peer, 4000, own, 80, ACK)), Reason::Established);
        assert_eq!(world.model.counter(Hook::MeshIngress, Reason::Established).packets, 1);
    }
}

#[test]
fn what_policy_denies_leaves_no_entry() {
    let world = World::new();
    let verdict = world.egress(&tcp(OWN, 4000, PEER, 80, SYN));
    assert_eq!((verdict.reason, verdict.rule, verdict.identity), (Reason::PolicyDenied, 2, PEER_IDENTITY));
    assert_eq!(world.flow_count(), 0);
    let events = world.model.take_events();
    assert_eq!(events.len(), 1);
    assert_eq!((events[0].kind, events[0].rule), (EventKind::Dropped.number(), 2));
    assert_eq!(world.in_from_peer(&tcp(PEER, 80, OWN, 4000, SYN_ACK)), Reason::NoFlow);
}

#[test]
fn the_source_check_holds_every_outer_fact_against_the_table() {
    let mut world = World::new();
    let syn = |source| tcp(source, 4000, OWN, 80, SYN);
    let reason = |world: &World, source, outer| world.ingress(&syn(source), outer).reason;
    assert_eq!(reason(&world, NOBODY, from_peer()), Reason::UnknownSource);
    assert_eq!(reason(&world, PEER, outer(PEER_TUNNEL, POD_IDENTITY)), Reason::Spoofed, "a foreign identity");
    assert_eq!(
        reason(&world, PEER, outer(TRANSIT_TUNNEL, PEER_IDENTITY)),
        Reason::Spoofed,
        "another's tunnel"
    );
    assert_eq!(
        reason(&world, PEER, outer("192.0.2.77", PEER_IDENTITY)),
        Reason::Spoofed,
        "an unknown tunnel"
    );
    assert_eq!(reason(&world, PEER, outer(PEER_TUNNEL, 0)), Reason::Spoofed, "no identity");
    assert_eq!(reason(&world, OWN, from_peer()), Reason::Spoofed, "this host's own address");
    assert_eq!(reason(&world, PEER, Outer::NONE), Reason::NoTunnelKey);
    world.endpoint(OWN).tunnel = address(PEER_TUNNEL);
    assert_eq!(reason(&world, OWN, outer(PEER_TUNNEL, OWN_IDENTITY)), Reason::Spoofed, "wherever it points");
    assert_eq!(world.flow_count(), 0);
    assert_eq!(reason(&world, POD, from_pod()), Reason::NewAllowed);
    world.publish();
    assert_eq!(
        reason(&world, POD, outer(OTHER_TRANSIT_TUNNEL, POD_IDENTITY)),
        Reason::Established,
        "of the set"
    );
    assert_eq!(reason(&world, POD, outer(PEER_TUNNEL, POD_IDENTITY)), Reason::Spoofed);
}

#[test]
fn the_previous_identity_is_accepted_while_it_is_leased() {
    let mut world = World::new();
    world.endpoint(PEER).previous = 399;
    let verdict = world.ingress(&udp(PEER, 1, OWN, 2), outer(PEER_TUNNEL, 399));
    assert_eq!(
        (verdict.reason, verdict.identity),
        (Reason::NewAllowed, PEER_IDENTITY),
        "policy uses the table's"
    );
    world.endpoint(PEER).previous = 0;
    assert_eq!(world.ingress(&udp(PEER, 9, OWN, 9), outer(PEER_TUNNEL, 399)).reason, Reason::Spoofed);
}

#[test]
fn an_established_flow_still_compares_the_outer_facts() {
    let world = World::new();
    world.connect();
    let ack = tcp(PEER, 4000, OWN, 80, ACK);
    assert_eq!(world.ingress(&ack, outer("192.0.2.77", PEER_IDENTITY)).reason, Reason::Spoofed);
    assert_eq!(world.ingress(&ack, outer(PEER_TUNNEL, 999)).reason, Reason::Spoofed);
    assert_eq!(world.in_from_peer(&ack), Reason::Established);
}

#[test]
fn only_what_is_for_this_host_comes_in_and_only_its_own_goes_out() {
    let world = World::new();
    assert_eq!(world.in_from_peer(&udp(PEER, 1, POD, 2)), Reason::NotForUs);
    assert_eq!(world.egress(&udp(POD, 1, PEER, 2)).reason, Reason::ForeignSource);
    assert_eq!(world.egress(&udp(OWN, 1, NOBODY, 2)).reason, Reason::UnknownDestination);
    assert_eq!(world.egress(&udp(OWN, 1, OWN, 2)).reason, Reason::UnknownDestination);
    assert_eq!(world.egress(&udp(OWN, 1, "224.0.0.251", 2)).reason, Reason::Multicast);
    assert_eq!(world.egress(&udp(OWN_V6, 1, "ff02::fb", 2)).reason, Reason::Multicast);
    assert_eq!(world.egress(&udp(OWN, 1, "255.255.255.255", 2)).reason, Reason::Multicast);
}

#[test]
fn an_endpoint_without_a_tunnel_is_unreachable() {
    let mut world = World::new();
    world.settings().egress_default = Action::Allow.number();
    world.endpoint(PEER).tunnel = Address::NONE;
    assert_eq!(world.egress(&udp(OWN, 1, PEER, 2)).reason, Reason::UnknownDestination);
    assert_eq!(
        world.ingress(&udp(PEER, 1, OWN, 2), Outer { source: Address::NONE, vni: 301 }).reason,
        Reason::Spoofed
    );
}

#[test]
fn a_new_deny_cuts_an_established_flow_and_a_new_allow_mends_it() {
    let mut world = World::new();
    world.connect();
    world.publish();
    world.rule(Hook::MeshIngress, PEER_IDENTITY, TCP, 80, Action::Deny);
    // A packet of the host triggers it; what counts is who opened the flow.
    let cut = world.egress(&tcp(OWN, 80, PEER, 4000, ACK));
    assert_eq!((cut.reason, cut.rule), (Reason::FlowRefused, 1080));
    assert_eq!(world.model.take_events().last().unwrap().kind, EventKind::Cut.number());
    assert_eq!(world.in_from_peer(&tcp(PEER, 4000, OWN, 80, ACK)), Reason::FlowRefused);
    assert_eq!(world.model.take_events().last().unwrap().kind, EventKind::Dropped.number());
    assert!(world.only_flow().2.is_refused());
    world.publish();
    assert_eq!(world.in_from_peer(&tcp(PEER, 4000, OWN, 80, ACK)), Reason::Established);
}

#[test]
fn a_refused_flow_is_never_taken_for_a_new_one() {
    let mut world = World::new();
    world.settings().egress_default = Action::Allow.number();
    world.connect();
    world.publish();
    world.settings().egress_default = Action::Allow.number();
    world.rule(Hook::MeshIngress, PEER_IDENTITY, TCP, 80, Action::Deny);
    assert_eq!(world.in_from_peer(&tcp(PEER, 4000, OWN, 80, ACK)), Reason::FlowRefused);
    for _ in 0..10 {
        // Packets keep the refusal alive longer than the flow would have lived.
        world.wait(3 * 3600);
        assert_eq!(world.egress(&tcp(OWN, 80, PEER, 4000, ACK)).reason, Reason::FlowRefused);
    }
    assert_eq!(
        world.egress(&tcp(OWN, 80, PEER, 4000, SYN)).reason,
        Reason::NewAllowed,
        "egress may open its own"
    );
}

#[test]
fn a_changed_identity_counts_from_the_next_packet() {
    let mut world = World::new();
    world.connect();
    world.publish();
    world.rule(Hook::MeshIngress, 350, TCP, 80, Action::Deny);
    world.endpoint(PEER).identity = 350;
    world.endpoint(PEER).previous = PEER_IDENTITY;
    assert_eq!(world.in_from_peer(&tcp(PEER, 4000, OWN, 80, ACK)), Reason::FlowRefused);
}

#[test]
fn a_remote_that_left_the_mesh_is_unknown_at_once() {
    let mut world = World::new();
    world.connect();
    world.publish();
    world.remove_endpoint(PEER);
    assert_eq!(world.in_from_peer(&tcp(PEER, 4000, OWN, 80, ACK)), Reason::UnknownSource);
    assert_eq!(world.egress(&tcp(OWN, 80, PEER, 4000, ACK)).reason, Reason::UnknownDestination);
}

#[test]
fn an_address_that_is_no_longer_this_hosts_ends_its_flows() {
    let mut world = World::new();
    world.connect();
    world.publish();
    world.settings().address_v4 = address("10.0.0.77");
    assert_eq!(world.in_from_peer(&tcp(PEER, 4000, OWN, 80, ACK)), Reason::NotForUs);
    assert_eq!(world.egress(&tcp(OWN, 80, PEER, 4000, ACK)).reason, Reason::ForeignSource);
}

#[test]
fn after_a_publication_the_source_is_checked_again() {
    let mut world = World::new();
    world.connect();
    world.publish();
    world.endpoint(PEER).tunnel = address("192.0.2.99");
    // An egress packet proves policy, not what ingress packets carry.
    let verdict = world.egress(&tcp(OWN, 80, PEER, 4000, ACK));
    assert_eq!((verdict.reason, verdict.tunnel), (Reason::Established, address("192.0.2.99")));
    assert_eq!(world.in_from_peer(&tcp(PEER, 4000, OWN, 80, ACK)), Reason::Spoofed);
}

#[test]
fn an_opening_from_the_other_side_is_no_reply() {
    let mut world = World::new();
    world.settings().egress_default = Action::Allow.number();
    world.settings().ingress_default = Action::Deny.number();
    assert_eq!(world.egress(&tcp(OWN, 1000, PEER, 80, SYN)).reason, Reason::NewAllowed);
    assert_eq!(world.in_from_peer(&tcp(PEER, 80, OWN, 1000, SYN_ACK)), Reason::Established);
    assert_eq!(world.in_from_peer(&tcp(PEER, 80, OWN, 1000, SYN)), Reason::PolicyDenied);
    assert_eq!(world.in_from_peer(&tcp(PEER, 80, OWN, 1000, ACK)), Reason::Established, "the flow goes on");
    assert_eq!(world.egress(&echo(OWN, PEER, false, 7)).reason, Reason::NewAllowed);
    assert_eq!(world.in_from_peer(&echo(PEER, OWN, true, 7)), Reason::Established);
    assert_eq!(world.in_from_peer(&echo(PEER, OWN, false, 7)), Reason::PolicyDenied, "the same identifier");
    assert_eq!(world.in_from_peer(&echo(PEER, OWN, true, 8)), Reason::NoFlow);
}

#[test]
fn flows_end_when_nothing_came_for_too_long() {
    let closing: [(&[u8], u64); 2] = [(&[FIN_ACK], 30), (&[RST], 30)];
    for (flags, seconds) in [(&[][..], 6 * 3600)].into_iter().chain(closing) {
        let mut world = World::new();
        world.connect();
        for flag in flags {
            assert_eq!(world.in_from_peer(&tcp(PEER, 4000, OWN, 80, *flag)), Reason::Established);
        }
        world.wait(seconds - 2);
        assert_eq!(world.egress(&tcp(OWN, 80, PEER, 4000, ACK)).reason, Reason::Established);
        world.wait(seconds + 3);
        assert_eq!(world.egress(&tcp(OWN, 80, PEER, 4000, ACK)).reason, Reason::NoFlow);
    }
}

#[test]
fn datagrams_and_half_open_flows_have_their_own_times() {
    let reply = |world: &World| world.egress(&udp(OWN, 53, PEER, 4000)).reason;
    for (is_confirmed, seconds) in [(false, 30), (true, 180)] {
        let mut world = World::new();
        assert_eq!(world.in_from_peer(&udp(PEER, 4000, OWN, 53)), Reason::NewAllowed);
        if is_confirmed {
            assert_eq!(reply(&world), Reason::Established);
        }
        world.wait(seconds - 2);
        let mut later = World { model: world.model.clone(), ..World::new() };
        (later.control, later.now_ns) = (world.control, world.now_ns + 5_000_000_000);
        assert_eq!(reply(&world), Reason::Established);
        assert_eq!(reply(&later), Reason::PolicyDenied, "{seconds}: a datagram opens its own flow then");
    }
    let mut world = World::new();
    assert_eq!(world.in_from_peer(&tcp(PEER, 4000, OWN, 80, SYN)), Reason::NewAllowed);
    world.wait(63);
    assert_eq!(world.egress(&tcp(OWN, 80, PEER, 4000, SYN_ACK)).reason, Reason::NoFlow);
}

#[test]
fn a_syn_on_a_closing_flow_opens_it_anew() {
    let mut world = World::new();
    world.connect();
    assert_eq!(world.in_from_peer(&tcp(PEER, 4000, OWN, 80, RST)), Reason::Established);
    assert_eq!(world.in_from_peer(&tcp(PEER, 4000, OWN, 80, SYN)), Reason::NewAllowed);
    assert!(!world.only_flow().2.is_closing());
    assert_eq!(world.egress(&tcp(OWN, 80, PEER, 4000, SYN_ACK)).reason, Reason::Established);
    assert!(world.only_flow().2.is_confirmed());
    assert_eq!(world.in_from_peer(&tcp(PEER, 4000, OWN, 80, FIN_ACK)), Reason::Established);
    world.rule(Hook::MeshIngress, PEER_IDENTITY, TCP, 80, Action::Deny);
    assert_eq!(world.in_from_peer(&tcp(PEER, 4000, OWN, 80, SYN)), Reason::PolicyDenied);
}

#[test]
fn a_refused_connection_stays_half_open() {
    let world = World::new();
    assert_eq!(world.in_from_peer(&tcp(PEER, 4000, OWN, 80, SYN)), Reason::NewAllowed);
    assert_eq!(world.egress(&tcp(OWN, 80, PEER, 4000, RST)).reason, Reason::Established);
    let (table, _, flow) = world.only_flow();
    assert!(table == FlowTable::HalfOpen && flow.is_closing() && !flow.is_confirmed());
}

#[test]
fn a_flood_evicts_no_confirmed_flow() {
    let world = World::with(Capacity { flows: 4, half_open: 4, ..Capacity::default() });
    world.connect();
    for port in 5000..5100 {
        assert_eq!(world.in_from_peer(&tcp(PEER, port, OWN, 80, SYN)), Reason::NewAllowed);
    }
    assert_eq!(world.model.flows(FlowTable::HalfOpen).len(), 4);
    assert_eq!(world.in_from_peer(&tcp(PEER, 4000, OWN, 80, ACK)), Reason::Established);
}

#[test]
fn without_room_for_a_flow_nothing_is_opened() {
    let world = World::with(Capacity { half_open: 0, ..Capacity::default() });
    assert_eq!(world.in_from_peer(&tcp(PEER, 4000, OWN, 80, SYN)), Reason::FlowTableFull);
    let world = World::with(Capacity { flows: 0, ..Capacity::default() });
    world.connect();
    assert_eq!(world.only_flow().0, FlowTable::HalfOpen, "where it cannot move it stays");
}

#[test]
fn a_slot_that_became_another_flow_is_not_trusted() {
    use crate::Tables as _;
    let world = World::new();
    world.connect();
    let (table, key, mut flow) = world.only_flow();
    flow.tag ^= 1;
    assert!(world.model.insert(table, &key, &flow));
    assert_eq!(world.in_from_peer(&tcp(PEER, 4000, OWN, 80, ACK)), Reason::NoFlow);
}

#[test]
fn fragments_follow_their_first() {
    let mut world = World::new();
    let [first, later] = fragments_v4(&udp(PEER, 4000, OWN, 53), 8, 1);
    assert_eq!(world.in_from_peer(&later), Reason::FragmentOrphan);
    assert_eq!(world.in_from_peer(&first), Reason::NewAllowed);
    assert_eq!(world.in_from_peer(&later), Reason::Established);
    assert_eq!(world.ingress(&later, outer(TRANSIT_TUNNEL, PEER_IDENTITY)).reason, Reason::Spoofed);
    let [_, other] = fragments_v4(&udp(PEER, 4000, OWN, 53), 8, 2);
    assert_eq!(world.in_from_peer(&other), Reason::FragmentOrphan, "of another datagram");
    world.connect();
    let [first, later] = fragments_v4(&tcp(PEER, 4000, OWN, 80, ACK), 24, 3);
    assert_eq!(world.in_from_peer(&first), Reason::Established);
    assert_eq!(world.in_from_peer(&later), Reason::Established);
    world.wait(33);
    assert_eq!(world.in_from_peer(&later), Reason::FragmentOrphan, "of one that nobody reassembles any more");
}

#[test]
fn fragments_of_what_was_refused_are_orphans() {
    let world = World::new();
    let [first, later] = fragments_v4(&udp(OWN, 4000, PEER, 53), 8, 1);
    assert_eq!(world.egress(&first).reason, Reason::PolicyDenied);
    assert_eq!(world.egress(&later).reason, Reason::FragmentOrphan);
    assert!(world.model.fragments().is_empty());
}

#[test]
fn audit_lets_pass_what_policy_denies_and_tells() {
    let mut world = World::new();
    world.settings().flags |= settings_flag::AUDIT;
    let verdict = world.egress(&udp(OWN, 4000, PEER, 53));
    assert_eq!((verdict.reason, verdict.rule), (Reason::Audited, 2));
    assert_eq!(world.model.take_events()[0].kind, EventKind::Audited.number());
    assert_eq!(world.in_from_peer(&udp(PEER, 53, OWN, 4000)), Reason::Established);
    assert_eq!(
        world.ingress(&udp(PEER, 1, OWN, 2), outer(PEER_TUNNEL, 9)).reason,
        Reason::Spoofed,
        "no policy"
    );
    world.publish();
    assert_eq!(world.egress(&udp(OWN, 4000, PEER, 53)).reason, Reason::FlowRefused, "enforced again");
    world.publish();
    assert_eq!(world.egress(&udp(OWN, 4000, PEER, 53)).reason, Reason::Audited);
    assert_eq!(world.egress(&udp(OWN, 4000, PEER, 53)).reason, Reason::Established);
}

#[test]
fn allowed_flows_are_told_if_asked_for() {
    let mut world = World::new();
    assert_eq!(world.in_from_peer(&udp(PEER, 1, OWN, 53)), Reason::NewAllowed);
    assert!(world.model.take_events().is_empty());
    world.settings().flags |= settings_flag::EVENTS_ALLOWED;
    world.rule(Hook::MeshIngress, PEER_IDENTITY, UDP, 53, Action::Allow);
    assert_eq!(world.ingress(&udp(PEER, 2, OWN, 53), from_peer()).rule, 1053);
    let events = world.model.take_events();
    assert_eq!(
        (events[0].kind, events[0].rule, events[0].vni),
        (EventKind::Allowed.number(), 1053, PEER_IDENTITY)
    );
}

#[test]
fn nothing_passes_before_the_first_publication() {
    let mut world = World::new();
    world.model.settings = [None; 2];
    assert_eq!(world.in_from_peer(&udp(PEER, 1, OWN, 2)), Reason::NotPublished);
    let mut world = World::new();
    world.control = crate::abi::Control::UNPUBLISHED;
    assert_eq!(world.egress(&udp(OWN, 1, PEER, 2)).reason, Reason::NotPublished);
}

/// Another CPU may give a slot to another flow at any time: then the packet has no flow, and the slot is left alone.
#[test]
fn a_slot_that_became_another_flows_is_neither_believed_nor_written() {
    for after_loads in 0..2 {
        for stale in [false, true] {
            let mut world = World::new();
            world.connect();
            let (_, key, flow) = world.only_flow();
            let thief = Flow { tag: flow.tag ^ 1, epoch: flow.epoch + u32::from(stale), ..flow };
            world.wait(3);
            for part in [ACK, SYN] {
                world.model.reuse_slot(after_loads, thief);
                let reason = world.in_from_peer(&tcp(PEER, 4000, OWN, 80, part));
                let expected = if part == SYN { Reason::NewAllowed } else { Reason::NoFlow };
                assert_eq!(reason, expected, "after {after_loads} reads");
                let flows = world.model.flows(FlowTable::Confirmed);
                assert_eq!(flows.get(&key), Some(&thief), "after {after_loads} reads");
            }
        }
    }
}
