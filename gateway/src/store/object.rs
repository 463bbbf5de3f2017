//! The last valid version of each object of the source, so that a bad edit followed by a restart changes nothing.

use std::collections::BTreeMap;

use redb::ReadableTable as _;

use super::table::OBJECTS;
use super::{Store, StoreError};

impl Store {
    /// Every kept object, by its name; what the bytes mean is the caller's.
    ///
    /// # Errors
    /// [`StoreError`] where they cannot be read.
    pub fn kept_objects(&self) -> Result<BTreeMap<String, Vec<u8>>, StoreError> {
        self.read(|transaction| {
            let mut objects = BTreeMap::new();
            for entry in transaction.open_table(OBJECTS)?.iter()? {
                let (key, value) = entry?;
                objects.insert(key.value().to_owned(), value.value().to_vec());
            }
            Ok(objects)
        })
    }

    /// Keeps new versions (`None` forgets the object) in one transaction.
    ///
    /// # Errors
    /// [`StoreError`]; then the older versions stay.
    pub fn keep_objects(&self, changes: &BTreeMap<String, Option<Vec<u8>>>) -> Result<(), StoreError> {
        if changes.is_empty() {
            return Ok(());
        }
        self.write(|transaction| {
            let mut table = transaction.open_table(OBJECTS)?;
            for (name, version) in changes {
                match version {
                    Some(bytes) => table.insert(name.as_str(), bytes.as_slice())?,
                    None => table.remove(name.as_str())?,
                };
            }
            Ok(())
        })
    }
}
