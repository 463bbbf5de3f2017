//! Numbers of identities. A number keeps its labels while they are in use and through a quarantine after: an agent that
//! is cut off must not read a new meaning into an old number.

use std::collections::{BTreeMap, BTreeSet};

use pki::UnixTime;
use policy::identity::Identity;
use redb::ReadableTable as _;
use serde::{Deserialize, Serialize};

use super::table::{IDENTITIES, decode, encode};
use super::{Store, StoreError};

/// What is kept of an identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct IdentityRecord {
    /// Cilium's serialised form.
    labels: String,
    /// Since when nothing has these labels, in seconds since 1970.
    released_at: Option<u64>,
}

/// Why identities were not assigned.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There are more label sets than numbers.
    #[error("all {0} identities of the cluster are in use or resting: use fewer distinct label sets")]
    Exhausted(usize),
}

impl Store {
    /// Gives each label set (Cilium's serialised form) its number, the one it had before if it still has one. Numbers
    /// of label sets that are not asked for are released, and free again after the quarantine.
    ///
    /// # Errors
    /// [`IdentityError`]; then nothing changed.
    pub fn assign_identities(
        &self,
        in_use: &BTreeSet<String>,
        now: UnixTime,
    ) -> Result<BTreeMap<String, Identity>, IdentityError> {
        let before = self.identity_records()?;
        let after = self.plan_identities(&before, in_use, now)?;
        if after != before {
            self.write(|transaction| {
                for number in before.keys().filter(|number| !after.contains_key(number)) {
                    transaction.set_identity(*number, None)?;
                }
                for (number, record) in &after {
                    if before.get(number) != Some(record) {
                        transaction.set_identity(*number, Some(encode("identity", record)?))?;
                    }
                }
                Ok::<_, IdentityError>(())
            })?;
        }
        Ok(numbered(&after, in_use))
    }

    fn identity_records(&self) -> Result<BTreeMap<u32, IdentityRecord>, StoreError> {
        self.read(|transaction| {
            let mut records = BTreeMap::new();
            for entry in transaction.open_table(IDENTITIES)?.iter()? {
                let (number, bytes) = entry?;
                let number = number.value();
                records.insert(number, decode("identities", &number.to_string(), bytes.value())?);
            }
            Ok(records)
        })
    }

    fn plan_identities(
        &self,
        before: &BTreeMap<u32, IdentityRecord>,
        in_use: &BTreeSet<String>,
        now: UnixTime,
    ) -> Result<BTreeMap<u32, IdentityRecord>, IdentityError> {
        let mut after = before.clone();
        let rested =
            |released: u64| released.saturating_add(self.settings.quarantine.as_secs()) <= now.as_secs();
        after.retain(|_, record| in_use.contains(&record.labels) || !record.released_at.is_some_and(rested));
        for record in after.values_mut() {
            if in_use.contains(&record.labels) {
                record.released_at = None;
            } else {
                record.released_at.get_or_insert(now.as_secs());
            }
        }
        let known: BTreeSet<String> = after.values().map(|record| record.labels.clone()).collect();
        let cluster = u32::from(self.settings.cluster_id) << 16;
        let numbers = Identity::FIRST_ALLOCATED..=Identity::LAST_ALLOCATED;
        let count = numbers.clone().count();
        let mut numbers = numbers.map(|number| cluster | number);
        for labels in in_use.difference(&known) {
            let number = numbers
                .by_ref()
                .find(|number| !after.contains_key(number))
                .ok_or(IdentityError::Exhausted(count))?;
            after.insert(number, IdentityRecord { labels: labels.clone(), released_at: None });
        }
        Ok(after)
    }
}

fn numbered(
    records: &BTreeMap<u32, IdentityRecord>,
    in_use: &BTreeSet<String>,
) -> BTreeMap<String, Identity> {
    let entry = |(&number, record): (&u32, &IdentityRecord)| {
        let identity = Identity::try_new(number).ok()?;
        in_use.contains(&record.labels).then(|| (record.labels.clone(), identity))
    };
    records.iter().filter_map(entry).collect()
}
