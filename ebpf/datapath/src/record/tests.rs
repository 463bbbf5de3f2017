use crate::{
    Reason,
    abi::Hook,
    model::Capacity,
    testing::{NOBODY, OWN, PEER, World, echo, udp},
};

const SPOOFED: usize = 300;

#[test]
fn a_flood_is_counted_whole_and_told_in_samples() {
    let mut world = World::new();
    for _ in 0..SPOOFED {
        assert_eq!(world.in_from_peer(&udp(NOBODY, 1, OWN, 2)), Reason::UnknownSource);
    }
    assert_eq!(world.model.take_events().len(), 100, "a full bucket");
    let counter = world.model.counter(Hook::MeshIngress, Reason::UnknownSource);
    assert_eq!((counter.packets, counter.bytes), (300, 300 * 32));
    assert_eq!(world.egress(&udp(OWN, 1, PEER, 2)).reason, Reason::PolicyDenied);
    assert_eq!(world.model.take_events().len(), 1, "other reasons have their own bucket");
    world.wait(1);
    for _ in 0..SPOOFED {
        world.in_from_peer(&udp(NOBODY, 1, OWN, 2));
    }
    let events = world.model.take_events();
    assert_eq!((events.len(), events[0].suppressed, events[1].suppressed), (100, 200, 0));
}

#[test]
fn events_that_the_ring_has_no_room_for_are_counted_as_left_out() {
    let world = World::with(Capacity { events: 1, ..Capacity::default() });
    for _ in 0..3 {
        world.in_from_peer(&udp(NOBODY, 1, OWN, 2));
    }
    assert_eq!(world.model.take_events().len(), 1);
    world.in_from_peer(&udp(NOBODY, 1, OWN, 2));
    assert_eq!(world.model.take_events()[0].suppressed, 2);
}

#[test]
fn events_of_icmp_name_type_and_code() {
    let world = World::new();
    world.egress(&echo(OWN, PEER, false, 7));
    let event = world.model.take_events()[0];
    assert_eq!((event.source_port.0, event.destination_port.0, event.protocol), ([8, 0], [0, 0], 1));
}
