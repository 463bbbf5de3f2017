//! Who holds an underlay address that several hosts report. Whoever connected from it comes before who only says to
//! have it, and among equals the first one holds it, for as long as it reports it and its certificate is valid. Kept
//! with the workload, so that a restart of the gateway changes no holder, and the end of a workload ends its claims.

use std::collections::BTreeMap;
use std::net::IpAddr;

use pki::UnixTime;
use redb::{ReadableTable as _, WriteTransaction};
use serde::{Deserialize, Serialize};

use super::ledger::Transaction;
use super::record::{Workload, WorkloadName};
use super::table::{NUMBERS, WORKLOADS, get, put};
use super::{Reach, Store, StoreError, Workloads};

/// The number of the last claim.
const ORDER: &str = "claims";

/// A workload's claim to an underlay address that it reports. Of several the least holds the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Claim {
    /// Whether a connection of the workload came from the address.
    pub proved: bool,
    /// When the claim was made, counted over all claims.
    pub order: u64,
}

impl Claim {
    /// The rank of a claim, least first. An address without a claim was reported to a gateway that kept none.
    #[must_use]
    pub fn rank(claim: Option<&Self>) -> (bool, u64) {
        claim.map_or((true, 0), |claim| (!claim.proved, claim.order))
    }
}

impl Workload {
    /// Whether it has a claim to everything it reports, and connected from `source` before.
    pub(super) fn has_claims(&self, source: Option<IpAddr>) -> bool {
        let proved = |source| self.claims.get(&source).is_none_or(|claim| claim.proved);
        self.underlay.iter().all(|address| self.claims.contains_key(address)) && source.is_none_or(proved)
    }
}

/// Brings the claims of a workload in line with what it reports. `source` is where its connection comes from.
pub(super) fn renew(
    transaction: &Transaction,
    workload: &mut Workload,
    source: Option<IpAddr>,
) -> Result<(), StoreError> {
    let mut claims = BTreeMap::new();
    for &address in &workload.underlay {
        let before = workload.claims.get(&address).copied();
        let proved = source == Some(address) || before.is_some_and(|before| before.proved);
        // Proving comes late also for who said it early: it takes nothing from who proved it first.
        let claim = match before.filter(|before| before.proved == proved) {
            Some(before) => before,
            None => Claim { proved, order: next_order(transaction)? },
        };
        claims.insert(address, claim);
    }
    workload.claims = claims;
    Ok(())
}

impl Store {
    /// Lets claims end whose workload's certificate has expired, where another workload waits for the address. The
    /// names of those that lost one.
    ///
    /// # Errors
    /// [`StoreError`]; then nothing changed.
    pub fn end_claims(&self, now: UnixTime) -> Result<Vec<WorkloadName>, StoreError> {
        let lost = lost(&self.workloads(), now);
        if lost.is_empty() {
            return Ok(Vec::new());
        }
        self.write_workloads(Reach::Here, |transaction| {
            let mut changed = Vec::new();
            for (name, addresses) in &lost {
                let text = name.to_string();
                let found: Option<Workload> = get(&transaction.open_table(WORKLOADS)?, "workloads", &text)?;
                let Some(mut workload) = found else { continue };
                for address in addresses {
                    let claim = Claim { proved: false, order: next_order(transaction)? };
                    workload.claims.insert(*address, claim);
                }
                put(transaction, WORKLOADS, &text, &workload)?;
                changed.push((name.clone(), Some(workload)));
            }
            Ok((changed.iter().map(|(name, _)| name.clone()).collect(), changed))
        })
    }
}

/// The addresses that workloads hold whose certificate has expired, while one with a valid one waits.
fn lost(workloads: &Workloads, now: UnixTime) -> BTreeMap<WorkloadName, Vec<IpAddr>> {
    let mut claimants: BTreeMap<IpAddr, Vec<&Workload>> = BTreeMap::new();
    for workload in workloads.values() {
        for address in &workload.underlay {
            claimants.entry(*address).or_default().push(workload);
        }
    }
    let expired = |workload: &Workload| workload.certificate_expires <= now.as_secs();
    let mut lost: BTreeMap<WorkloadName, Vec<IpAddr>> = BTreeMap::new();
    for (address, claimants) in claimants {
        let rank = |workload: &Workload| Claim::rank(workload.claims.get(&address));
        let waiting =
            claimants.iter().filter(|workload| !expired(workload)).map(|waiting| rank(waiting)).min();
        let Some(waiting) = waiting else { continue };
        for workload in claimants.iter().filter(|workload| expired(workload) && rank(workload) < waiting) {
            lost.entry(workload.name.clone()).or_default().push(address);
        }
    }
    lost
}

fn next_order(transaction: &Transaction) -> Result<u64, StoreError> {
    let last = transaction.open_table(NUMBERS)?.get(ORDER)?.map(|last| last.value());
    let next = last.map_or(1, |last| last.saturating_add(1));
    transaction.set_number(ORDER, next)?;
    Ok(next)
}

/// Claims that come are later than these.
pub(super) fn count(
    transaction: &WriteTransaction,
    claims: impl Iterator<Item = Claim>,
) -> Result<(), StoreError> {
    let last = claims.map(|claim| claim.order).max().unwrap_or_default();
    let mut numbers = transaction.open_table(NUMBERS)?;
    let known = numbers.get(ORDER)?.map_or(0, |known| known.value());
    numbers.insert(ORDER, known.max(last))?;
    Ok(())
}
