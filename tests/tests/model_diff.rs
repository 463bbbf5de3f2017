//! Random clusters under random policies of every language: what is decided is what the objects say, read a second time,
//! and every verdict has the reason it names.

use std::panic::{AssertUnwindSafe, catch_unwind};

use anyhow::{Result, bail};
use e2e::fuzz::{PROBES, world};
use e2e::long;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

/// What the largest clusters are made of.
const LONGEST: usize = 4096;

fn input(seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; LONGEST];
    StdRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

fn holds(input: &[u8]) -> bool {
    catch_unwind(AssertUnwindSafe(|| world(input))).is_ok()
}

/// Cuts the end off, and makes parts the first choice there is, halves first: most of what is left is needed.
fn minimised(mut input: Vec<u8>) -> Vec<u8> {
    loop {
        let mut shorter = input.clone();
        shorter.truncate(input.len() - input.len().div_ceil(16));
        if input.is_empty() || holds(&shorter) {
            break;
        }
        input = shorter;
    }
    let mut size = input.len().div_ceil(2);
    while size > 0 {
        for at in (0..input.len()).step_by(size) {
            let mut less = input.clone();
            less.iter_mut().skip(at).take(size).for_each(|byte| *byte = 0);
            if less != input && !holds(&less) {
                input = less;
            }
        }
        size /= 2;
    }
    input
}

/// 10,000 flows, and with `OUTRIGGER_LONG=1` a million.
#[test]
fn threat_33_random_policies_are_decided_for_the_reasons_they_name() -> Result<()> {
    let first = std::env::var("OUTRIGGER_SEED").ok().map(|seed| seed.parse()).transpose()?.unwrap_or(1_u64);
    let probes = u32::try_from(PROBES)?;
    let clusters = u64::from(long::rounds(10_000 / probes, 1_000_000 / probes));
    for seed in first..first + clusters {
        let input = input(seed);
        if !holds(&input) {
            std::panic::set_hook(Box::new(|_panic| {}));
            let least = minimised(input);
            drop(std::panic::take_hook());
            println!("the least that breaks it, of seed {seed}:");
            let _told = holds(&least);
            bail!("OUTRIGGER_SEED={seed} breaks it");
        }
    }
    Ok(())
}
