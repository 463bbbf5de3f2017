//! What a Lease says, and when it may be taken: once it was seen unchanged for as long as it lasts, by this machine's own
//! clock. What the holder's clock says is compared with nothing but itself.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use jiff::{Timestamp, ToSpan as _};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

use super::{DURATION, Leader, NAME};

/// The term's random number, in hex.
const RUN: &str = "outrigger.dev/run";
/// Where its holder takes over connections.
const ADDRESS: &str = "outrigger.dev/address";

/// A Lease as it was read or written.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) object: Lease,
    pub(super) holder: String,
    pub(super) run: u32,
    pub(super) address: Option<SocketAddr>,
    pub(super) renewed: Timestamp,
    transitions: i32,
    duration: Duration,
}

/// Who waits for the lease.
#[derive(Debug)]
pub(super) struct Candidate {
    name: String,
    run: u32,
    /// The version that was seen last, and since when.
    seen: Option<(Option<String>, Instant)>,
}

/// What to do.
#[derive(Debug)]
pub(super) enum Look {
    /// Nothing: it is this one's.
    Wait(Leader),
    /// Write this.
    Take(Box<Lease>),
}

impl Held {
    /// What a Lease says; `None` for one that says nothing of use.
    pub(super) fn of(object: &Lease) -> Option<Self> {
        let spec = object.spec.as_ref()?;
        let annotation = |key| object.metadata.annotations.as_ref()?.get(key);
        let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        Some(Self {
            holder: spec.holder_identity.clone().unwrap_or_default(),
            run: annotation(RUN).and_then(|text| u32::from_str_radix(text, 16).ok()).unwrap_or_default(),
            address: annotation(ADDRESS).and_then(|text| text.parse().ok()),
            renewed: spec.renew_time.as_ref()?.0,
            transitions: spec.lease_transitions.unwrap_or_default(),
            duration: seconds.map_or(DURATION, Duration::from_secs),
            object: object.clone(),
        })
    }

    #[cfg(test)]
    pub(super) fn of_a_test() -> Self {
        let mut candidate = Candidate::new("a".to_owned(), 1);
        let Look::Take(lease) = candidate.look(None, Instant::now(), Timestamp::UNIX_EPOCH) else {
            panic!("nobody has it")
        };
        Self::of(&lease).unwrap()
    }

    pub(super) fn leader(&self) -> Leader {
        Leader { name: self.holder.clone(), run: self.run, address: self.address }
    }

    /// The same, renewed. Times never go back within a term, whatever the clock does.
    pub(super) fn renewed_at(&self, now: Timestamp, address: Option<SocketAddr>) -> Lease {
        let mut object = self.object.clone();
        object.spec.get_or_insert_default().renew_time = Some(MicroTime(later(now, self.renewed)));
        if let Some(address) = address {
            let annotations = object.metadata.annotations.get_or_insert_default();
            annotations.insert(ADDRESS.to_owned(), address.to_string());
        }
        object
    }

    /// The same, given up: whoever sees it may take it at once.
    pub(super) fn released(&self, now: Timestamp) -> Lease {
        let mut object = self.renewed_at(now, None);
        object.spec.get_or_insert_default().holder_identity = None;
        if let Some(annotations) = &mut object.metadata.annotations {
            annotations.remove(ADDRESS);
        }
        object
    }
}

impl Candidate {
    pub(super) const fn new(name: String, run: u32) -> Self {
        Self { name, run, seen: None }
    }

    /// Looks at the Lease as it is now; `None`: there is none.
    pub(super) fn look(&mut self, found: Option<&Lease>, at: Instant, now: Timestamp) -> Look {
        let version = found.and_then(|lease| lease.metadata.resource_version.clone());
        let since = match &self.seen {
            Some((seen, since)) if *seen == version => *since,
            _ => at,
        };
        self.seen = Some((version, since));
        let held = found.and_then(Held::of);
        match held {
            // A process before this one, of which nothing runs any more, is no reason to wait.
            Some(held) if !held.holder.is_empty() && held.holder != self.name => {
                if at.saturating_duration_since(since) < held.duration {
                    return Look::Wait(held.leader());
                }
                Look::Take(self.taken(found, Some(&held), now))
            }
            held => Look::Take(self.taken(found, held.as_ref(), now)),
        }
    }

    fn taken(&self, found: Option<&Lease>, held: Option<&Held>, now: Timestamp) -> Box<Lease> {
        let mut object = found.cloned().unwrap_or_default();
        object.metadata.name = Some(NAME.to_owned());
        let annotations = object.metadata.annotations.get_or_insert_with(BTreeMap::new);
        annotations.remove(ADDRESS);
        annotations.insert(RUN.to_owned(), format!("{:08x}", self.run));
        let renewed = held.map_or(now, |held| later(now, held.renewed));
        object.spec = Some(LeaseSpec {
            holder_identity: Some(self.name.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: Some(MicroTime(renewed)),
            renew_time: Some(MicroTime(renewed)),
            lease_transitions: Some(held.map_or(0, |held| held.transitions.saturating_add(1))),
            ..LeaseSpec::default()
        });
        Box::new(object)
    }
}

/// Now, or just after a time that has certainly passed.
fn later(now: Timestamp, passed: Timestamp) -> Timestamp {
    now.max(passed.checked_add(1.microsecond()).unwrap_or(passed))
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::constant(1_700_000_000, 0);

    fn written(look: Look, version: &str) -> Lease {
        let Look::Take(mut lease) = look else { panic!("{look:?}") };
        lease.metadata.resource_version = Some(version.to_owned());
        *lease
    }

    fn candidate(name: &str, run: u32) -> Candidate {
        Candidate::new(name.to_owned(), run)
    }

    #[test]
    fn one_that_nobody_has_is_taken_and_others_wait_until_it_was_not_renewed_for_its_time() {
        let (mut a, mut b, at) = (candidate("a", 1), candidate("b", 2), Instant::now());
        let lease = written(a.look(None, at, START), "1");
        let second = Duration::from_secs(1);
        for passed in 0..6 {
            let look = b.look(Some(&lease), at + passed * second, START);
            assert!(matches!(look, Look::Wait(leader) if leader.name == "a" && leader.run == 1));
        }
        // What the clock of the holder says counts for nothing.
        let mut renewed = Held::of(&lease).unwrap().renewed_at(START, None);
        renewed.metadata.resource_version = Some("2".to_owned());
        assert!(matches!(b.look(Some(&renewed), at + 6 * second, START), Look::Wait(_)));
        assert!(matches!(b.look(Some(&renewed), at + 11 * second, START), Look::Wait(_)));
        let taken = Held::of(&written(b.look(Some(&renewed), at + 12 * second, START), "3")).unwrap();
        assert_eq!((taken.holder.as_str(), taken.run, taken.transitions), ("b", 2, 1));
        assert_eq!(taken.object.metadata.resource_version.as_deref(), Some("3"));
    }

    #[test]
    fn one_that_was_given_up_and_ones_own_of_before_are_taken_at_once() {
        let (mut a, at) = (candidate("a", 1), Instant::now());
        let lease = written(a.look(None, at, START), "1");
        assert!(matches!(candidate("a", 2).look(Some(&lease), at, START), Look::Take(_)));
        let released = Held::of(&lease).unwrap().released(START);
        assert!(matches!(candidate("b", 2).look(Some(&released), at, START), Look::Take(_)));
    }

    #[test]
    fn times_never_go_back_and_an_address_is_of_one_term() {
        let (mut a, at) = (candidate("a", 1), Instant::now());
        let held = Held::of(&written(a.look(None, at, START), "1")).unwrap();
        let earlier = START.checked_sub(1.hour()).unwrap();
        let address = "192.0.2.1:7444".parse().unwrap();
        let renewed = Held::of(&held.renewed_at(earlier, Some(address))).unwrap();
        assert!(renewed.renewed > held.renewed);
        assert_eq!(renewed.leader().address, Some(address));
        let taken = written(candidate("b", 2).look(Some(&renewed.released(earlier)), at, earlier), "2");
        let taken = Held::of(&taken).unwrap();
        assert!(taken.renewed > renewed.renewed);
        assert_eq!(taken.address, None);
    }
}
