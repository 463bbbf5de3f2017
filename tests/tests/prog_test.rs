//! Law: the kernel agrees with the host build, packet for packet, on random sequences.

use std::collections::BTreeMap;

use datapath::abi::{Bank, Control, EndpointEntry, EndpointKey, Hook, Settings, counter_slot, endpoint_flag};
use datapath::model::Model;
use datapath::{Action, Address, FlowTable, Outer, Reason};
use e2e::prog_test::compare::sequence;
use e2e::prog_test::frames::{ethernet, ipv4, tcp, udp};
use e2e::prog_test::kernel::{DROPPED, Kernel, PASSED, Rotation, control_buffer, object};
use e2e::prog_test::mesh::address;

const SEQUENCES: u64 = 60;
const PACKETS: u32 = 400;

/// What packets on the mesh device can end as; the sequences have to reach all of it.
const REACHED: [(Hook, &[Reason]); 4] = [
    (
        Hook::MeshIngress,
        &[
            Reason::Established,
            Reason::NewAllowed,
            Reason::Related,
            Reason::Forwarded,
            Reason::Audited,
            Reason::PolicyDenied,
            Reason::FlowRefused,
            Reason::UnknownSource,
            Reason::Spoofed,
            Reason::NotForUs,
            Reason::Malformed,
            Reason::UnknownEtherType,
            Reason::UnknownExtension,
            Reason::FragmentOrphan,
            Reason::IcmpUnrelated,
            Reason::Arp,
            Reason::NeighbourDiscovery,
            Reason::NoTunnelKey,
            Reason::NoFlow,
            Reason::SourceRoute,
        ],
    ),
    (
        Hook::MeshEgress,
        &[
            Reason::Established,
            Reason::NewAllowed,
            Reason::Related,
            Reason::Forwarded,
            Reason::Audited,
            Reason::PolicyDenied,
            Reason::FlowRefused,
            Reason::ForeignSource,
            Reason::UnknownDestination,
            Reason::Malformed,
            Reason::UnknownEtherType,
            Reason::UnknownExtension,
            Reason::FragmentOrphan,
            Reason::IcmpUnrelated,
            Reason::Arp,
            Reason::NeighbourDiscovery,
            Reason::Multicast,
            Reason::NoFlow,
            Reason::SourceRoute,
        ],
    ),
    (Hook::GuardIngress, &[Reason::GuardDestination, Reason::GuardSource]),
    (Hook::GuardEgress, &[Reason::GuardDestination]),
];

#[test]
fn the_kernel_agrees_with_the_host_build() {
    let seed = std::env::var("OUTRIGGER_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1_u64);
    println!("first seed {seed}; OUTRIGGER_SEED runs others");
    let mut kernel = Kernel::load().unwrap();
    let mut counts = BTreeMap::new();
    for seed in seed..seed + SEQUENCES {
        for (reason, count) in sequence(&mut kernel, seed, PACKETS).unwrap().reasons {
            *counts.entry(reason).or_insert(0) += count;
        }
    }
    println!("{counts:#?}");
    for (hook, reasons) in REACHED {
        for reason in reasons {
            assert!(
                counts.contains_key(&(hook, *reason)),
                "no packet of {hook:?} ended as {}",
                reason.name()
            );
        }
    }
}

#[test]
fn stubs_call_the_program_of_the_set_or_fail_as_they_should() {
    let mut kernel = Kernel::load().unwrap();
    let frame = ethernet(&ipv4(address("198.51.100.1"), address("10.0.0.1"), 17, [0; 4], &udp(1, 2)));
    let run = |kernel: &Kernel, hook: Hook| {
        kernel.run(&format!("stub_{}", hook.program()), &frame, [0; 5]).unwrap().action
    };
    kernel.publish(Control::new(Bank::A, 2, 1)).unwrap();
    for (hook, action) in Hook::ALL.into_iter().zip([DROPPED, DROPPED, PASSED, PASSED]) {
        assert_eq!(run(&kernel, hook), action, "{hook:?} without a program");
        let counters = kernel.counters().unwrap();
        let missed = counters.iter().find(|(slot, _)| *slot == counter_slot(hook, Reason::MissedTailCall));
        assert_eq!(missed.map(|(_, counter)| counter.packets), Some(1));
    }
    let mut programs = kernel.fill_programs(2).unwrap();
    for (hook, reason) in
        [(Hook::MeshIngress, Reason::NoTunnelKey), (Hook::MeshEgress, Reason::ForeignSource)]
    {
        assert_eq!(run(&kernel, hook), DROPPED);
        let counters = kernel.counters().unwrap();
        assert!(
            counters.iter().any(|(slot, _)| *slot == counter_slot(hook, reason)),
            "{hook:?}: {counters:?}"
        );
    }
    assert_eq!(run(&kernel, Hook::GuardIngress), PASSED);
    for hook in Hook::ALL {
        programs.clear_index(&hook.program_index(2)).unwrap();
    }
    assert_eq!(run(&kernel, Hook::MeshEgress), DROPPED);
}

/// One peer that may do everything.
fn open_mesh() -> Model {
    let mut model = Model::default();
    let own = EndpointEntry {
        identity: 200,
        previous: 0,
        mark: 200,
        tunnel_set: 0,
        tunnel: Address::NONE,
        flags: endpoint_flag::OWN,
        reserved: 0,
    };
    let peer = EndpointEntry { identity: 300, tunnel: address("192.0.2.2"), flags: 0, ..own };
    for (text, entry) in [("10.0.0.1", own), ("10.64.0.0", peer)] {
        model.endpoints.insert(EndpointKey { bank: 0, reserved: [0; 3], address: address(text) }, entry);
    }
    model.settings = [Some(Settings {
        identity: 200,
        mark: 200,
        flags: 0,
        ingress_default: Action::Allow.number(),
        egress_default: Action::Allow.number(),
        ingress_rule: 0,
        egress_rule: 0,
        address_v4: address("10.0.0.1"),
        address_v6: Address::NONE,
        mtu: 1450,
        ..Settings::default()
    }); 2];
    model
}

#[test]
fn full_flow_tables_give_up_their_oldest_and_refuse_nothing() {
    const ROOM: u32 = 1024;
    const FLOOD: u32 = 20_000;
    let mut kernel = Kernel::load_with(&object(), &[("FLOWS", ROOM), ("HALF_OPEN", ROOM)]).unwrap();
    kernel.write_tables(&open_mesh()).unwrap();
    kernel.publish(Control::new(Bank::A, 0, 1)).unwrap();
    let [own, peer] = ["10.0.0.1", "10.64.0.0"].map(address);
    let outer = control_buffer(&Outer { source: address("192.0.2.2"), vni: 300 });
    let ingress = |payload: &[u8], protocol| ethernet(&ipv4(peer, own, protocol, [0; 4], payload));
    let egress = |payload: &[u8], protocol| ethernet(&ipv4(own, peer, protocol, [0; 4], payload));
    let live = ingress(&tcp(65_000, 80, 0x10), 6);
    assert_eq!(
        kernel.run("test_mesh_ingress", &ingress(&tcp(65_000, 80, 2), 6), outer).unwrap().action,
        PASSED
    );
    assert_eq!(
        kernel.run("test_mesh_egress", &egress(&tcp(80, 65_000, 0x12), 6), outer).unwrap().action,
        PASSED
    );

    // Only the source port changes from packet to packet.
    let source = u32::from_ne_bytes([192, 0, 2, 2]);
    let rotation = Rotation { control_buffer: [34 + (0xffff << 16), 26, 0, source, 300], priority: 0 };
    let flood = ingress(&udp(1, 53), 17);
    let run = kernel.rotate("test_rotating_ingress", &flood, &rotation, 0, FLOOD).unwrap();
    assert_eq!(run.action, PASSED);
    let count = |kernel: &mut Kernel, reason| {
        let counters = kernel.counters().unwrap();
        let slot = counter_slot(Hook::MeshIngress, reason);
        counters.iter().find(|(found, _)| *found == slot).map_or(0, |(_, counter)| counter.packets)
    };
    assert_eq!(count(&mut kernel, Reason::NewAllowed), u64::from(FLOOD) + 1, "every packet opened a flow");
    assert_eq!(count(&mut kernel, Reason::FlowTableFull), 0);
    let half_open = kernel.flows(FlowTable::HalfOpen).unwrap().len();
    assert!(half_open > 0 && half_open <= usize::try_from(ROOM).unwrap(), "{half_open}");
    assert_eq!(
        kernel.run("test_mesh_ingress", &live, outer).unwrap().action,
        PASSED,
        "a live flow is out of reach"
    );
    assert_eq!(count(&mut kernel, Reason::Established), 1);

    // Answered, they are confirmed and compete among each other.
    for first in (0..FLOOD).step_by(200) {
        kernel.rotate("test_rotating_ingress", &flood, &rotation, first, 200).unwrap();
        let answers = Rotation { control_buffer: [36 + (0xffff << 16), 30, 0, source, 300], ..rotation };
        let run = kernel.rotate("test_rotating_egress", &egress(&udp(53, 1), 17), &answers, first, 200);
        assert_eq!(run.unwrap().action, PASSED);
    }
    let confirmed = kernel.flows(FlowTable::Confirmed).unwrap().len();
    assert!(confirmed > 1 && confirmed <= usize::try_from(ROOM).unwrap(), "{confirmed}");
    assert_eq!(count(&mut kernel, Reason::FlowTableFull), 0);
}
