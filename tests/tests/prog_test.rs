//! Law: the kernel agrees with the host build, packet for packet, on random sequences.

use std::collections::BTreeMap;

use datapath::Reason;
use datapath::abi::{Bank, Control, Hook, counter_slot};
use e2e::prog_test::compare::sequence;
use e2e::prog_test::frames::{ethernet, ipv4, udp};
use e2e::prog_test::kernel::{DROPPED, Kernel, PASSED};
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
