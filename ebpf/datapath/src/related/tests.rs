use crate::{
    Action, Reason,
    abi::Hook,
    testing::{
        NOBODY, OTHER_TRANSIT_TUNNEL, OWN, OWN_V6, PEER, PEER_IDENTITY, PEER_TUNNEL, PEER_V6, POD,
        POD_IDENTITY, SYN, TRANSIT, TRANSIT_IDENTITY, TRANSIT_TUNNEL, World, echo, fragments_v4, from_pod,
        outer, tcp, udp, unreachable,
    },
};

const ALL: usize = 1000;

fn open() -> World {
    let mut world = World::new();
    world.settings().egress_default = Action::Allow.number();
    world
}

#[test]
fn an_error_about_a_live_flow_passes_in_both_families_and_directions() {
    for (own, peer) in [(OWN, PEER), (OWN_V6, PEER_V6)] {
        let world = open();
        let sent = udp(own, 4000, peer, 53);
        assert_eq!(world.egress(&sent).reason, Reason::NewAllowed);
        assert_eq!(world.in_from_peer(&unreachable(peer, own, &sent, ALL)), Reason::Related);
        let received = udp(peer, 9000, own, 9);
        assert_eq!(world.in_from_peer(&received), Reason::NewAllowed);
        let answer = world.egress(&unreachable(own, peer, &received, ALL));
        assert_eq!((answer.reason, answer.identity), (Reason::Related, PEER_IDENTITY));
        assert_eq!(answer.tunnel, crate::testing::address(PEER_TUNNEL));
    }
}

#[test]
fn an_error_about_no_flow_of_this_host_is_unrelated() {
    let world = open();
    let sent = udp(OWN, 4000, PEER, 53);
    assert_eq!(world.in_from_peer(&unreachable(PEER, OWN, &sent, ALL)), Reason::IcmpUnrelated, "never sent");
    assert_eq!(world.egress(&sent).reason, Reason::NewAllowed);
    let other = udp(OWN, 4001, PEER, 53);
    assert_eq!(world.in_from_peer(&unreachable(PEER, OWN, &other, ALL)), Reason::IcmpUnrelated);
    let reversed = udp(PEER, 53, OWN, 4000);
    assert_eq!(
        world.in_from_peer(&unreachable(PEER, OWN, &reversed, ALL)),
        Reason::IcmpUnrelated,
        "not ours"
    );
    let [_, later] = fragments_v4(&sent, 8, 1);
    assert_eq!(
        world.in_from_peer(&unreachable(PEER, OWN, &later, ALL)),
        Reason::IcmpUnrelated,
        "has no ports"
    );
    let error = unreachable(PEER, OWN, &sent, ALL);
    assert_eq!(
        world.in_from_peer(&unreachable(PEER, OWN, &error, ALL)),
        Reason::IcmpUnrelated,
        "about an error"
    );
    let mut world = world;
    world.wait(33);
    assert_eq!(
        world.in_from_peer(&unreachable(PEER, OWN, &sent, ALL)),
        Reason::IcmpUnrelated,
        "no longer live"
    );
}

#[test]
fn an_error_goes_only_to_the_sender_of_what_it_quotes() {
    let world = open();
    let received = udp(PEER, 9000, OWN, 9);
    assert_eq!(world.in_from_peer(&received), Reason::NewAllowed);
    assert_eq!(world.egress(&unreachable(OWN, POD, &received, ALL)).reason, Reason::IcmpUnrelated);
}

#[test]
fn the_ports_have_to_be_quoted_and_no_more() {
    let world = open();
    for (sent, ports) in
        [(tcp(OWN, 4000, PEER, 80, SYN), 24), (udp(OWN, 4000, PEER, 53), 24), (echo(OWN, PEER, false, 7), 28)]
    {
        assert_eq!(world.egress(&sent).reason, Reason::NewAllowed);
        for quoted in 0..=sent.len() {
            let expected = if quoted >= ports { Reason::Related } else { Reason::IcmpUnrelated };
            assert_eq!(
                world.in_from_peer(&unreachable(PEER, OWN, &sent, quoted)),
                expected,
                "{quoted} bytes"
            );
        }
    }
}

#[test]
fn what_stands_behind_the_end_of_an_error_is_not_quoted() {
    let world = open();
    let mut sent = udp(OWN, 4000, PEER, 53);
    // A protocol without ports: nothing behind its IP header has to be quoted.
    sent[9] = 47;
    assert_eq!(world.egress(&sent).reason, Reason::NewAllowed);
    assert_eq!(world.in_from_peer(&unreachable(PEER, OWN, &sent, 20)), Reason::Related);
    let mut padded = unreachable(PEER, OWN, &sent, 0);
    padded.extend_from_slice(&sent);
    assert_eq!(world.in_from_peer(&padded), Reason::IcmpUnrelated);
}

#[test]
fn the_tunnel_has_to_be_one_of_the_remote() {
    let world = open();
    let sent = udp(OWN, 4000, PEER, 53);
    assert_eq!(world.egress(&sent).reason, Reason::NewAllowed);
    let error = unreachable(PEER, OWN, &sent, ALL);
    assert_eq!(world.ingress(&error, outer("192.0.2.77", PEER_IDENTITY)).reason, Reason::Spoofed);
    assert_eq!(world.ingress(&error, outer(PEER_TUNNEL, POD_IDENTITY)).reason, Reason::Spoofed);
    let by_transit = unreachable(TRANSIT, OWN, &sent, ALL);
    let reason = world.ingress(&by_transit, outer(TRANSIT_TUNNEL, TRANSIT_IDENTITY)).reason;
    assert_eq!(reason, Reason::Spoofed, "a transit node that the peer is not behind");
}

#[test]
fn transit_nodes_and_routers_on_the_way_may_report() {
    let world = open();
    let sent = udp(OWN, 4000, POD, 53);
    assert_eq!(world.egress(&sent).reason, Reason::NewAllowed);
    let by_transit = unreachable(TRANSIT, OWN, &sent, ALL);
    assert_eq!(world.ingress(&by_transit, outer(TRANSIT_TUNNEL, TRANSIT_IDENTITY)).reason, Reason::Related);
    assert_eq!(world.ingress(&by_transit, outer(TRANSIT_TUNNEL, POD_IDENTITY)).reason, Reason::Spoofed);
    let by_router = unreachable(NOBODY, OWN, &sent, ALL);
    for vni in [TRANSIT_IDENTITY, POD_IDENTITY] {
        assert_eq!(world.ingress(&by_router, outer(OTHER_TRANSIT_TUNNEL, vni)).reason, Reason::Related);
    }
    assert_eq!(world.ingress(&by_router, outer(OTHER_TRANSIT_TUNNEL, PEER_IDENTITY)).reason, Reason::Spoofed);
    assert_eq!(world.ingress(&by_router, outer(PEER_TUNNEL, TRANSIT_IDENTITY)).reason, Reason::Spoofed);
}

#[test]
fn an_error_opens_nothing_and_keeps_nothing_alive() {
    let mut world = open();
    let sent = udp(OWN, 4000, PEER, 53);
    assert_eq!(world.egress(&sent).reason, Reason::NewAllowed);
    let before = world.only_flow();
    world.wait(20);
    assert_eq!(world.in_from_peer(&unreachable(PEER, OWN, &sent, ALL)), Reason::Related);
    assert_eq!(world.only_flow(), before);
}

#[test]
fn an_error_about_a_flow_that_policy_refuses_now_is_dropped() {
    let mut world = open();
    let sent = udp(OWN, 4000, PEER, 53);
    assert_eq!(world.egress(&sent).reason, Reason::NewAllowed);
    world.publish();
    assert_eq!(world.in_from_peer(&unreachable(PEER, OWN, &sent, ALL)), Reason::IcmpUnrelated);
    assert!(world.only_flow().2.is_refused());
    assert_eq!(world.egress(&sent).reason, Reason::FlowRefused);
    assert_eq!(world.model.counter(Hook::MeshIngress, Reason::IcmpUnrelated).packets, 1);
}

#[test]
fn a_foreign_source_reports_nothing() {
    let world = open();
    let received = udp(POD, 9000, OWN, 9);
    assert_eq!(world.ingress(&received, from_pod()).reason, Reason::NewAllowed);
    assert_eq!(world.egress(&unreachable(PEER, POD, &received, ALL)).reason, Reason::ForeignSource);
}
