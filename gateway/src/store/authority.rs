//! The roots of the mesh: the first is made with the store, so that a backup of one file is a backup of both. One signs;
//! during a rotation others are trusted beside it.

use pki::{Authority, InvalidAuthority, TrustDomain, UnixTime};
use redb::{ReadableTable as _, ReadableTableMetadata as _};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::ledger::Transaction;
use super::table::{ROOT, ROOTS, decode, get, put, remove};
use super::{Store, StoreError};

/// Why there is no root.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It cannot be made or read.
    #[error(transparent)]
    Authority(#[from] InvalidAuthority),
    /// None signs.
    #[error("the store has no root that signs")]
    NoneActive,
}

/// A root that is kept.
pub struct KeptRoot {
    /// Its name: the first digits of its key's hash.
    pub id: String,
    /// It and its key.
    pub authority: Authority,
    /// Whether it signs.
    pub active: bool,
    /// When it was made, in seconds since 1970.
    pub added_at: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RootRecord {
    certificate: String,
    key: String,
    active: bool,
    added_at: u64,
}

impl Drop for RootRecord {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.key);
    }
}

/// The name of a root.
#[must_use]
pub fn root_id(authority: &Authority) -> String {
    authority.pin().to_string().chars().take(12).collect()
}

impl Store {
    /// All roots, oldest first; the first one is made at the first call.
    ///
    /// # Errors
    /// [`RootError`]; a store made for another trust domain is refused.
    pub fn roots(&self, trust_domain: &TrustDomain, now: UnixTime) -> Result<Vec<KeptRoot>, RootError> {
        self.write(|transaction| {
            first(transaction, trust_domain, now)?;
            let table = transaction.open_table(ROOTS).map_err(StoreError::from)?;
            let mut roots = Vec::new();
            for entry in table.iter().map_err(StoreError::from)? {
                let (id, bytes) = entry.map_err(StoreError::from)?;
                let record: RootRecord = decode("roots", id.value(), bytes.value())?;
                let authority = Authority::from_pem(trust_domain, &record.certificate, &record.key)?;
                let (active, added_at) = (record.active, record.added_at);
                roots.push(KeptRoot { id: id.value().to_owned(), authority, active, added_at });
            }
            roots.sort_by(|a, b| (a.added_at, &a.id).cmp(&(b.added_at, &b.id)));
            Ok(roots)
        })
    }

    /// The root that signs; made at the first call.
    ///
    /// # Errors
    /// [`RootError`], as for all of them.
    pub fn authority(&self, trust_domain: &TrustDomain, now: UnixTime) -> Result<Authority, RootError> {
        let active = self.roots(trust_domain, now)?.into_iter().find(|root| root.active);
        active.map(|root| root.authority).ok_or(RootError::NoneActive)
    }

    /// Keeps one more root, which does not sign yet.
    ///
    /// # Errors
    /// [`StoreError`]; then it is not kept.
    pub fn add_root(&self, authority: &Authority, now: UnixTime) -> Result<(), StoreError> {
        self.write(|transaction| add(transaction, authority, false, now))
    }

    /// Lets a root sign, and the others no longer. Whether there is such a root.
    ///
    /// # Errors
    /// [`StoreError`]; then nothing changed.
    pub fn activate_root(&self, id: &str) -> Result<bool, StoreError> {
        self.write(|transaction| {
            let mut records: Vec<(String, RootRecord)> = Vec::new();
            for entry in transaction.open_table(ROOTS)?.iter()? {
                let (id, bytes) = entry?;
                records.push((id.value().to_owned(), decode("roots", id.value(), bytes.value())?));
            }
            if !records.iter().any(|(known, _)| known == id) {
                return Ok(false);
            }
            for (known, record) in &mut records {
                record.active = known == id;
                put(transaction, ROOTS, known, record)?;
            }
            Ok(true)
        })
    }

    /// Forgets a root that does not sign. Whether there was one.
    ///
    /// # Errors
    /// [`StoreError`]; then nothing changed.
    pub fn remove_root(&self, id: &str) -> Result<bool, StoreError> {
        self.write(|transaction| {
            let found: Option<RootRecord> = get(&transaction.open_table(ROOTS)?, "roots", id)?;
            let removable = found.is_some_and(|found| !found.active);
            if removable {
                remove(transaction, ROOTS, id)?;
            }
            Ok(removable)
        })
    }
}

/// Makes the first root, or takes it from where a single one was kept.
fn first(transaction: &Transaction, trust_domain: &TrustDomain, now: UnixTime) -> Result<(), RootError> {
    if !transaction.open_table(ROOTS).map_err(StoreError::from)?.is_empty().map_err(StoreError::from)? {
        return Ok(());
    }
    let mut table = transaction.open_table(ROOT).map_err(StoreError::from)?;
    let mut take = |key: &str| -> Result<Option<Zeroizing<String>>, StoreError> {
        Ok(table.remove(key)?.map(|text| Zeroizing::new(text.value().to_owned())))
    };
    let authority = match (take("certificate")?, take("key")?) {
        (Some(certificate), Some(key)) => Authority::from_pem(trust_domain, &certificate, &key)?,
        _ => Authority::create(trust_domain, now)?,
    };
    Ok(add(transaction, &authority, true, now)?)
}

fn add(
    transaction: &Transaction,
    authority: &Authority,
    active: bool,
    now: UnixTime,
) -> Result<(), StoreError> {
    let record = RootRecord {
        certificate: authority.certificate_pem(),
        key: authority.key_pem().to_string(),
        active,
        added_at: now.as_secs(),
    };
    put(transaction, ROOTS, &root_id(authority), &record)
}
