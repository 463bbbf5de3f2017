//! The tables and how records are read from and written to them.

use redb::{Database, ReadableDatabase as _, ReadableTable, TableDefinition};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::ledger::Transaction;
use super::{StoreError, Workload, Workloads};

/// Counters and other single numbers.
pub(super) const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");
/// Where a single root certificate and its key, in PEM, were kept before there could be several.
pub(super) const ROOT: TableDefinition<'_, &str, &str> = TableDefinition::new("root");
/// Roots by their names.
pub(super) const ROOTS: Records = TableDefinition::new("roots");
/// What workloads were given to trust, by name.
pub(super) const TRUSTS: Records = TableDefinition::new("trusts");
/// Tokens by id.
pub(super) const TOKENS: Records = TableDefinition::new("tokens");
/// Workloads by name.
pub(super) const WORKLOADS: Records = TableDefinition::new("workloads");
/// When a workload was last seen, by name.
pub(super) const SEEN: TableDefinition<'_, &str, u64> = TableDefinition::new("seen");
/// Keys that are no longer valid, by their hash.
pub(super) const REVOKED_KEYS: Records = TableDefinition::new("revoked_keys");
/// Addresses that rest, by address.
pub(super) const RESTING_ADDRESSES: Records = TableDefinition::new("resting_addresses");
/// Identities by number.
pub(super) const IDENTITIES: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("identities");
/// Changes of identities that are under way, by address.
pub(super) const RELABELS: Records = TableDefinition::new("relabels");
/// Starts of gateways, by their runs in hex.
pub(super) const RUNS: Records = TableDefinition::new("runs");
/// The last valid version of each object.
pub(super) const OBJECTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("objects");

/// A table of JSON records.
pub(super) type Records = TableDefinition<'static, &'static str, &'static [u8]>;

/// Makes the tables, and says which format they have.
pub(super) fn prepare(database: &Database, format: u64) -> Result<u64, StoreError> {
    let transaction = database.begin_write()?;
    let found = {
        let mut numbers = transaction.open_table(NUMBERS)?;
        let found = numbers.get("format")?.map(|found| found.value());
        if found.is_none() {
            numbers.insert("format", format)?;
        }
        found.unwrap_or(format)
    };
    if found <= format {
        transaction.open_table(ROOT)?;
        let mut all = vec![TOKENS, WORKLOADS, REVOKED_KEYS, RESTING_ADDRESSES, RELABELS, OBJECTS, ROOTS];
        all.extend([TRUSTS, RUNS]);
        for records in all {
            transaction.open_table(records)?;
        }
        transaction.open_table(SEEN)?;
        transaction.open_table(IDENTITIES)?;
    }
    transaction.commit()?;
    Ok(found)
}

/// Every workload.
pub(super) fn all_workloads(database: &Database) -> Result<Workloads, StoreError> {
    let transaction = database.begin_read()?;
    let table = transaction.open_table(WORKLOADS)?;
    let mut workloads = Workloads::new();
    for entry in table.iter()? {
        let (key, value) = entry?;
        let workload: Workload = decode("workloads", key.value(), value.value())?;
        workloads.insert(workload.name.clone(), workload.into());
    }
    Ok(workloads)
}

/// One record.
pub(super) fn get<T: DeserializeOwned>(
    table: &impl ReadableTable<&'static str, &'static [u8]>,
    name: &'static str,
    key: &str,
) -> Result<Option<T>, StoreError> {
    table.get(key)?.map(|value| decode(name, key, value.value())).transpose()
}

/// Writes one record.
pub(super) fn put<T: Serialize>(
    transaction: &Transaction,
    table: Records,
    key: &str,
    record: &T,
) -> Result<(), StoreError> {
    transaction.set(table, key, Some(encode(key, record)?))
}

/// Removes one record.
pub(super) fn remove(transaction: &Transaction, table: Records, key: &str) -> Result<(), StoreError> {
    transaction.set(table, key, None)
}

/// A record from its bytes.
pub(super) fn decode<T: DeserializeOwned>(
    table: &'static str,
    key: &str,
    bytes: &[u8],
) -> Result<T, StoreError> {
    serde_json::from_slice(bytes).map_err(|e| StoreError::Record {
        table,
        key: key.to_owned(),
        reason: e.to_string(),
    })
}

/// The bytes of a record.
pub(super) fn encode<T: Serialize>(key: &str, record: &T) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(record).map_err(|e| StoreError::Database(format!("writing {key:?}: {e}")))
}
