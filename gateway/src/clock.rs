//! The time, as an argument: the system's in the daemon, any in tests.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use pki::{TimeSource, UnixTime};

/// Tells the time, to TLS as well.
#[derive(Clone, Debug)]
pub struct Clock(TimeSource);

/// Tells how time passes, whatever is done to the system's clock.
#[derive(Clone)]
pub struct Monotonic(Arc<dyn Fn() -> Instant + Send + Sync>);

impl Clock {
    /// The system's clock.
    #[must_use]
    pub fn system() -> Self {
        Self(pki::system_time())
    }

    /// A clock of the caller's.
    #[must_use]
    pub const fn new(source: TimeSource) -> Self {
        Self(source)
    }

    /// The time now; 1970 where the clock cannot be read, which makes no certificate valid.
    #[must_use]
    pub fn now(&self) -> UnixTime {
        self.0.current_time().unwrap_or(crate::store::unix_time(0))
    }

    /// For TLS.
    #[must_use]
    pub fn source(&self) -> TimeSource {
        self.0.clone()
    }
}

impl Monotonic {
    /// A clock of the caller's.
    pub fn new(source: impl Fn() -> Instant + Send + Sync + 'static) -> Self {
        Self(Arc::new(source))
    }

    /// The time now.
    #[must_use]
    pub fn now(&self) -> Instant {
        (self.0)()
    }
}

impl Default for Monotonic {
    fn default() -> Self {
        Self::new(Instant::now)
    }
}

impl fmt::Debug for Monotonic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Monotonic").finish_non_exhaustive()
    }
}
