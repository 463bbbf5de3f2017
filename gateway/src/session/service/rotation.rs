//! Asks a host to renew its certificate once it would be given other roots with the next one: a rotation of the root then
//! takes as long as the asking, not as long as certificates last.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::ca::{Ca, Roots};
use crate::store::Given;

/// Hosts that are asked for each second of the time they have.
const PER_SECOND: usize = 25;
/// Bounds of that time. Within the least no certificate is renewed twice in the second that tells one from the other.
const LEAST: u64 = 2;
const MOST: u64 = 3600;

/// What a host was given, and the roots as they change.
pub(super) struct Rotation {
    /// `None`: nobody knows, as of hosts that joined before it was recorded.
    given: Option<Given>,
    roots: watch::Receiver<Arc<Roots>>,
}

impl Rotation {
    /// Of a host that was given this.
    pub(super) fn new(given: Option<Given>, ca: &Ca) -> Self {
        let mut roots = ca.watch();
        roots.mark_changed();
        Self { given, roots }
    }

    /// Returns when the host has to renew, with what waits for the next time; never without.
    pub(super) async fn due(rotation: Option<Self>) -> Self {
        let Some(mut rotation) = rotation else { return std::future::pending().await };
        let Self { given, roots } = &mut rotation;
        let is_behind = |roots: &Arc<Roots>| !given.as_ref().is_some_and(|given| roots.are_as_given(given));
        loop {
            if roots.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            if is_behind(&roots.borrow_and_update()) {
                return rotation;
            }
        }
    }
}

/// How long hosts may take to renew where there are so many.
pub(super) fn period(hosts: usize) -> Duration {
    let seconds = u64::try_from(hosts / PER_SECOND).unwrap_or(MOST);
    Duration::from_secs(seconds.clamp(LEAST, MOST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_hosts_have_more_time() {
        let seconds = |hosts| period(hosts).as_secs();
        assert_eq!([seconds(0), seconds(75), seconds(10_000), seconds(usize::MAX)], [2, 3, 400, 3600]);
    }
}
