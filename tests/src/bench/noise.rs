//! Whether the machine is quiet enough to be believed, and how busy it was.

use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::wait::wait_for;

/// Ticks a second of `/proc/stat`; fixed by the kernel's interface.
const TICKS: u64 = 100;

/// Part of the last ten seconds in which some task waited for a CPU, in percent, that a quiet machine has at most.
const PRESSURE: f64 = 1.0;

/// How long a build that just ended may take to fade from the average.
const PATIENCE: Duration = Duration::from_mins(1);

/// Waits until nothing else wants the CPUs. On a machine that stays busy, an error, or with `busy` a warning; says
/// whether it is quiet.
pub(super) fn gate(busy: bool) -> Result<bool> {
    let patience = if busy { Duration::ZERO } else { PATIENCE };
    let quiet = wait_for("quiet", patience, || pressure().is_none_or(|part| part <= PRESSURE)).is_ok();
    if !quiet && !busy {
        bail!(
            "the machine is busy (tasks waited for a CPU {:.1} % of the last ten seconds): measure when it is quiet, or \
             with --busy",
            pressure().unwrap_or_default()
        );
    }
    if !quiet {
        println!("The machine is busy: believe only the ratios, and those with their intervals.");
    }
    Ok(quiet)
}

/// `None` where the kernel does not tell.
fn pressure() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/pressure/cpu").ok()?;
    let word = text.lines().next()?.split(' ').find_map(|word| word.strip_prefix("avg10="))?;
    word.parse().ok()
}

/// Time that all CPUs together were not idle since boot, interrupts included.
pub(super) fn busy() -> Result<Duration> {
    let text = std::fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
    let line = text.lines().next().unwrap_or_default();
    let fields: Vec<u64> = line.split_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal guest guest_nice; guest time is in user already.
    let used = [0, 1, 2, 5, 6].iter().filter_map(|index| fields.get(*index)).sum::<u64>();
    Ok(Duration::from_millis(used * 1000 / TICKS))
}
