//! Rows of packets, publications and waits, decided by the datapath over lowered tables and by a second reading that
//! knows flows as the documentation tells them and policy as the specification does.

mod packet;
mod reference;
mod world;

use std::collections::BTreeSet;

use datapath::abi::Hook;
use datapath::model::{Frame, Model};
use datapath::{Direction, FlowTable, Moment, Outer, Reason, decide, ticks};

use super::choices::Choices;
use packet::Sent;
use reference::Reference;
use world::World;

/// Whatever the row: every packet ends for the reason of the second reading, leaves by the tunnel and with the mark
/// of its remote, and the flows that are kept at the end are the same. So a packet passes if and only if the policy
/// in force allows its flow from its opener's side and its sender may speak, a denied new packet leaves no entry, and
/// a refused flow stays refused until a publication allows it or it is over.
///
/// # Panics
///
/// If that is not so.
pub fn flows(data: &[u8]) {
    let mut choices = Choices::new(data);
    let mut model = Model::default();
    let mut world = World::first(&mut choices);
    world.fill(&mut model);
    let mut reference = Reference::default();
    let mut earlier: Vec<Sent> = Vec::new();
    let mut now_ns = 1_u64 << 40;
    while !choices.is_empty() {
        match choices.byte() % 16 {
            0 => {
                world = world.next(&mut choices);
                world.fill(&mut model);
            }
            1 => {
                let seconds = choices.one_of(&[1, 29, 31, 59, 61, 179, 181, 599, 601, 21_599, 21_601]);
                now_ns += u64::from(ticks(seconds)) << 30;
            }
            _ => {
                let sent = packet::choose(&mut choices, &world, &earlier);
                let moment = Moment { hook: hook(sent.direction), control: world.control, now_ns };
                step(&model, &moment, &world, &sent, &mut reference);
                earlier.push(sent);
            }
        }
        // Each has its own time: recency in the model is exact, and nothing here evicts.
        now_ns += 1 << 20;
    }
    let kept: BTreeSet<_> = [FlowTable::Confirmed, FlowTable::HalfOpen]
        .into_iter()
        .flat_map(|table| model.flows(table))
        .map(|(key, _)| key)
        .collect();
    assert_eq!(kept, reference.keys(), "other flows are kept");
}

const fn hook(direction: Direction) -> Hook {
    match direction {
        Direction::Ingress => Hook::MeshIngress,
        Direction::Egress => Hook::MeshEgress,
    }
}

fn step(model: &Model, moment: &Moment, world: &World, sent: &Sent, reference: &mut Reference) {
    let frame = Frame { ifindex: 1, ..Frame::of_ip(&sent.bytes) };
    let before = (model.flows(FlowTable::Confirmed), model.flows(FlowTable::HalfOpen));
    let verdict = decide(&frame, &sent.outer, moment, model);
    let expected = reference.decide(world, sent, moment.tick());
    assert_eq!(verdict.reason, expected, "{sent:?} in {world:?} with {reference:?}");
    if verdict.reason == Reason::PolicyDenied || verdict.reason == Reason::NoFlow {
        let after = (model.flows(FlowTable::Confirmed), model.flows(FlowTable::HalfOpen));
        assert_eq!(before, after, "a packet that was denied left something");
    }
    if verdict.reason.passes() && sent.direction == Direction::Egress {
        let remote = sent.quoted.as_ref().map_or(sent.key.remote, |quoted| quoted.remote);
        let peer = world.peer(remote).map(|peer| peer.tunnel);
        assert_eq!(Some(verdict.tunnel), peer, "{sent:?} leaves by another tunnel");
        assert_eq!(verdict.mark, world.mark, "{sent:?}");
    }
    assert!(sent.outer == Outer::NONE || sent.direction == Direction::Ingress);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// What rows of packets made of these bytes end as.
    fn reached(rounds: u64) -> BTreeMap<Reason, u32> {
        use rand::{RngExt, SeedableRng};
        let mut random = rand::rngs::StdRng::seed_from_u64(3);
        let mut reached = BTreeMap::new();
        for _ in 0..rounds {
            let bytes: Vec<u8> = (0..400).map(|_| random.random()).collect();
            let mut choices = Choices::new(&bytes);
            let mut model = Model::default();
            let world = World::first(&mut choices);
            world.fill(&mut model);
            let mut earlier = Vec::new();
            while !choices.is_empty() {
                let sent = packet::choose(&mut choices, &world, &earlier);
                let moment = Moment { hook: hook(sent.direction), control: world.control, now_ns: 1 << 40 };
                let verdict = decide(&Frame::of_ip(&sent.bytes), &sent.outer, &moment, &model);
                *reached.entry(verdict.reason).or_default() += 1;
                earlier.push(sent);
            }
        }
        reached
    }

    #[test]
    fn random_rows_reach_what_they_are_about() {
        let reached = reached(300);
        for reason in [
            Reason::Established,
            Reason::NewAllowed,
            Reason::Related,
            Reason::Audited,
            Reason::PolicyDenied,
            Reason::UnknownSource,
            Reason::Spoofed,
            Reason::ForeignSource,
            Reason::UnknownDestination,
            Reason::NotForUs,
            Reason::FragmentOrphan,
            Reason::IcmpUnrelated,
            Reason::NoTunnelKey,
            Reason::NoFlow,
        ] {
            assert!(reached.get(&reason).is_some_and(|count| *count > 5), "{}: {reached:?}", reason.name());
        }
    }
}
