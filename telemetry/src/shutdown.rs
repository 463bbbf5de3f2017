//! One signal to stop, seen by every task.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// Whether the daemon is to stop. Cloning shares the signal.
#[derive(Clone, Debug)]
pub struct Shutdown {
    sender: watch::Sender<bool>,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self { sender: watch::Sender::new(false) }
    }
}

impl Shutdown {
    /// Tells every task to stop.
    pub fn trigger(&self) {
        self.sender.send_replace(true);
    }

    /// Whether it was triggered.
    #[must_use]
    pub fn is_triggered(&self) -> bool {
        *self.sender.borrow()
    }

    /// Returns once it was triggered; at once if it was before. Cancel safe.
    pub async fn wait(&self) {
        let mut receiver = self.sender.subscribe();
        // The sender lives in `self`, so the channel cannot close first.
        let _triggered = receiver.wait_for(|&triggered| triggered).await;
    }

    /// A shutdown that SIGTERM and SIGINT trigger; the second such signal ends the process at once with 130.
    ///
    /// # Errors
    /// When the signals cannot be taken over.
    pub fn on_signals() -> std::io::Result<Self> {
        let shutdown = Self::default();
        let mut signals = [signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?];
        let trigger = shutdown.clone();
        tokio::spawn(async move {
            next(&mut signals).await;
            tracing::info!("stopping");
            trigger.trigger();
            next(&mut signals).await;
            std::process::exit(130);
        });
        Ok(shutdown)
    }
}

async fn next([terminate, interrupt]: &mut [Signal; 2]) {
    tokio::select! {
        _received = terminate.recv() => {}
        _received = interrupt.recv() => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn waiters_before_and_after_the_trigger_return() {
        let shutdown = Shutdown::default();
        let waiter = tokio::spawn({
            let shutdown = shutdown.clone();
            async move { shutdown.wait().await }
        });
        shutdown.trigger();
        waiter.await.unwrap();
        shutdown.wait().await;
        assert!(shutdown.is_triggered());
    }
}
