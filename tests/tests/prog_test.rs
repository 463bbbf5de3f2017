//! Law: the kernel agrees with the host build, packet for packet, on random sequences.

use std::collections::BTreeMap;

use e2e::prog_test::compare::sequence;
use e2e::prog_test::kernel::Kernel;

const SEQUENCES: u64 = 60;
const PACKETS: u32 = 400;

#[test]
fn the_kernel_agrees_with_the_host_build() {
    let seed = std::env::var("OUTRIGGER_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1_u64);
    println!("first seed {seed}; OUTRIGGER_SEED runs others");
    let mut kernel = Kernel::load().unwrap();
    let mut reasons = BTreeMap::new();
    for seed in seed..seed + SEQUENCES {
        for (reason, count) in sequence(&mut kernel, seed, PACKETS).unwrap().reasons {
            *reasons.entry(reason).or_insert(0) += count;
        }
    }
    println!("{reasons:#?}");
}
