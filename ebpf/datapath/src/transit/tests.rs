use crate::{
    Reason, Verdict,
    abi::{Hook, endpoint_flag, settings_flag},
    decide,
    model::Frame,
    testing::{
        NOBODY, OWN, OWN_IDENTITY, OWN_V6, PEER, PEER_IDENTITY, PEER_TUNNEL, PEER_V6, POD, POD_IDENTITY,
        TRANSIT, TRANSIT_TUNNEL, World, address, fragments_v4, from_peer, outer, tcp, udp, unreachable,
    },
};

const SYN_ACK: u8 = 0x12;

/// This host as a transit node with the pod behind it.
fn transit() -> World {
    let mut world = World::new();
    world.settings().flags |= settings_flag::TRANSIT;
    world.endpoint(POD).flags = endpoint_flag::BEHIND;
    world.endpoint(POD).tunnel = crate::Address::NONE;
    world.endpoint(POD).mark = POD_IDENTITY;
    world
}

#[test]
fn packets_for_endpoints_behind_it_and_for_itself_come_in() {
    let world = transit();
    for destination in [POD, OWN] {
        let verdict = world.ingress(&udp(PEER, 1, destination, 2), from_peer());
        assert_eq!((verdict.reason, verdict.identity), (Reason::Forwarded, PEER_IDENTITY));
    }
    assert_eq!(world.in_from_peer(&udp(PEER, 1, NOBODY, 2)), Reason::NotForUs);
    assert_eq!(world.flow_count(), 0);
}

#[test]
fn the_source_is_checked_on_every_packet() {
    let world = transit();
    assert_eq!(
        world.ingress(&udp(PEER, 1, POD, 2), outer(TRANSIT_TUNNEL, PEER_IDENTITY)).reason,
        Reason::Spoofed
    );
    assert_eq!(
        world.ingress(&udp(PEER, 1, POD, 2), outer(PEER_TUNNEL, POD_IDENTITY)).reason,
        Reason::Spoofed
    );
    assert_eq!(world.in_from_peer(&udp(NOBODY, 1, POD, 2)), Reason::UnknownSource);
    assert_eq!(world.in_from_peer(&udp(OWN, 1, POD, 2)), Reason::Spoofed);
}

#[test]
fn only_endpoints_behind_it_and_itself_go_out_with_their_mark() {
    let world = transit();
    for (source, mark) in [(POD, POD_IDENTITY), (OWN, OWN_IDENTITY)] {
        let verdict = world.egress(&udp(source, 1, PEER, 2));
        assert_eq!((verdict.reason, verdict.mark), (Reason::Forwarded, mark));
        assert_eq!(verdict.tunnel, address(PEER_TUNNEL));
    }
    assert_eq!(
        world.egress(&udp(TRANSIT, 1, PEER, 2)).reason,
        Reason::ForeignSource,
        "another's mesh address"
    );
    assert_eq!(world.egress(&udp(NOBODY, 1, PEER, 2)).reason, Reason::ForeignSource);
    assert_eq!(world.egress(&udp(POD, 1, NOBODY, 2)).reason, Reason::UnknownDestination);
    assert_eq!(world.egress(&udp(POD, 1, OWN, 2)).reason, Reason::UnknownDestination);
    assert_eq!(world.egress(&udp(POD, 1, "224.0.0.1", 2)).reason, Reason::Multicast);
}

#[test]
fn it_keeps_no_state() {
    let world = transit();
    assert_eq!(world.egress(&tcp(POD, 80, PEER, 4000, SYN_ACK)).reason, Reason::Forwarded);
    let [_, later] = fragments_v4(&udp(POD, 1, PEER, 2), 8, 1);
    assert_eq!(world.egress(&later).reason, Reason::Forwarded);
    assert_eq!(world.flow_count(), 0);
    assert!(world.model.fragments().is_empty());
}

#[test]
fn a_router_behind_it_may_report_about_packets_to_its_endpoints() {
    let world = transit();
    let about_pod = udp(PEER, 1, POD, 2);
    let report = world.egress(&unreachable(NOBODY, PEER, &about_pod, 1000));
    assert_eq!((report.reason, report.mark), (Reason::Forwarded, OWN_IDENTITY));
    let about_other = udp(PEER, 1, TRANSIT, 2);
    assert_eq!(world.egress(&unreachable(NOBODY, PEER, &about_other, 1000)).reason, Reason::ForeignSource);
    let to_another = udp(TRANSIT, 1, POD, 2);
    assert_eq!(world.egress(&unreachable(NOBODY, PEER, &to_another, 1000)).reason, Reason::ForeignSource);
    assert_eq!(world.egress(&unreachable(NOBODY, PEER, &about_pod, 10)).reason, Reason::ForeignSource);
    assert_eq!(world.egress(&unreachable(TRANSIT, PEER, &about_pod, 1000)).reason, Reason::ForeignSource);
}

/// Decides about a frame at a hook.
fn at(world: &World, hook: Hook, frame: &Frame<'_>) -> Verdict {
    decide(frame, &from_peer(), &world.moment(hook), &world.model)
}

fn relaying() -> World {
    let mut world = transit();
    let far = *world.endpoint(TRANSIT);
    *world.endpoint(OWN_V6) = crate::abi::EndpointEntry { mark: 77, ..far };
    for peer in [PEER, PEER_V6] {
        world.endpoint(peer).mark = PEER_IDENTITY;
    }
    world
}

#[test]
fn what_is_for_another_tunnel_is_sent_on_with_the_senders_mark() {
    let world = relaying();
    for packet in [udp(PEER, 1, TRANSIT, 2), udp(PEER_V6, 1, OWN_V6, 2)] {
        let verdict = at(&world, Hook::MeshIngress, &Frame::of_ip(&packet));
        assert_eq!((verdict.reason, verdict.tunnel), (Reason::Relayed, address(TRANSIT_TUNNEL)));
        let passing = Frame { ifindex: 5, arrived_by: 5, ..Frame::of_ip(&packet) };
        let verdict = at(&world, Hook::MeshEgress, &passing);
        assert_eq!((verdict.reason, verdict.mark), (Reason::Relayed, PEER_IDENTITY));
        assert_eq!(verdict.tunnel, address(TRANSIT_TUNNEL));
        for arrived_by in [0, 4] {
            let local = Frame { arrived_by, ..passing };
            assert_eq!(at(&world, Hook::MeshEgress, &local).reason, Reason::ForeignSource);
        }
    }
    let spoofed = world.ingress(&udp(PEER, 1, TRANSIT, 2), outer(TRANSIT_TUNNEL, PEER_IDENTITY));
    assert_eq!(spoofed.reason, Reason::Spoofed);
}

#[test]
fn what_needs_more_than_a_hop_less_goes_to_the_kernel() {
    let mut world = relaying();
    for (mut packet, hops) in [(udp(PEER, 1, TRANSIT, 2), 8), (udp(PEER_V6, 1, OWN_V6, 2), 7)] {
        let fits = u32::try_from(packet.len()).unwrap();
        for (mtu, expected) in [
            (fits, Reason::Relayed),
            (fits - 1, Reason::GivenToKernel),
            (0, Reason::NotForUs),
            (1450, Reason::Relayed),
        ] {
            world.settings().mtu = mtu;
            let verdict = at(&world, Hook::MeshIngress, &Frame::of_ip(&packet));
            assert_eq!(verdict.reason, expected, "{mtu}");
        }
        packet[hops] = 1;
        let verdict = at(&world, Hook::MeshIngress, &Frame::of_ip(&packet));
        assert_eq!((verdict.reason, verdict.tunnel), (Reason::GivenToKernel, crate::Address::NONE));
    }
}

#[test]
fn fragments_of_ipv4_stay_in_order() {
    let world = relaying();
    for fragment in fragments_v4(&udp(PEER, 1, TRANSIT, 2), 8, 1) {
        let verdict = at(&world, Hook::MeshIngress, &Frame::of_ip(&fragment));
        assert_eq!(verdict.reason, Reason::GivenToKernel);
    }
}

/// The kernel's own routes lead there past the mesh, where the other end takes nothing.
#[test]
fn nothing_for_nodes_behind_it_is_left_to_the_kernels_routes() {
    let mut world = relaying();
    for (at_node, other) in [(TRANSIT, PEER), (PEER, TRANSIT)] {
        world.endpoint(at_node).flags |= endpoint_flag::PAST_MESH;
        world.settings().mtu = 1450;
        for fragment in fragments_v4(&udp(PEER, 1, TRANSIT, 2), 8, 1) {
            let verdict = at(&world, Hook::MeshIngress, &Frame::of_ip(&fragment));
            assert_eq!(
                (verdict.reason, verdict.tunnel),
                (Reason::Relayed, address(TRANSIT_TUNNEL)),
                "{other}"
            );
        }
        world.settings().mtu = 20;
        let large = at(&world, Hook::MeshIngress, &Frame::of_ip(&udp(PEER, 1, TRANSIT, 2)));
        let to_node = at_node == TRANSIT;
        assert_eq!(large.reason, if to_node { Reason::RelayTooLarge } else { Reason::GivenToKernel });
        let mut last_hop = udp(PEER, 1, TRANSIT, 2);
        last_hop[8] = 1;
        let verdict = at(&world, Hook::MeshIngress, &Frame::of_ip(&last_hop));
        assert_eq!(verdict.reason, Reason::GivenToKernel, "which only answers");
        world.endpoint(at_node).flags &= !endpoint_flag::PAST_MESH;
    }
}

#[test]
fn of_a_super_packet_each_part_has_to_fit() {
    let world = relaying();
    let packets = [(tcp(PEER, 1, TRANSIT, 2, 0x10), 40), (udp(PEER, 1, TRANSIT, 2), 28)];
    for (packet, headers) in packets {
        for (segment_size, expected) in
            [(1450 - headers, Reason::Relayed), (1451 - headers, Reason::GivenToKernel)]
        {
            let frame = Frame { segment_size, ..Frame::of_ip(&packet) };
            assert_eq!(at(&world, Hook::MeshIngress, &frame).reason, expected, "{segment_size}");
        }
    }
}
