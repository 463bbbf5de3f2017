//! The counter of generations. It never goes back, also when the gateway is killed: numbers are reserved ahead in
//! blocks, and a start begins after what was reserved.

use std::sync::PoisonError;

use redb::{Database, ReadableDatabase as _, ReadableTable as _};

use super::ledger::Transaction;
use super::table::NUMBERS;
use super::{Store, StoreError};

/// How many numbers are reserved at once: one write for so many generations.
const BLOCK: u64 = 1024;
/// No store has this incarnation.
pub const INCARNATION_UNSET: u64 = 0;

/// Numbers that may be given out: `next` below `end`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reserved {
    next: u64,
    pub(super) end: u64,
}

/// The store's incarnation, made at its first opening.
pub(super) fn incarnation(transaction: &Transaction) -> Result<u64, StoreError> {
    let found = transaction.open_table(NUMBERS)?.get("incarnation")?.map(|found| found.value());
    if let Some(found) = found {
        return Ok(found);
    }
    let made = random_incarnation();
    transaction.set_number("incarnation", made)?;
    Ok(made)
}

/// Another one than that of any other store.
pub(super) fn random_incarnation() -> u64 {
    rand::random_range(INCARNATION_UNSET + 1..=u64::MAX)
}

/// Nothing given out yet, after everything that ever was.
pub(super) fn reserved(database: &Database) -> Result<Reserved, StoreError> {
    let numbers = database.begin_read()?.open_table(NUMBERS)?;
    let end = numbers.get("generation")?.map_or(1, |end| end.value());
    Ok(Reserved { next: end, end })
}

impl Store {
    /// Whether nobody else may be writing, and publishing, by now.
    ///
    /// # Errors
    /// [`StoreError`], while that is not certain.
    pub fn confirm(&self) -> Result<(), StoreError> {
        match &self.ledger {
            Some(ledger) => Ok(ledger.confirm()?),
            None => Ok(()),
        }
    }

    /// A number greater than every one given out before, by this process or an earlier one.
    ///
    /// # Errors
    /// [`StoreError`] where a new block cannot be reserved, or somebody else may give out numbers by now; no number is lost.
    pub fn next_generation(&self) -> Result<u64, StoreError> {
        self.confirm()?;
        let mut reserved = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        if reserved.next == reserved.end {
            let end = reserved.end.saturating_add(BLOCK);
            self.write(|transaction| transaction.set_number("generation", end))?;
            reserved.end = end;
        }
        let number = reserved.next;
        reserved.next += 1;
        Ok(number)
    }
}
