//! The task that changes the kernel.

use telemetry::pulse::Pulse;
use tokio::sync::mpsc;

use crate::kernel::Reconcile;

/// Runs one owner of kernel state after the other: each membership has one. What one of its steps hangs in stops the
/// pulse, so that the agent gets restarted; what the kernel runs does not notice.
pub async fn run(mut kernels: mpsc::Receiver<Reconcile>, pulse: Pulse) {
    while let Some(reconcile) = kernels.recv().await {
        reconcile.run(pulse.clone()).await;
    }
}
