use crate::{
    Reason,
    abi::{CidrKey, Control, Hook, PrefixEntry, PrefixKey, settings_flag},
    ethertype, guard,
    model::Frame,
    testing::{OWN, OWN_V6, PEER, PEER_V6, World, address, fragments_v4, udp, unreachable},
};

const OUTSIDE: &str = "198.51.100.7";
const OUTSIDE_V6: &str = "2001:db8::7";

fn world() -> World {
    let mut world = World::new();
    for (prefix, bits) in [("10.0.0.0", 96 + 8), ("fd00::", 8)] {
        let prefix_len = CidrKey::BASE_BITS + bits;
        let key = PrefixKey { prefix_len, bank: 0, reserved: [0; 3], address: address(prefix) };
        world.model.prefixes.insert(key, PrefixEntry::default());
    }
    world
}

fn passes(world: &World, hook: Hook, packet: &[u8]) -> bool {
    guard(&Frame::of_ip(packet), &world.moment(hook), &world.model)
}

#[test]
fn bare_packets_of_the_mesh_are_dropped_and_told() {
    let world = world();
    for (from, to, reason) in [
        (OUTSIDE, OWN, Reason::GuardDestination),
        (OUTSIDE_V6, OWN_V6, Reason::GuardDestination),
        (PEER, OUTSIDE, Reason::GuardSource),
        (PEER_V6, OUTSIDE_V6, Reason::GuardSource),
    ] {
        assert!(!passes(&world, Hook::GuardIngress, &udp(from, 1, to, 2)), "{from} to {to}");
        assert_eq!(world.model.take_events()[0].reason, reason.number());
    }
    assert_eq!(world.model.counter(Hook::GuardIngress, Reason::GuardSource).packets, 2);
    assert!(passes(&world, Hook::GuardIngress, &udp(OUTSIDE, 1, "198.51.100.8", 2)));
    assert!(
        passes(&world, Hook::GuardIngress, &udp(OUTSIDE, 1, PEER, 2)),
        "not for this host: its own affair"
    );
    assert!(world.model.take_events().is_empty());
}

/// Threat row 29: the kernel strips tags of VLAN 0 and delivers what they hide.
#[test]
fn tags_within_tags_hide_nothing() {
    let world = world();
    let untagged = udp(OUTSIDE, 1, "198.51.100.8", 2);
    let below = |tag: [u8; 2]| [&tag, &[0x08, 0x00], untagged.as_slice()].concat();
    let passes = |number: u16, bytes: &[u8]| {
        let frame = Frame { ethertype: number, ..Frame::of_ip(bytes) };
        guard(&frame, &world.moment(Hook::GuardIngress), &world.model)
    };
    for number in [ethertype::VLAN, ethertype::SERVICE_VLAN] {
        assert!(!passes(number, &below([0xe0, 0x00])));
        assert_eq!(world.model.take_events()[0].reason, Reason::UnknownEtherType.number());
        assert!(passes(number, &below([0xe0, 0x07])), "of VLAN 7: its device has a guard");
        assert!(passes(number, &[0xe0]), "the kernel drops what is cut off");
    }
    assert!(passes(0, &untagged), "of a VLAN: its device has a guard");
}

#[test]
fn egress_to_the_mesh_is_refused_if_the_settings_say_so() {
    let mut world = world();
    assert!(passes(&world, Hook::GuardEgress, &udp(OUTSIDE, 1, PEER, 2)));
    world.settings().flags |= settings_flag::GUARD_EGRESS;
    assert!(!passes(&world, Hook::GuardEgress, &udp(OUTSIDE, 1, PEER, 2)));
    assert!(!passes(&world, Hook::GuardEgress, &udp(OUTSIDE_V6, 1, PEER_V6, 2)));
    assert!(passes(&world, Hook::GuardEgress, &udp(OWN, 1, OUTSIDE, 2)));
}

#[test]
fn a_host_is_never_locked_out() {
    let mut world = world();
    let packet = udp(OUTSIDE, 1, OWN, 2);
    assert!(passes(&world, Hook::GuardIngress, &packet[..19]), "what cannot be read");
    let arp = Frame { ethertype: 0x0806, ..Frame::of_ip(&packet) };
    assert!(guard(&arp, &world.moment(Hook::GuardIngress), &world.model));
    world.control = Control::UNPUBLISHED;
    assert!(passes(&world, Hook::GuardIngress, &packet));
    assert_eq!(world.model.counter(Hook::GuardIngress, Reason::NotPublished).packets, 1);
}

#[test]
fn errors_about_the_mesh_address_are_dropped_and_others_are_not() {
    let mut world = world();
    for (router, card, own, peer) in
        [(OUTSIDE, "198.51.100.8", OWN, PEER), (OUTSIDE_V6, "2001:db8::8", OWN_V6, PEER_V6)]
    {
        let sent = udp(own, 80, peer, 4000);
        let error = unreachable(router, card, &sent, 1000);
        assert!(!passes(&world, Hook::GuardIngress, &error), "{router}");
        assert_eq!(world.model.take_events()[0].reason, Reason::IcmpUnrelated.number());
        assert!(passes(&world, Hook::GuardEgress, &error), "outward it is nobody's business");
        // Cut behind the addresses: the kernel would look for its ports in what is there.
        assert!(!passes(&world, Hook::GuardIngress, &unreachable(router, card, &sent, sent.len() - 8)));
        // About what the tunnel itself sent, or what the host sent outside of the mesh.
        assert!(passes(
            &world,
            Hook::GuardIngress,
            &unreachable(router, card, &udp(card, 1, router, 2), 1000)
        ));
        world.settings().flags |= settings_flag::TRANSIT;
        assert!(passes(&world, Hook::GuardIngress, &error), "pods behind a transit node may");
        world.settings().flags &= !settings_flag::TRANSIT;
    }
    let error = unreachable(OUTSIDE, "198.51.100.8", &udp(OWN, 80, PEER, 4000), 1000);
    let [first, later] = fragments_v4(&error, 8, 7);
    assert!(!passes(&world, Hook::GuardIngress, &first), "what it quotes would come later");
    assert!(passes(&world, Hook::GuardIngress, &later));
}
