//! Why the store failed. A transaction that fails leaves nothing behind.

use std::io;
use std::path::PathBuf;

use super::LedgerError;

/// A store that cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder or the file cannot be made.
    #[error("cannot open the store {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Another process has it.
    #[error("the store {} is in use: another gateway runs on this state", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// A newer version wrote it.
    #[error("the store {} has format {found}, this version knows up to {known}", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u64,
        /// The newest known one.
        known: u64,
    },
    /// What is in it cannot be read.
    #[error("the store {} cannot be used: {source}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: StoreError,
    },
}

/// A transaction that failed; nothing of it was kept.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no space.
    #[error("the disk that holds the gateway's store is full: nothing was changed")]
    Full,
    /// The file is damaged.
    #[error("the gateway's store is damaged ({0}): restore a backup of its folder")]
    Corrupt(String),
    /// A record cannot be read.
    #[error("the gateway's store has an unreadable record, {table} {key:?}: {reason}")]
    Record {
        /// The table.
        table: &'static str,
        /// The record's key.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The cluster's API, which has the state of record, took no change.
    #[error("the cluster's API took no change: {0}")]
    Ledger(#[from] LedgerError),
    /// Another error of the database.
    #[error("the gateway's store failed: {0}")]
    Database(String),
}

impl From<redb::Error> for StoreError {
    fn from(error: redb::Error) -> Self {
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "the enum is open, and only these need other words"
        )]
        match error {
            redb::Error::Io(error)
                if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) =>
            {
                Self::Full
            }
            redb::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => {
                Self::Corrupt(error.to_string())
            }
            redb::Error::Corrupted(reason) => Self::Corrupt(reason),
            other => Self::Database(other.to_string()),
        }
    }
}

macro_rules! from_redb {
    ($($kind:ident),*) => {
        $(impl From<redb::$kind> for StoreError {
            fn from(error: redb::$kind) -> Self {
                redb::Error::from(error).into()
            }
        })*
    };
}

from_redb!(DatabaseError, TransactionError, TableError, StorageError, CommitError, SetDurabilityError);
