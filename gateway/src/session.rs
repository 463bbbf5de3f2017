//! The sessions with agents: what each is sent, what they confirm, and who is connected. `generation`, `transition`,
//! `cursor` and `exchange` are the deterministic core; `service` is the thin shell around it. Knows nothing of manifests.

mod audience;
mod cursor;
mod encode;
mod exchange;
mod generation;
mod metrics;
mod registry;
mod service;
mod transition;
mod writes;

#[cfg(test)]
mod tests;

pub use audience::Audience;
pub use cursor::{Cursor, Greeting, Step, Told};
pub use exchange::{Exchange, Heard, Next, Unexpected, is_revoked};
pub use generation::Published;
pub use metrics::SessionMetrics;
pub use registry::{DuplicateHost, Ended, Registry, Rejection, Session, SessionStatus};
pub use service::MeshService;
pub use transition::{Log, Transition};
pub use writes::{WRITE_DEADLINE, Write, Writes};

use std::sync::Arc;

/// What every session follows: the latest state, and how it came about from earlier ones.
#[derive(Clone, Debug)]
pub struct Feed {
    /// The latest state.
    pub latest: Arc<Published>,
    /// The latest changes.
    pub log: Log,
}

impl Feed {
    /// A first state.
    #[must_use]
    pub fn new(first: Published) -> Self {
        Self { latest: Arc::new(first), log: Log::default() }
    }

    /// The feed after one more state; its parts are encoded here, once for all sessions.
    #[must_use]
    pub fn followed_by(&self, next: Published) -> Self {
        let mut log = self.log.clone();
        log.push(Transition::between(&self.latest, &next));
        Self { latest: Arc::new(next), log }
    }
}
