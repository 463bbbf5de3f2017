//! The roots of the mesh: the first is made with the store, so that a backup of one file is a backup of both. One signs;
//! during a rotation others are trusted beside it. Roots of an authority outside of the gateway are kept without a key.

use pki::{Authority, InvalidAuthority, InvalidBundle, KeyHash, RootCertificate, TrustDomain, UnixTime};
use redb::ReadableTable as _;
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
    /// One without a key cannot be read.
    #[error("a root of the store: {0}")]
    Certificate(#[from] InvalidBundle),
    /// The file of roots cannot be used.
    #[error("{} (`ca.trustBundle`): {reason}", path.display())]
    Bundle {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// None signs.
    #[error("the store has no root that signs")]
    NoneActive,
}

/// A root that is kept.
pub struct KeptRoot {
    /// Its name: the first digits of its key's hash.
    pub id: String,
    /// It.
    pub certificate: RootCertificate,
    /// It and its key; `None`: somebody else has that.
    pub authority: Option<Authority>,
    /// Whether it signs.
    pub active: bool,
    /// When it was made, in seconds since 1970.
    pub added_at: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RootRecord {
    certificate: String,
    /// Empty: somebody else has it.
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
pub fn root_id(pin: KeyHash) -> String {
    pin.to_string().chars().take(12).collect()
}

impl Store {
    /// All roots, oldest first, one of which has a key and signs; the first one is made at the first call.
    ///
    /// # Errors
    /// [`RootError`]; a store made for another trust domain is refused.
    pub fn roots(&self, trust_domain: &TrustDomain, now: UnixTime) -> Result<Vec<KeptRoot>, RootError> {
        self.write(|transaction| {
            first(transaction, trust_domain, now)?;
            kept(transaction, trust_domain)
        })
    }

    /// All roots that there are, oldest first, where somebody else signs.
    ///
    /// # Errors
    /// [`RootError`], as for [`Store::roots`].
    pub fn kept_roots(&self, trust_domain: &TrustDomain) -> Result<Vec<KeptRoot>, RootError> {
        self.try_out(|transaction| kept(transaction, trust_domain))
    }

    /// The root that signs; made at the first call.
    ///
    /// # Errors
    /// [`RootError`], as for all of them.
    pub fn authority(&self, trust_domain: &TrustDomain, now: UnixTime) -> Result<Authority, RootError> {
        let active = self.roots(trust_domain, now)?.into_iter().find(|root| root.active);
        active.and_then(|root| root.authority).ok_or(RootError::NoneActive)
    }

    /// Keeps one more root, which does not sign yet.
    ///
    /// # Errors
    /// [`StoreError`]; then it is not kept.
    pub fn add_root(&self, authority: &Authority, now: UnixTime) -> Result<(), StoreError> {
        self.write(|transaction| add(transaction, authority, false, now))
    }

    /// Keeps a root whose key somebody else has; a key that is known stays.
    ///
    /// # Errors
    /// [`StoreError`]; then it is not kept.
    pub fn keep_root(&self, root: &RootCertificate, now: UnixTime) -> Result<(), StoreError> {
        self.write(|transaction| {
            let id = root_id(root.pin());
            let found: Option<RootRecord> = get(&transaction.open_table(ROOTS)?, "roots", &id)?;
            if found.as_ref().is_some_and(|found| !found.key.is_empty()) {
                return Ok(());
            }
            let (active, added_at) =
                found.map_or((false, now.as_secs()), |found| (found.active, found.added_at));
            let certificate = pki::certificates_to_pem(std::slice::from_ref(root.certificate()));
            put(transaction, ROOTS, &id, &RootRecord { certificate, key: String::new(), active, added_at })
        })
    }

    /// Lets a root sign, and the others no longer. Whether there is such a root.
    ///
    /// # Errors
    /// [`StoreError`]; then nothing changed.
    pub fn activate_root(&self, id: &str) -> Result<bool, StoreError> {
        self.write(|transaction| {
            let records = records(transaction)?;
            let is_known = records.iter().any(|(known, _)| known == id);
            if is_known {
                activate(transaction, records, id)?;
            }
            Ok(is_known)
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
    let mut own = records(transaction)?;
    own.retain(|(_, record)| !record.key.is_empty());
    if own.iter().any(|(_, record)| record.active) {
        return Ok(());
    }
    // Somebody else has signed until now.
    if let Some((id, _)) = own.iter().max_by_key(|(_, record)| record.added_at) {
        let all = records(transaction)?;
        return Ok(activate(transaction, all, id)?);
    }
    let mut table = transaction.open_table(ROOT).map_err(StoreError::from)?;
    let mut take = |key: &str| -> Result<Option<Zeroizing<String>>, StoreError> {
        Ok(table.remove(key)?.map(|text| Zeroizing::new(text.value().to_owned())))
    };
    let authority = match (take("certificate")?, take("key")?) {
        (Some(certificate), Some(key)) => Authority::from_pem(trust_domain, &certificate, &key)?,
        _ => Authority::create(trust_domain, now)?,
    };
    add(transaction, &authority, false, now)?;
    let all = records(transaction)?;
    Ok(activate(transaction, all, &root_id(authority.pin()))?)
}

fn records(transaction: &Transaction) -> Result<Vec<(String, RootRecord)>, StoreError> {
    let mut records = Vec::new();
    for entry in transaction.open_table(ROOTS)?.iter()? {
        let (id, bytes) = entry?;
        records.push((id.value().to_owned(), decode("roots", id.value(), bytes.value())?));
    }
    Ok(records)
}

fn activate(
    transaction: &Transaction,
    records: Vec<(String, RootRecord)>,
    id: &str,
) -> Result<(), StoreError> {
    for (known, mut record) in records {
        if record.active != (known == id) {
            record.active = known == id;
            put(transaction, ROOTS, &known, &record)?;
        }
    }
    Ok(())
}

fn kept(transaction: &Transaction, trust_domain: &TrustDomain) -> Result<Vec<KeptRoot>, RootError> {
    let mut roots = Vec::new();
    for (id, record) in records(transaction)? {
        let mut certificates = pki::certificates_from_pem(&record.certificate)?;
        let certificate = RootCertificate::try_new(certificates.remove(0))?;
        let authority = match record.key.as_str() {
            "" => None,
            key => Some(Authority::from_pem(trust_domain, &record.certificate, key)?),
        };
        roots.push(KeptRoot { id, certificate, authority, active: record.active, added_at: record.added_at });
    }
    roots.sort_by(|a, b| (a.added_at, &a.id).cmp(&(b.added_at, &b.id)));
    Ok(roots)
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
    put(transaction, ROOTS, &root_id(authority.pin()), &record)
}
