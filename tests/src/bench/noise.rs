//! Whether the machine is quiet enough to be believed, and how busy it was.

use std::time::Duration;

use anyhow::{Context, Result};

/// Ticks a second of `/proc/stat`; fixed by the kernel's interface.
const TICKS: u64 = 100;

/// Says so if something else is running.
pub(super) fn warn() {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: f64 = text.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or_default();
    if load > 0.5 {
        println!(
            "The machine is busy (load {load}): believe only the ratios, and those with their intervals."
        );
    }
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
