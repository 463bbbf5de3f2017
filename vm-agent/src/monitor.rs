//! Events of the kernel, named and handed to whoever watches. Nobody who watches can slow anything down: a reader
//! that is too slow loses events and is told how many.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use proto::v1::VerdictEvent;
use tokio::sync::broadcast;
use tokio::time::sleep;

use crate::agent::Agent;
use crate::member::Member;

mod filter;
mod naming;

pub use filter::{Filter, InvalidFilter};
pub use naming::{name, protocol_name};

/// Events kept for a reader that is behind.
const BACKLOG: usize = 4096;
/// Pause before a ring buffer that cannot be opened is tried again.
const REOPEN: Duration = Duration::from_secs(5);

/// Where events come out.
#[derive(Clone, Debug)]
pub struct Events {
    sender: broadcast::Sender<Arc<VerdictEvent>>,
    lost: Arc<AtomicU64>,
}

impl Default for Events {
    fn default() -> Self {
        Self { sender: broadcast::Sender::new(BACKLOG), lost: Arc::default() }
    }
}

impl Events {
    /// Watches from now on.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<VerdictEvent>> {
        self.sender.subscribe()
    }

    /// A reader lost this many.
    pub fn count_lost(&self, count: u64) {
        self.lost.fetch_add(count, Ordering::Relaxed);
    }

    /// How many events all readers lost.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

/// Reads the kernel's events as long as there is a membership.
pub async fn run(agent: Arc<Agent>, events: Events) {
    let mut members = agent.member.subscribe();
    loop {
        let member = members.borrow_and_update().clone();
        let closed = match member {
            Some(member) => tokio::select! {
                () = pump(&member, &events) => false,
                changed = members.changed() => changed.is_err(),
            },
            None => members.changed().await.is_err(),
        };
        if closed {
            return;
        }
    }
}

async fn pump(member: &Member, events: &Events) {
    loop {
        match member.kernel.events() {
            Ok(mut stream) => {
                let rules = member.kernel.rules();
                while let Some(event) = stream.next().await {
                    // Read all the same: the ring buffer must not fill with what nobody asked for.
                    if events.sender.receiver_count() > 0 {
                        let state = member.running.borrow().as_ref().map(|version| version.state.clone());
                        let named = name(&event, state.as_deref(), &rules.borrow(), clock_offset());
                        // The last reader may have left since.
                        let _nobody = events.sender.send(Arc::new(named));
                    }
                }
                tracing::warn!("the kernel's events ended, opening them again");
            }
            Err(error) => tracing::warn!(%error, "the kernel's events cannot be read"),
        }
        sleep(REOPEN).await;
    }
}

/// Nanoseconds from the start of the monotonic clock, which events carry, to the Unix epoch.
fn clock_offset() -> i64 {
    use nix::time::ClockId;
    let nanoseconds = |clock: ClockId| {
        clock.now().map_or(0, |now| now.tv_sec().saturating_mul(1_000_000_000).saturating_add(now.tv_nsec()))
    };
    nanoseconds(ClockId::CLOCK_REALTIME).saturating_sub(nanoseconds(ClockId::CLOCK_MONOTONIC))
}
