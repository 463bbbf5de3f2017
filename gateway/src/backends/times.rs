//! How long agents have been silent, and workloads gone. Time counts only while somebody could have heard of them, so that a
//! gateway that was away takes nobody's lease.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::store::WorkloadName;

/// How long an endpoint is shown as one that ends.
const GRACE: Duration = Duration::from_secs(30);

/// Who is away for how long.
#[derive(Debug, Default)]
pub(super) struct Times {
    silent: BTreeMap<WorkloadName, Duration>,
    /// By namespace and address.
    gone: BTreeMap<(String, IpAddr), Duration>,
}

impl Times {
    /// Looks again after so much time that counts. `silent` are the workloads without a session; `gone` the endpoints whose
    /// workloads are no more.
    pub(super) fn look(
        &mut self,
        passed: Duration,
        silent: impl Iterator<Item = WorkloadName>,
        gone: impl Iterator<Item = (String, IpAddr)>,
    ) {
        self.silent = later(&self.silent, passed, silent);
        self.gone = later(&self.gone, passed, gone);
    }

    /// For how long a workload is silent beyond the time it may be.
    pub(super) fn overdue(&self, name: &WorkloadName, lease: Duration) -> Option<Duration> {
        self.silent.get(name).and_then(|silent| silent.checked_sub(lease))
    }

    /// Whether an endpoint is one of a workload that is no more, and may still be there.
    pub(super) fn lingers(&self, namespace: &str, address: IpAddr) -> bool {
        self.gone.get(&(namespace.to_owned(), address)).is_some_and(|gone| *gone < GRACE)
    }
}

/// Those that were among these before are so for longer.
fn later<K: Ord>(
    before: &BTreeMap<K, Duration>,
    passed: Duration,
    now: impl Iterator<Item = K>,
) -> BTreeMap<K, Duration> {
    let since = |key: &K| before.get(key).map_or(Duration::ZERO, |since| since.saturating_add(passed));
    now.map(|key| (since(&key), key)).map(|(since, key)| (key, since)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> WorkloadName {
        WorkloadName::try_new("shop", "db-1").unwrap()
    }

    #[test]
    fn time_counts_from_when_an_agent_is_first_missed_and_only_what_is_given() {
        let lease = Duration::from_mins(1);
        let mut times = Times::default();
        let mut look = |seconds, silent: bool| {
            times.look(Duration::from_secs(seconds), silent.then(name).into_iter(), std::iter::empty());
            times.overdue(&name(), lease)
        };
        assert_eq!(look(1000, true), None, "nobody knows since when");
        assert_eq!(look(59, true), None);
        assert_eq!(look(0, true), None, "time in which the gateway saw nothing");
        assert_eq!(look(3, true), Some(Duration::from_secs(2)));
        assert_eq!(look(1, false), None);
        assert_eq!(look(61, true), None, "it was back");
    }

    #[test]
    fn an_endpoint_ends_after_a_grace_time() {
        let address: IpAddr = "10.0.0.1".parse().unwrap();
        let mut times = Times::default();
        assert!(!times.lingers("shop", address), "nobody said that it is gone");
        for (seconds, lingers) in [(100, true), (29, true), (1, false)] {
            let gone = [("shop".to_owned(), address)].into_iter();
            times.look(Duration::from_secs(seconds), std::iter::empty(), gone);
            assert_eq!(times.lingers("shop", address), lingers);
        }
    }
}
