//! Waiting for a condition, and the clock that every process of the machine shares.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use nix::time::ClockId;

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(10);

/// Polls `condition` until it holds; an error naming `what` after `limit`.
pub fn wait_for(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) -> Result<Duration> {
    let started = Instant::now();
    loop {
        if condition() {
            return Ok(started.elapsed());
        }
        if started.elapsed() > limit {
            bail!("waited {limit:?} in vain for: {what}");
        }
        thread::sleep(POLL);
    }
}

/// Polls `attempt` until it succeeds; after `limit`, an error naming `what` and the last failure.
pub fn wait_ok<T>(what: &str, limit: Duration, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let started = Instant::now();
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if started.elapsed() > limit => {
                return Err(error.context(format!("waited {limit:?} in vain for: {what}")));
            }
            Err(_) => thread::sleep(POLL),
        }
    }
}

/// Nanoseconds of the monotonic clock, comparable between processes.
#[must_use]
pub fn monotonic_ns() -> u64 {
    let now = ClockId::CLOCK_MONOTONIC.now().map(Duration::from).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}
