//! Where the numbers of generations come from. Each start is a run with numbers of its own, and what was published under
//! them carries it. A store that was restored from a backup does not know what was published since: an agent that has
//! such a state is told so, and never given an older one in its place.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use pki::UnixTime;
use proto::v1::Generation;
use redb::ReadableTable as _;
use serde::{Deserialize, Serialize};

use super::generation::random_incarnation;
use super::ledger::Transaction;
use super::table::{RUNS, decode, put, remove};
use super::{Store, StoreError};

/// How many runs are remembered. An agent that was away for more starts is believed by its number alone.
const REMEMBERED: usize = 256;

/// A run that begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beginning {
    /// Random, not 0.
    pub run: u32,
    /// The run before, and the second since 1970 after which nothing was published in it.
    pub before: Option<(u32, u64)>,
}

/// What is known of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Run {
    /// Its first number.
    start: u64,
    /// Nothing was published in it after this second since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until: Option<u64>,
}

/// The runs of a store.
#[derive(Clone, Debug, Default)]
pub struct Lineage {
    own: u32,
    runs: BTreeMap<u32, Run>,
}

impl Beginning {
    /// One of which nothing else is known.
    #[must_use]
    pub fn random() -> Self {
        Self { run: rand::random_range(1..=u32::MAX), before: None }
    }
}

impl Lineage {
    /// Whether a generation of this store's incarnation is one that this store does not know to have been published: it was
    /// restored from a backup that is older.
    #[must_use]
    pub fn is_later(&self, generation: Generation) -> bool {
        let (run, published) = split(generation.origin);
        if run == 0 || run == self.own {
            return false;
        }
        let Some(Run { start, until }) = self.runs.get(&run) else {
            let oldest = self.runs.values().map(|run| run.start).min();
            return oldest.is_some_and(|oldest| generation.counter >= oldest);
        };
        let next = self.runs.values().map(|run| run.start).filter(|other| other > start).min();
        next.is_some_and(|next| generation.counter >= next)
            || until.is_some_and(|until| u64::from(published) > until)
    }

    /// What a generation carries that is published by this second since 1970.
    #[must_use]
    pub fn origin(&self, published: u64) -> u64 {
        u64::from(self.own) << 32 | published.min(u64::from(u32::MAX))
    }
}

/// The run, and when it was published.
fn split(origin: u64) -> (u32, u32) {
    let half = |bits: u64| u32::try_from(bits & u64::from(u32::MAX)).unwrap_or_default();
    (half(origin >> 32), half(origin))
}

/// Begins a run whose first number is `start`.
pub(super) fn begin(
    transaction: &Transaction,
    beginning: Beginning,
    start: u64,
) -> Result<Lineage, StoreError> {
    let mut runs = BTreeMap::new();
    for entry in transaction.open_table(RUNS)?.iter()? {
        let (key, bytes) = entry?;
        let run: Run = decode("runs", key.value(), bytes.value())?;
        let number = u32::from_str_radix(key.value(), 16).map_err(|error| StoreError::Record {
            table: "runs",
            key: key.value().to_owned(),
            reason: error.to_string(),
        })?;
        runs.insert(number, run);
    }
    let Beginning { run: own, before } = beginning;
    if let Some((before, until)) = before
        && let Some(run) = runs.get_mut(&before)
        && run.until.is_none()
    {
        run.until = Some(until);
        put(transaction, RUNS, &key(before), run)?;
    }
    let run = Run { start, until: None };
    runs.insert(own, run);
    put(transaction, RUNS, &key(own), &run)?;
    while runs.len() > REMEMBERED {
        let oldest = runs.iter().min_by_key(|(_, run)| run.start).map(|(number, _)| *number);
        let Some(oldest) = oldest else { break };
        runs.remove(&oldest);
        remove(transaction, RUNS, &key(oldest))?;
    }
    Ok(Lineage { own, runs })
}

fn key(run: u32) -> String {
    format!("{run:08x}")
}

impl Store {
    /// Where numbers come from.
    #[must_use]
    pub const fn lineage(&self) -> &Lineage {
        &self.lineage
    }

    /// What a generation that is published now carries.
    #[must_use]
    pub fn origin(&self, now: UnixTime) -> u64 {
        let published = self.ledger.as_ref().map_or(now.as_secs(), |ledger| ledger.published_by(now));
        self.lineage.origin(published)
    }

    /// The state of this store counts from now on, whatever agents have: it gets another incarnation, which is returned.
    ///
    /// # Errors
    /// [`StoreError`]; then nothing changed.
    pub fn accept_restored(&self) -> Result<u64, StoreError> {
        let made = random_incarnation();
        self.write(|transaction| transaction.set_number("incarnation", made))?;
        self.incarnation.store(made, Ordering::Release);
        Ok(made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lineage() -> Lineage {
        let runs = [
            (1, Run { start: 100, until: Some(5_000) }),
            (2, Run { start: 200, until: None }),
            (3, Run { start: 300, until: None }),
        ];
        Lineage { own: 3, runs: runs.into() }
    }

    fn generation(run: u64, published: u64, counter: u64) -> Generation {
        Generation { incarnation: 7, counter, origin: run << 32 | published }
    }

    #[test]
    fn what_this_store_published_is_known() {
        for known in [generation(1, 5_000, 199), generation(2, 9_000, 299), generation(3, 9_000, 400)] {
            assert!(!lineage().is_later(known), "{known:?}");
        }
    }

    #[test]
    fn what_was_published_after_the_backup_is_later() {
        let after = [
            // By the time, within the numbers that were reserved.
            generation(1, 5_001, 150),
            // By the number.
            generation(1, 4_000, 200),
            generation(2, 4_000, 300),
            // By a run that the backup does not have.
            generation(9, 4_000, 100),
            generation(9, 4_000, 5_000),
        ];
        for later in after {
            assert!(lineage().is_later(later), "{later:?}");
        }
    }

    #[test]
    fn what_is_too_old_to_be_remembered_is_not_later_and_neither_is_what_says_nothing() {
        assert!(!lineage().is_later(generation(9, 4_000, 99)));
        assert!(!lineage().is_later(generation(0, 0, 5_000)));
    }

    #[test]
    fn what_is_published_carries_its_run_and_time() {
        let origin = lineage().origin(0x6553_f100);
        assert_eq!(origin, 0x3_6553_f100);
        assert_eq!(split(origin), (3, 0x6553_f100));
    }
}
