//! Where records are kept that must outlast this machine: beside the store's own file, a cluster's API. What a transaction
//! changes is put there first; the file takes it only once the ledger has it, and is filled from there when it is opened.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;

use pki::UnixTime;
use redb::{TableHandle as _, WriteTransaction};
use zeroize::Zeroizing;

use super::StoreError;
use super::lineage::Beginning;
use super::table::{
    IDENTITIES, NUMBERS, RELABELS, RESTING_ADDRESSES, REVOKED_KEYS, ROOTS, RUNS, Records, TOKENS, WORKLOADS,
};

/// A table of records that a ledger keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shared {
    /// Single numbers, by name.
    Numbers,
    /// Starts of gateways, by their runs.
    Runs,
    /// Roots and their keys, by name.
    Roots,
    /// Identities, by number.
    Identities,
    /// Changes of identities that are under way, by address.
    Relabels,
    /// Keys that are no longer valid, by their hash.
    RevokedKeys,
    /// Addresses that rest, by address.
    RestingAddresses,
    /// Workloads, by name.
    Workloads,
    /// Tokens, by id.
    Tokens,
}

/// A record's table and key.
pub type RecordKey = (Shared, String);

/// What a transaction changes: records in JSON, `None` where one is gone.
pub type Changes = BTreeMap<RecordKey, Option<Bytes>>;

/// A record in JSON. Some hold keys.
#[derive(Clone, PartialEq, Eq)]
pub struct Bytes(pub Zeroizing<Vec<u8>>);

/// A ledger. Calls block.
pub trait Ledger: fmt::Debug + Send + Sync {
    /// All records.
    ///
    /// # Errors
    /// [`LedgerError`].
    fn load(&self) -> Result<BTreeMap<RecordKey, Bytes>, LedgerError>;

    /// Keeps changes. Where that fails in the middle, what was kept of them harms nobody when the rest never comes: a host
    /// that joined is there before its token is used up, and a key is revoked before its host is gone.
    ///
    /// # Errors
    /// [`LedgerError`].
    fn keep(&self, changes: &Changes) -> Result<(), LedgerError>;

    /// The run that begins when this is opened.
    fn beginning(&self) -> Beginning {
        Beginning::random()
    }

    /// Whether nobody else may be writing, and so publishing, by now.
    ///
    /// # Errors
    /// [`LedgerError`], while that is not certain.
    fn confirm(&self) -> Result<(), LedgerError> {
        Ok(())
    }

    /// The second since 1970 by which what is published now is known to have been published.
    fn published_by(&self, now: UnixTime) -> u64 {
        now.as_secs()
    }

    /// The id of a token for members of a group, given what is random of it.
    fn token_id(&self, namespace: &str, random: &str) -> String;
}

/// Why a ledger took no change, or told nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct LedgerError(pub String);

/// A transaction of the store's file, and what it changes of what a ledger keeps.
pub(super) struct Transaction {
    file: WriteTransaction,
    changes: RefCell<Changes>,
}

impl Shared {
    /// Every one, in the order in which changes are kept.
    pub const ALL: [Self; 9] = [
        Self::Numbers,
        Self::Runs,
        Self::Roots,
        Self::Identities,
        Self::Relabels,
        Self::RevokedKeys,
        Self::RestingAddresses,
        Self::Workloads,
        Self::Tokens,
    ];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Numbers => "numbers",
            Self::Runs => "runs",
            Self::Roots => "roots",
            Self::Identities => "identities",
            Self::Relabels => "relabels",
            Self::RevokedKeys => "revoked-keys",
            Self::RestingAddresses => "resting-addresses",
            Self::Workloads => "workloads",
            Self::Tokens => "tokens",
        }
    }

    /// The one of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|table| table.name() == name)
    }

    /// Its table of JSON records, if it is one by text.
    const fn records(self) -> Option<Records> {
        match self {
            Self::Runs => Some(RUNS),
            Self::Roots => Some(ROOTS),
            Self::Relabels => Some(RELABELS),
            Self::RevokedKeys => Some(REVOKED_KEYS),
            Self::RestingAddresses => Some(RESTING_ADDRESSES),
            Self::Workloads => Some(WORKLOADS),
            Self::Tokens => Some(TOKENS),
            Self::Numbers | Self::Identities => None,
        }
    }

    fn of(table: Records) -> Option<Self> {
        Self::ALL.into_iter().find(|shared| shared.records().is_some_and(|own| own.name() == table.name()))
    }
}

impl Transaction {
    pub(super) fn new(file: WriteTransaction) -> Self {
        Self { file, changes: RefCell::default() }
    }

    /// The transaction, and what it changes.
    pub(super) fn into_parts(self) -> (WriteTransaction, Changes) {
        (self.file, self.changes.into_inner())
    }

    /// Writes the bytes of a record, or removes it.
    pub(super) fn set(&self, table: Records, key: &str, bytes: Option<Vec<u8>>) -> Result<(), StoreError> {
        let mut open = self.file.open_table(table)?;
        match &bytes {
            Some(bytes) => open.insert(key, bytes.as_slice()).map(drop)?,
            None => open.remove(key).map(drop)?,
        }
        if let Some(shared) = Shared::of(table) {
            self.changed(shared, key, bytes);
        }
        Ok(())
    }

    /// Writes the bytes of an identity's record, or removes it.
    pub(super) fn set_identity(&self, number: u32, bytes: Option<Vec<u8>>) -> Result<(), StoreError> {
        let mut open = self.file.open_table(IDENTITIES)?;
        match &bytes {
            Some(bytes) => open.insert(number, bytes.as_slice()).map(drop)?,
            None => open.remove(number).map(drop)?,
        }
        self.changed(Shared::Identities, &number.to_string(), bytes);
        Ok(())
    }

    /// Writes a number.
    pub(super) fn set_number(&self, name: &str, value: u64) -> Result<(), StoreError> {
        self.file.open_table(NUMBERS)?.insert(name, value)?;
        if SHARED_NUMBERS.contains(&name) {
            self.changed(Shared::Numbers, name, Some(value.to_string().into_bytes()));
        }
        Ok(())
    }

    fn changed(&self, table: Shared, key: &str, bytes: Option<Vec<u8>>) {
        let bytes = bytes.map(|bytes| Bytes(Zeroizing::new(bytes)));
        self.changes.borrow_mut().insert((table, key.to_owned()), bytes);
    }
}

/// The others are of the file alone: its format, and the order of claims, which follows from the claims.
const SHARED_NUMBERS: [&str; 2] = ["incarnation", "generation"];

impl Deref for Transaction {
    type Target = WriteTransaction;

    fn deref(&self) -> &WriteTransaction {
        &self.file
    }
}

/// Makes the file have what a ledger keeps, and nothing else of its tables.
pub(super) fn fill(
    transaction: &WriteTransaction,
    records: &BTreeMap<RecordKey, Bytes>,
) -> Result<(), StoreError> {
    for table in Shared::ALL {
        if let Some(table) = table.records() {
            transaction.delete_table(table)?;
            transaction.open_table(table)?;
        }
    }
    transaction.delete_table(IDENTITIES)?;
    let mut identities = transaction.open_table(IDENTITIES)?;
    let mut numbers = transaction.open_table(NUMBERS)?;
    for name in SHARED_NUMBERS {
        numbers.remove(name)?;
    }
    for ((table, key), bytes) in records {
        let unreadable =
            |reason: String| StoreError::Record { table: table.name(), key: key.clone(), reason };
        match table.records() {
            Some(table) => {
                transaction.open_table(table)?.insert(key.as_str(), bytes.0.as_slice())?;
            }
            None if *table == Shared::Identities => {
                let number: u32 =
                    key.parse().map_err(|_no_number| unreadable("its key is no number".to_owned()))?;
                identities.insert(number, bytes.0.as_slice())?;
            }
            None => {
                let value = str::from_utf8(&bytes.0).ok().and_then(|text| text.parse().ok());
                let value: u64 = value.ok_or_else(|| unreadable("it is no number".to_owned()))?;
                numbers.insert(key.as_str(), value)?;
            }
        }
    }
    Ok(())
}

/// Everything of the file that a ledger is to keep.
#[cfg(test)]
pub(super) fn content(transaction: &redb::ReadTransaction) -> Result<BTreeMap<RecordKey, Bytes>, StoreError> {
    use redb::ReadableTable as _;
    let mut all = BTreeMap::new();
    let bytes = |bytes: &[u8]| Bytes(Zeroizing::new(bytes.to_vec()));
    for shared in Shared::ALL {
        let Some(table) = shared.records() else { continue };
        for entry in transaction.open_table(table)?.iter()? {
            let (key, value) = entry?;
            all.insert((shared, key.value().to_owned()), bytes(value.value()));
        }
    }
    for entry in transaction.open_table(IDENTITIES)?.iter()? {
        let (number, value) = entry?;
        all.insert((Shared::Identities, number.value().to_string()), bytes(value.value()));
    }
    let numbers = transaction.open_table(NUMBERS)?;
    for name in SHARED_NUMBERS {
        if let Some(value) = numbers.get(name)? {
            all.insert((Shared::Numbers, name.to_owned()), bytes(value.value().to_string().as_bytes()));
        }
    }
    Ok(all)
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}
