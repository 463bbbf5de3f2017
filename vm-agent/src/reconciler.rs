//! The task that changes the kernel, and with it the proof to the service manager that the agent is alive.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use crate::kernel::Reconcile;

/// How often the loop shows that it runs where no service manager says how often it wants to know.
const IDLE: Duration = Duration::from_mins(1);

/// Runs one owner of kernel state after the other: each membership has one. The watchdog is fed by this task between
/// the owner's steps, so that a step that hangs gets the agent restarted; what the kernel runs does not notice.
pub async fn run(mut kernels: mpsc::Receiver<Reconcile>) {
    let mut watchdog = interval(telemetry::service::watchdog_interval().unwrap_or(IDLE));
    watchdog.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let reconcile = loop {
            tokio::select! {
                received = kernels.recv() => break received,
                _ = watchdog.tick() => telemetry::service::alive(),
            }
        };
        let Some(reconcile) = reconcile else { return };
        let running = reconcile.run();
        tokio::pin!(running);
        loop {
            tokio::select! {
                () = &mut running => break,
                _ = watchdog.tick() => telemetry::service::alive(),
            }
        }
    }
}
