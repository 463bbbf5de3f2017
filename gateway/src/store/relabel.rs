//! Changes of identities that are under way, as texts: a restart goes on with them, so that what senders still write is
//! known.

use std::collections::BTreeMap;

use redb::ReadableTable as _;
use serde::{Deserialize, Serialize};

use super::table::{RELABELS, decode, put, remove};
use super::{Store, StoreError};

/// A change of an address's identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RelabelRecord {
    /// The number that some senders may still write.
    pub previous: u32,
    /// The number that senders are told to write.
    pub mark: u32,
    /// Whose address it is.
    pub owner: Option<String>,
}

/// All changes that are under way, by address.
pub type RelabelRecords = BTreeMap<String, RelabelRecord>;

impl Store {
    /// The changes that were under way last.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn relabels(&self) -> Result<RelabelRecords, StoreError> {
        self.read(|transaction| {
            let mut all = BTreeMap::new();
            for entry in transaction.open_table(RELABELS)?.iter()? {
                let (address, bytes) = entry?;
                let address = address.value();
                all.insert(address.to_owned(), decode("relabels", address, bytes.value())?);
            }
            Ok(all)
        })
    }

    /// Keeps the changes that are under way. `before` is what is kept.
    ///
    /// # Errors
    /// [`StoreError`]; then `before` is still kept.
    pub fn keep_relabels(&self, before: &RelabelRecords, now: &RelabelRecords) -> Result<(), StoreError> {
        self.write(|transaction| {
            for (address, record) in
                now.iter().filter(|(address, record)| before.get(*address) != Some(record))
            {
                put(transaction, RELABELS, address, record)?;
            }
            for address in before.keys().filter(|address| !now.contains_key(*address)) {
                remove(transaction, RELABELS, address)?;
            }
            Ok(())
        })
    }
}
