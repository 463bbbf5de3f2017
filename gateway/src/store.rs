//! What must outlive the gateway: tokens, workloads, addresses, identities, the root, counters, the last valid version
//! of each object. One file, one writer, every change one transaction.
//!
//! Methods block on the disk: asynchronous code calls those that write through `tokio::task::spawn_blocking`. The
//! workloads are also in memory, in a channel that always holds the latest.

mod address;
mod authority;
mod claim;
mod error;
mod generation;
mod identity;
mod import;
mod join;
mod ledger;
mod lineage;
mod object;
mod record;
mod relabel;
mod table;
mod token;
mod trust;
mod workload;

use std::collections::BTreeMap;
use std::fs::{DirBuilder, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redb::{Database, Durability, ReadableDatabase as _};
use tokio::sync::watch;

pub use address::{InvalidPools, PoolError, Pools};
pub use authority::{KeptRoot, RootError, root_id};
pub use claim::Claim;
pub use error::{OpenError, StoreError};
pub use generation::INCARNATION_UNSET;
pub use identity::IdentityError;
pub use import::{Import, ImportRefusal};
pub use join::{JoinError, JoinRefusal, Joining, Proof};
use ledger::Transaction;
pub use ledger::{Bytes, Changes, Ledger, LedgerError, RecordKey, Shared};
pub use lineage::{Beginning, Lineage};
pub use record::{InvalidWorkloadName, TRANSIT_NAMESPACE, Target, Token, Workload, WorkloadName, unix_time};
pub use relabel::{RelabelRecord, RelabelRecords};
pub use token::{Minted, Minting, TokenRefusal};
pub use trust::Given;
pub use workload::{RenewRefusal, Report, WorkloadError};

/// All workloads, by name.
pub type Workloads = BTreeMap<WorkloadName, Arc<Workload>>;

/// The format this version writes.
const FORMAT: u64 = 1;
/// The store's file within the state folder.
const FILE: &str = "gateway.redb";
/// Bytes of the file that are kept in memory. What is looked at all the time is kept as records; left to itself, the
/// database would keep a gigabyte of pages that nobody asks for again.
const CACHE: usize = 16 << 20;

/// What the store needs to know to allocate.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where mesh addresses come from.
    pub pools: Pools,
    /// The cluster's number: the upper bits of every identity.
    pub cluster_id: u8,
    /// How long an address or an identity rests before another one may have it: as long as an agent that is cut off
    /// may act on the old meaning.
    pub quarantine: Duration,
}

/// The store.
pub struct Store {
    path: PathBuf,
    settings: Settings,
    /// Where else records are kept, and before the file.
    ledger: Option<Arc<dyn Ledger>>,
    /// `None` after an error of the disk: the database refuses everything from then on, so it is opened anew.
    database: Mutex<Option<Database>>,
    incarnation: AtomicU64,
    lineage: Lineage,
    generations: Mutex<generation::Reserved>,
    workloads: watch::Sender<Arc<Workloads>>,
}

impl Store {
    /// Opens the store in a folder, and makes both where they do not exist; only their owner can read them.
    ///
    /// # Errors
    /// [`OpenError`], with the file's name.
    pub fn open(folder: &Path, settings: Settings) -> Result<Self, OpenError> {
        Self::open_with(folder, settings, None)
    }

    /// The same, for a store whose records a ledger keeps: the file is made to have what that has.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open_with(
        folder: &Path,
        settings: Settings,
        ledger: Option<Arc<dyn Ledger>>,
    ) -> Result<Self, OpenError> {
        let path = folder.join(FILE);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|source| OpenError::File { path: path.clone(), source })?;
        let database = open_file(&path)?;
        let content = |source| OpenError::Content { path: path.clone(), source };
        let format = table::prepare(&database, FORMAT).map_err(content)?;
        if format > FORMAT {
            return Err(OpenError::Newer { path, found: format, known: FORMAT });
        }
        if let Some(ledger) = &ledger {
            fill(&database, &**ledger).map_err(content)?;
        }
        let reserved = generation::reserved(&database).map_err(content)?;
        let workloads = table::all_workloads(&database).map_err(content)?;
        let mut store = Self {
            settings,
            ledger,
            database: Mutex::new(Some(database)),
            incarnation: AtomicU64::new(INCARNATION_UNSET),
            lineage: Lineage::default(),
            generations: Mutex::new(reserved),
            workloads: watch::Sender::new(Arc::new(workloads)),
            path: path.clone(),
        };
        let beginning = store.ledger.as_ref().map_or_else(Beginning::random, |ledger| ledger.beginning());
        let begun = store.write(|transaction| {
            let incarnation = generation::incarnation(transaction)?;
            Ok::<_, StoreError>((incarnation, lineage::begin(transaction, beginning, reserved.end)?))
        });
        let (incarnation, lineage) = begun.map_err(content)?;
        store.incarnation.store(incarnation, Ordering::Release);
        store.lineage = lineage;
        Ok(store)
    }

    /// The workloads, always the latest.
    #[must_use]
    pub fn watch_workloads(&self) -> watch::Receiver<Arc<Workloads>> {
        self.workloads.subscribe()
    }

    /// The workloads now.
    #[must_use]
    pub fn workloads(&self) -> Arc<Workloads> {
        self.workloads.borrow().clone()
    }

    /// One workload now.
    #[must_use]
    pub fn workload(&self, name: &WorkloadName) -> Option<Arc<Workload>> {
        self.workloads.borrow().get(name).cloned()
    }

    /// Random for each store: generations of two stores cannot be compared.
    #[must_use]
    pub fn incarnation(&self) -> u64 {
        self.incarnation.load(Ordering::Acquire)
    }

    /// Does one transaction. Where `change` fails, nothing of it is kept.
    fn write<T, E: From<StoreError>>(
        &self,
        change: impl FnOnce(&Transaction) -> Result<T, E>,
    ) -> Result<T, E> {
        self.transact(&mut self.lock(), Reach::Everywhere, change)
    }

    /// What a transaction would end in; nothing of it is kept.
    fn try_out<T, E: From<StoreError>>(
        &self,
        change: impl FnOnce(&Transaction) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut database = self.lock();
        let transaction = self.ready(&mut database)?.begin_write().map_err(StoreError::from)?;
        let transaction = Transaction::new(transaction);
        let result = change(&transaction);
        transaction.into_parts().0.abort().map_err(StoreError::from)?;
        result
    }

    /// Like [`Store::write`], for a change that may be lost in a crash: it is kept with the next other one.
    fn write_softly<T, E: From<StoreError>>(
        &self,
        change: impl FnOnce(&Transaction) -> Result<T, E>,
    ) -> Result<T, E> {
        self.transact(&mut self.lock(), Reach::Softly, change)
    }

    /// Like [`Store::write`], for a transaction that changes workloads: `change` also gives the new records (`None`: the
    /// workload is gone), which are shown once they are kept.
    fn write_workloads<T, E: From<StoreError>>(
        &self,
        reach: Reach,
        change: impl FnOnce(&Transaction) -> Result<(T, Vec<(WorkloadName, Option<Workload>)>), E>,
    ) -> Result<T, E> {
        let mut database = self.lock();
        let (result, changes) = self.transact(&mut database, reach, change)?;
        if !changes.is_empty() {
            self.workloads.send_modify(|workloads| {
                let workloads = Arc::make_mut(workloads);
                for (name, workload) in changes {
                    match workload {
                        Some(workload) => workloads.insert(name, Arc::new(workload)),
                        None => workloads.remove(&name),
                    };
                }
            });
        }
        drop(database);
        Ok(result)
    }

    fn read<T>(
        &self,
        look: impl FnOnce(&redb::ReadTransaction) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut database = self.lock();
        look(&self.ready(&mut database)?.begin_read()?)
    }

    fn transact<T, E: From<StoreError>>(
        &self,
        database: &mut Option<Database>,
        reach: Reach,
        change: impl FnOnce(&Transaction) -> Result<T, E>,
    ) -> Result<T, E> {
        let begun = self.ready(database)?.begin_write();
        let mut transaction = if let Ok(transaction) = begun {
            transaction
        } else {
            // An earlier transaction met an error of the disk.
            *database = None;
            self.ready(database)?.begin_write().map_err(StoreError::from)?
        };
        if reach == Reach::Softly {
            transaction.set_durability(Durability::None).map_err(StoreError::from)?;
        }
        let transaction = Transaction::new(transaction);
        let result = change(&transaction)?;
        let (transaction, changes) = transaction.into_parts();
        if let Some(ledger) =
            self.ledger.as_ref().filter(|_| reach == Reach::Everywhere && !changes.is_empty())
        {
            ledger.keep(&changes).map_err(StoreError::from)?;
        }
        if let Err(error) = transaction.commit() {
            *database = None;
            let error = StoreError::from(error);
            tracing::error!(%error, store = %self.path.display(), "transaction not kept");
            return Err(error.into());
        }
        Ok(result)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Database>> {
        self.database.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The database, opened anew where the disk failed before. What was committed then is known again.
    fn ready<'a>(&self, database: &'a mut Option<Database>) -> Result<&'a Database, StoreError> {
        match database {
            Some(database) => Ok(database),
            closed => {
                let opened =
                    open_file(&self.path).map_err(|error| StoreError::Database(error.to_string()))?;
                if let Some(ledger) = &self.ledger {
                    // It may have what the file could not take.
                    fill(&opened, &**ledger)?;
                }
                let kept = table::all_workloads(&opened)?;
                self.workloads.send_if_modified(|workloads| {
                    let differs = **workloads != kept;
                    if differs {
                        *workloads = Arc::new(kept);
                    }
                    differs
                });
                Ok(closed.insert(opened))
            }
        }
    }
}

/// Whom a change is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// The ledger and the file.
    Everywhere,
    /// The file: it can be found out again.
    Here,
    /// The file, with the next other change: it may be lost in a crash.
    Softly,
}

/// Makes the file have what the ledger has.
fn fill(database: &Database, ledger: &dyn Ledger) -> Result<(), StoreError> {
    let records = ledger.load()?;
    let transaction = database.begin_write()?;
    ledger::fill(&transaction, &records)?;
    transaction.commit()?;
    let workloads = table::all_workloads(database)?;
    let transaction = database.begin_write()?;
    let claims = workloads.values().flat_map(|workload| workload.claims.values().copied());
    claim::count(&transaction, claims)?;
    Ok(transaction.commit()?)
}

fn open_file(path: &Path) -> Result<Database, OpenError> {
    let failed = |source: io::Error| OpenError::File { path: path.to_owned(), source };
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(failed)?;
    file.set_permissions(Permissions::from_mode(0o600)).map_err(failed)?;
    let backend = match redb::backends::FileBackend::new(file) {
        Ok(backend) => backend,
        Err(redb::DatabaseError::DatabaseAlreadyOpen) => {
            return Err(OpenError::InUse { path: path.to_owned() });
        }
        Err(error) => return Err(OpenError::Content { path: path.to_owned(), source: error.into() }),
    };
    match Database::builder().set_cache_size(CACHE).create_with_backend(backend) {
        Ok(database) => Ok(database),
        Err(redb::DatabaseError::DatabaseAlreadyOpen) => Err(OpenError::InUse { path: path.to_owned() }),
        Err(error) => Err(OpenError::Content { path: path.to_owned(), source: error.into() }),
    }
}

#[cfg(test)]
mod tests;
