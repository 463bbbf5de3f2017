//! The time, as an argument: the system's in the daemon, any in tests.

use pki::{TimeSource, UnixTime};

/// Tells the time, to TLS as well.
#[derive(Clone, Debug)]
pub struct Clock(TimeSource);

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
