//! Which roots hosts have, and which one signed their certificates: what a rotation of the root waits for. What a host
//! was given counts once it has shown the certificate that came with it.

use std::collections::BTreeMap;

use redb::ReadableTable as _;
use serde::{Deserialize, Serialize};

use super::record::WorkloadName;
use super::table::{TRUSTS, decode, get, put};
use super::{Store, StoreError};

/// What a host was given with a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Given {
    /// The root that signed the certificate.
    pub issuer: String,
    /// The roots it was given to trust.
    pub roots: Vec<String>,
    /// When the certificate ends, in seconds since 1970: what tells it from others.
    pub expires: u64,
}

/// What is known of one host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Trust {
    given: Option<Given>,
    confirmed: Option<Given>,
}

impl Store {
    /// Records what a workload is given. Kept with the next other change: what is lost in a crash is given again.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn gave(&self, name: &WorkloadName, given: Given) -> Result<(), StoreError> {
        self.write_softly(|transaction| {
            let text = name.to_string();
            let found: Option<Trust> = get(&transaction.open_table(TRUSTS)?, "trusts", &text)?;
            let trust = Trust { given: Some(given), ..found.unwrap_or_default() };
            put(transaction, TRUSTS, &text, &trust)
        })
    }

    /// Learns that a workload has the certificate that ends then; writes nothing where that is known. What came with
    /// that certificate, if it is known.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn confirm_given(&self, name: &WorkloadName, expires: u64) -> Result<Option<Given>, StoreError> {
        let text = name.to_string();
        let found: Option<Trust> =
            self.read(|transaction| get(&transaction.open_table(TRUSTS)?, "trusts", &text))?;
        let Trust { given, confirmed } = found.unwrap_or_default();
        let is_shown = |given: &Given| given.expires == expires;
        let Some(given) = given.filter(is_shown) else { return Ok(confirmed.filter(is_shown)) };
        if confirmed.as_ref() != Some(&given) {
            let trust = Trust { given: Some(given.clone()), confirmed: Some(given.clone()) };
            self.write_softly(|transaction| put(transaction, TRUSTS, &text, &trust))?;
        }
        Ok(Some(given))
    }

    /// What each workload has shown to have; `None`: nothing yet.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn confirmed_trust(&self) -> Result<BTreeMap<WorkloadName, Option<Given>>, StoreError> {
        let mut trusts: BTreeMap<String, Trust> = self.read(|transaction| {
            let mut trusts = BTreeMap::new();
            for entry in transaction.open_table(TRUSTS)?.iter()? {
                let (name, bytes) = entry?;
                trusts.insert(name.value().to_owned(), decode("trusts", name.value(), bytes.value())?);
            }
            Ok(trusts)
        })?;
        let workloads = self.workloads();
        let mut confirmed =
            |name: &WorkloadName| trusts.remove(&name.to_string()).and_then(|trust| trust.confirmed);
        Ok(workloads.keys().map(|name| (name.clone(), confirmed(name))).collect())
    }
}
