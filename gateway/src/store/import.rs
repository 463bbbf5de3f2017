//! What others do to records that a ledger keeps: hosts and tokens that an administrator puts into the cluster or takes out
//! of it.

use std::net::IpAddr;

use super::ledger::Transaction;
use super::record::{Token, Workload, WorkloadName};
use super::table::{REVOKED_KEYS, TOKENS, WORKLOADS, get, put, remove};
use super::workload::RevokedKey;
use super::{Reach, Store, StoreError};

/// What became of a host that the ledger has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Import {
    /// It is known, and stays as it is.
    Known,
    /// It is served from now on.
    Taken,
    /// It is not served, and why.
    Refused(ImportRefusal),
}

/// Why a host that the ledger has is not served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImportRefusal {
    /// Its key was revoked.
    #[error("its key was revoked when workload {workload} was {reason}")]
    Revoked {
        /// Whose key it was.
        workload: WorkloadName,
        /// Why it was revoked.
        reason: String,
    },
    /// Another workload has its key or an address of it.
    #[error("workload {0} has its key or one of its addresses")]
    Held(WorkloadName),
    /// An address of it is in no pool.
    #[error("address {0} is in none of the gateway's workload pools")]
    Outside(IpAddr),
}

impl Store {
    /// Takes a host that the ledger has. One that is known stays as it is known: only a gateway changes it.
    ///
    /// # Errors
    /// [`StoreError`]; then nothing changed.
    pub fn take(&self, workload: Workload) -> Result<Import, StoreError> {
        let name = workload.name.clone();
        if self.workload(&name).is_some() {
            return Ok(Import::Known);
        }
        self.write_workloads(Reach::Here, |transaction| {
            let import = self.judge(transaction, &workload)?;
            if import != Import::Taken {
                return Ok((import, Vec::new()));
            }
            put(transaction, WORKLOADS, &name.to_string(), &workload)?;
            if let Some(token) = uses(transaction, &workload)? {
                put(transaction, TOKENS, &token.id, &token)?;
            }
            Ok((import, vec![(name, Some(workload))]))
        })
    }

    fn judge(&self, transaction: &Transaction, workload: &Workload) -> Result<Import, StoreError> {
        let workloads = self.workloads();
        if workloads.contains_key(&workload.name) {
            return Ok(Import::Known);
        }
        let key = workload.key.to_string();
        let revoked: Option<RevokedKey> = get(&transaction.open_table(REVOKED_KEYS)?, "revoked_keys", &key)?;
        if let Some(RevokedKey { workload, reason, .. }) = revoked {
            return Ok(Import::Refused(ImportRefusal::Revoked { workload, reason }));
        }
        let shares = |other: &&std::sync::Arc<Workload>| {
            other.key == workload.key || other.addresses.iter().any(|own| workload.addresses.contains(own))
        };
        if let Some(other) = workloads.values().find(shares) {
            return Ok(Import::Refused(ImportRefusal::Held(other.name.clone())));
        }
        let pools = &self.settings.pools;
        let outside = workload.addresses.iter().find(|address| !pools.contains(**address));
        Ok(outside.map_or(Import::Taken, |address| Import::Refused(ImportRefusal::Outside(*address))))
    }

    /// Gives the ledger again what it has lost of a host that nobody removed. Whether there is such a host.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn keep_again(&self, name: &WorkloadName) -> Result<bool, StoreError> {
        if self.workload(name).is_none() {
            return Ok(false);
        }
        self.write(|transaction| {
            let text = name.to_string();
            let found: Option<Workload> = get(&transaction.open_table(WORKLOADS)?, "workloads", &text)?;
            let Some(workload) = found else { return Ok(false) };
            put(transaction, WORKLOADS, &text, &workload)?;
            Ok(true)
        })
    }

    /// Takes a token that the ledger has. Uses that are known here count, and revoking is for good.
    ///
    /// # Errors
    /// [`StoreError`]; then nothing changed.
    pub fn take_token(&self, token: &Token) -> Result<(), StoreError> {
        let known =
            self.read(|transaction| get::<Token>(&transaction.open_table(TOKENS)?, "tokens", &token.id))?;
        if known.as_ref() == Some(&merged(token, known.as_ref())) {
            return Ok(());
        }
        self.transact(&mut self.lock(), Reach::Here, |transaction| {
            let known: Option<Token> = get(&transaction.open_table(TOKENS)?, "tokens", &token.id)?;
            put(transaction, TOKENS, &token.id, &merged(token, known.as_ref()))
        })
    }

    /// Forgets a token that the ledger has no more.
    ///
    /// # Errors
    /// [`StoreError`]; then it is still valid.
    pub fn forget_token(&self, id: &str) -> Result<(), StoreError> {
        self.transact(&mut self.lock(), Reach::Here, |transaction| remove(transaction, TOKENS, id))
    }
}

/// The token as the ledger has it, with what is known here of its uses.
fn merged(token: &Token, known: Option<&Token>) -> Token {
    let mut token = token.clone();
    let Some(known) = known else { return token };
    token.revoked |= known.revoked;
    token.uses_left = token.uses_left.min(known.uses_left);
    let newer: Vec<_> = token.used_by.into_iter().filter(|name| !known.used_by.contains(name)).collect();
    token.used_by = known.used_by.iter().cloned().chain(newer).collect();
    token.created_at = known.created_at;
    token.expires_at = token.expires_at.min(known.expires_at);
    token
}

/// The token that a host joined with, with this use of it; `None` where it counts already.
fn uses(transaction: &Transaction, workload: &Workload) -> Result<Option<Token>, StoreError> {
    let found: Option<Token> = get(&transaction.open_table(TOKENS)?, "tokens", &workload.joined_with)?;
    Ok(found.filter(|token| !token.used_by.contains(&workload.name)).map(|mut token| {
        token.uses_left = token.uses_left.saturating_sub(1);
        token.used_by.push(workload.name.clone());
        token
    }))
}
