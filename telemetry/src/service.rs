//! What the service manager is told (`sd_notify(3)`); nothing where there is none.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};

use crate::pulse::Pulses;

/// The daemon does its work.
pub fn ready(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// One line for `systemctl status`.
pub fn status(status: &str) {
    notify(&[NotifyState::Status(status)]);
}

/// The daemon stops.
pub fn stopping() {
    notify(&[NotifyState::Stopping]);
}

/// The daemon is alive.
pub fn alive() {
    notify(&[NotifyState::Watchdog]);
}

/// How often the service manager wants to know that the daemon is alive: half of what it allows; `None` without a
/// watchdog. A step that takes longer than that counts as hanging.
#[must_use]
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 2)
}

/// Feeds the service manager's watchdog as long as no task hangs; never ends.
pub async fn watch(pulses: Pulses) {
    let Some(period) = watchdog_interval() else { return std::future::pending().await };
    let mut ticks = interval(period / 2);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut known = Vec::new();
    loop {
        ticks.tick().await;
        let hanging = pulses.hanging(Instant::now());
        if hanging.is_empty() {
            // A manager that does not read lets its sender wait.
            let _told = spawn_blocking(alive).await;
        } else if hanging != known {
            tracing::error!(tasks = ?hanging, "a task hangs; the watchdog is not fed");
        }
        known = hanging;
    }
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager was not told");
    }
}
