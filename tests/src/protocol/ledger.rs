//! The gateway's store, as far as states need it: what is kept outlasts a crash, and may be lost to a backup.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};

use gateway::manifest::{Object, ObjectKey};
use gateway::pipeline;
use gateway::store::{IdentityError, RelabelRecords, StoreError};
use pki::UnixTime;
use policy::identity::Identity;

/// How many numbers of generations are reserved at once.
const BLOCK: u64 = 4;

/// The store.
#[derive(Debug)]
pub(super) struct Ledger {
    incarnation: u64,
    kept: RefCell<Kept>,
    /// The next number; goes with the process.
    next: Cell<u64>,
    /// Whether the disk refuses to write numbers.
    is_full: Cell<bool>,
}

/// What is on the disk.
#[derive(Clone, Debug, Default)]
pub(super) struct Kept {
    reserved: u64,
    identities: BTreeMap<String, Identity>,
    relabels: RelabelRecords,
    objects: BTreeMap<ObjectKey, Object>,
}

impl Ledger {
    /// A new store.
    #[must_use]
    pub(super) fn new(incarnation: u64) -> Self {
        let kept = RefCell::new(Kept { reserved: 1, ..Kept::default() });
        Self { incarnation, kept, next: Cell::new(1), is_full: Cell::new(false) }
    }

    /// The process is gone, and what it had not used with it.
    pub(super) fn crash(&self) {
        self.next.set(self.kept.borrow().reserved);
    }

    /// A copy of what is on the disk.
    #[must_use]
    pub(super) fn backup(&self) -> Kept {
        self.kept.borrow().clone()
    }

    /// Puts a copy back. Identities are never given twice: the real store lets numbers rest for longer than any of this.
    pub(super) fn restore(&self, kept: &Kept) {
        let identities = self.kept.borrow().identities.clone();
        self.kept.replace(Kept { identities, ..kept.clone() });
        self.crash();
    }

    /// Keeps the objects that what was published is made of.
    pub(super) fn keep_objects(&self, objects: &BTreeMap<ObjectKey, Object>) {
        self.kept.borrow_mut().objects.clone_from(objects);
    }

    /// The objects that were kept.
    pub(super) fn objects(&self) -> BTreeMap<ObjectKey, Object> {
        self.kept.borrow().objects.clone()
    }

    /// Whether the disk refuses from now on.
    pub(super) fn fill(&self, is_full: bool) {
        self.is_full.set(is_full);
    }
}

impl pipeline::Ledger for Ledger {
    fn incarnation(&self) -> u64 {
        self.incarnation
    }

    fn origin(&self, _now: UnixTime) -> u64 {
        0
    }

    fn next_generation(&self) -> Result<u64, StoreError> {
        let mut kept = self.kept.borrow_mut();
        let number = self.next.get();
        if number == kept.reserved {
            if self.is_full.get() {
                return Err(StoreError::Full);
            }
            kept.reserved += BLOCK;
        }
        self.next.set(number + 1);
        Ok(number)
    }

    fn assign_identities(
        &self,
        in_use: &BTreeSet<String>,
        _now: UnixTime,
    ) -> Result<BTreeMap<String, Identity>, IdentityError> {
        let mut kept = self.kept.borrow_mut();
        for labels in in_use {
            let number = Identity::FIRST_ALLOCATED + u32::try_from(kept.identities.len()).unwrap_or(u32::MAX);
            let identity = Identity::try_new(number).map_err(|_error| IdentityError::Exhausted(0))?;
            kept.identities.entry(labels.clone()).or_insert(identity);
        }
        Ok(kept.identities.clone())
    }

    fn relabels(&self) -> Result<RelabelRecords, StoreError> {
        Ok(self.kept.borrow().relabels.clone())
    }

    fn keep_relabels(&self, _before: &RelabelRecords, now: &RelabelRecords) -> Result<(), StoreError> {
        self.kept.borrow_mut().relabels.clone_from(now);
        Ok(())
    }
}
