//! Workloads after they joined: renewals, reports, and their end.

use std::net::IpAddr;
use std::time::Duration;

use pki::{KeyHash, UnixTime};
use redb::ReadableTable;
use serde::{Deserialize, Serialize};

use super::ledger::Transaction;
use super::record::{Workload, WorkloadName};
use super::table::{REVOKED_KEYS, SEEN, TOKENS, TRUSTS, WORKLOADS, decode, get, put, remove};
use super::{Reach, Store, StoreError, Token, address, claim};

/// What an agent says about its host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Where its tunnel packets come from, preferred first.
    pub underlay: Vec<IpAddr>,
    /// Where its connection comes from, if that proves an address.
    pub source: Option<IpAddr>,
    /// The agent's version.
    pub agent_version: String,
}

/// Why a certificate is not renewed, or a session not opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RenewRefusal {
    /// There is no such workload.
    #[error("workload {0} is not known to this gateway: it was deleted or left, join anew")]
    Unknown(WorkloadName),
    /// The key was revoked.
    #[error("the key of workload {name} was revoked when it was {reason}")]
    Revoked {
        /// The workload.
        name: WorkloadName,
        /// Why.
        reason: String,
    },
    /// The key is another one than the recorded one.
    #[error("the certificate's key is not the one workload {0} joined with")]
    Key(WorkloadName),
}

/// Why a workload was not changed.
#[derive(Debug, thiserror::Error)]
pub enum WorkloadError {
    /// It may not.
    #[error(transparent)]
    Refused(#[from] RenewRefusal),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A key that is never accepted again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RevokedKey {
    /// Whose it was.
    pub(super) workload: WorkloadName,
    /// When, in seconds since 1970.
    pub(super) revoked_at: u64,
    /// `replaced`, `deleted` or `left`.
    pub(super) reason: String,
}

impl RenewRefusal {
    /// The reason as one word, for the audit log and metrics.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Unknown(_) => "workload-unknown",
            Self::Revoked { .. } => "key-revoked",
            Self::Key(_) => "key-foreign",
        }
    }
}

impl RevokedKey {
    pub(super) fn new(workload: &WorkloadName, now: UnixTime, reason: &str) -> Self {
        Self { workload: workload.clone(), revoked_at: now.as_secs(), reason: reason.to_owned() }
    }

    pub(super) fn keep(&self, transaction: &Transaction, key: KeyHash) -> Result<(), StoreError> {
        put(transaction, REVOKED_KEYS, &key.to_string(), self)
    }
}

impl Store {
    /// The workload that a certificate's name and key prove.
    ///
    /// # Errors
    /// [`WorkloadError::Refused`] where it is gone, was revoked, or joined with another key.
    pub fn authorise(
        &self,
        name: &WorkloadName,
        key: KeyHash,
    ) -> Result<std::sync::Arc<Workload>, WorkloadError> {
        let found = self.workload(name);
        if let Some(workload) = found.as_ref().filter(|workload| workload.key == key) {
            return Ok(workload.clone());
        }
        let revoked: Option<RevokedKey> = self.read(|transaction| {
            get(&transaction.open_table(REVOKED_KEYS)?, "revoked_keys", &key.to_string())
        })?;
        Err(match (revoked, found) {
            (Some(RevokedKey { reason, .. }), _) => RenewRefusal::Revoked { name: name.clone(), reason },
            (None, None) => RenewRefusal::Unknown(name.clone()),
            (None, Some(_)) => RenewRefusal::Key(name.clone()),
        }
        .into())
    }

    /// Records that a certificate was renewed, until `expires`: the workload must still have the key.
    ///
    /// # Errors
    /// [`WorkloadError`]; then nothing changed, and nobody may be given the certificate.
    pub fn renew(&self, name: &WorkloadName, key: KeyHash, expires: UnixTime) -> Result<(), WorkloadError> {
        self.authorise(name, key)?;
        self.write_workloads(Reach::Here, |transaction| {
            let text = name.to_string();
            let mut workload =
                holder(&transaction.open_table(WORKLOADS).map_err(StoreError::from)?, name, key)?;
            workload.certificate_expires = expires.as_secs();
            put(transaction, WORKLOADS, &text, &workload)?;
            Ok(((), vec![(name.clone(), Some(workload))]))
        })
    }

    /// Whether an agent reports what is recorded. Looks at memory alone, where the workload has the key.
    ///
    /// # Errors
    /// [`WorkloadError`] where the workload is gone or has another key, or the store failed.
    pub fn is_reported(
        &self,
        name: &WorkloadName,
        key: KeyHash,
        report: &Report,
    ) -> Result<bool, WorkloadError> {
        let known = self.authorise(name, key)?;
        let same = known.underlay == report.underlay && known.agent_version == report.agent_version;
        Ok(same && known.has_claims(report.source))
    }

    /// Records what an agent reports; writes nothing where nothing changed.
    ///
    /// # Errors
    /// [`WorkloadError`] where the workload is gone or has another key, or the store failed.
    pub fn report(&self, name: &WorkloadName, key: KeyHash, report: &Report) -> Result<(), WorkloadError> {
        if self.is_reported(name, key, report)? {
            return Ok(());
        }
        self.write_workloads(Reach::Here, |transaction| {
            let text = name.to_string();
            let mut workload =
                holder(&transaction.open_table(WORKLOADS).map_err(StoreError::from)?, name, key)?;
            workload.underlay.clone_from(&report.underlay);
            workload.agent_version.clone_from(&report.agent_version);
            claim::renew(transaction, &mut workload, report.source)?;
            put(transaction, WORKLOADS, &text, &workload)?;
            Ok(((), vec![(name.clone(), Some(workload))]))
        })
    }

    /// Records when workloads were seen. Kept with the next other change: losing it in a crash harms nobody.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn seen(&self, names: &[WorkloadName], now: UnixTime) -> Result<(), StoreError> {
        if names.is_empty() {
            return Ok(());
        }
        self.write_softly(|transaction| {
            let mut table = transaction.open_table(SEEN)?;
            for name in names.iter().filter(|name| self.workload(name).is_some()) {
                table.insert(name.to_string().as_str(), now.as_secs())?;
            }
            Ok(())
        })
    }

    /// When a workload was last seen; `None` where it never was.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn last_seen(&self, name: &WorkloadName) -> Result<Option<UnixTime>, StoreError> {
        self.read(|transaction| {
            let found = transaction.open_table(SEEN)?.get(name.to_string().as_str())?;
            Ok(found.map(|seconds| super::unix_time(seconds.value())))
        })
    }

    /// Ends a workload: its key is revoked, its addresses rest, its name is free.
    ///
    /// # Errors
    /// [`WorkloadError`]; then nothing changed.
    pub fn remove(
        &self,
        name: &WorkloadName,
        now: UnixTime,
        reason: &'static str,
    ) -> Result<Workload, WorkloadError> {
        self.end(name, None, now, reason)
    }

    /// Ends a workload at its own wish: like [`Store::remove`], if it still has the key.
    ///
    /// # Errors
    /// [`WorkloadError`]; then nothing changed.
    pub fn leave(&self, name: &WorkloadName, key: KeyHash, now: UnixTime) -> Result<(), WorkloadError> {
        self.authorise(name, key)?;
        self.end(name, Some(key), now, "left").map(drop)
    }

    fn end(
        &self,
        name: &WorkloadName,
        key: Option<KeyHash>,
        now: UnixTime,
        reason: &'static str,
    ) -> Result<Workload, WorkloadError> {
        self.write_workloads(Reach::Everywhere, |transaction| {
            let text = name.to_string();
            let found: Option<Workload> =
                get(&transaction.open_table(WORKLOADS).map_err(StoreError::from)?, "workloads", &text)?;
            let workload = found.ok_or_else(|| RenewRefusal::Unknown(name.clone()))?;
            if key.is_some_and(|key| key != workload.key) {
                return Err(RenewRefusal::Key(name.clone()).into());
            }
            remove(transaction, WORKLOADS, &text)?;
            let mut seen = transaction.open_table(SEEN).map_err(StoreError::from)?;
            seen.remove(text.as_str()).map_err(StoreError::from)?;
            let mut trusts = transaction.open_table(TRUSTS).map_err(StoreError::from)?;
            trusts.remove(text.as_str()).map_err(StoreError::from)?;
            RevokedKey::new(name, now, reason).keep(transaction, workload.key)?;
            address::release(transaction, name, &workload.addresses, now)?;
            Ok((workload, vec![(name.clone(), None)]))
        })
    }

    /// Forgets tokens and revoked keys that nobody can use any more.
    ///
    /// # Errors
    /// [`StoreError`]; then nothing is forgotten.
    pub fn tidy(&self, now: UnixTime, after: Duration) -> Result<(), StoreError> {
        let old = |at: u64| at.saturating_add(after.as_secs()) < now.as_secs();
        let forgotten = self.read(|transaction| {
            let mut forgotten = Vec::new();
            for entry in transaction.open_table(TOKENS)?.iter()? {
                let (key, bytes) = entry?;
                if old(decode::<Token>("tokens", key.value(), bytes.value())?.expires_at) {
                    forgotten.push((TOKENS, key.value().to_owned()));
                }
            }
            for entry in transaction.open_table(REVOKED_KEYS)?.iter()? {
                let (key, bytes) = entry?;
                if old(decode::<RevokedKey>("revoked_keys", key.value(), bytes.value())?.revoked_at) {
                    forgotten.push((REVOKED_KEYS, key.value().to_owned()));
                }
            }
            Ok(forgotten)
        })?;
        if forgotten.is_empty() {
            return Ok(());
        }
        self.write(|transaction| {
            forgotten.iter().try_for_each(|(table, key)| remove(transaction, *table, key))
        })
    }
}

/// The workload, if it has the key.
fn holder(
    table: &impl ReadableTable<&'static str, &'static [u8]>,
    name: &WorkloadName,
    key: KeyHash,
) -> Result<Workload, WorkloadError> {
    let found: Option<Workload> = get(table, "workloads", &name.to_string())?;
    let workload = found.ok_or_else(|| RenewRefusal::Unknown(name.clone()))?;
    if workload.key == key { Ok(workload) } else { Err(RenewRefusal::Key(name.clone()).into()) }
}
