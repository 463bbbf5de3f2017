//! The root of the mesh: made once, with the store, so that a backup of one file is a backup of both.

use pki::{Authority, InvalidAuthority, TrustDomain, UnixTime};
use redb::ReadableTable as _;

use super::table::ROOT;
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
}

impl Store {
    /// The root of the trust domain; made at the first call.
    ///
    /// # Errors
    /// [`RootError`]; a store made for another trust domain is refused.
    pub fn authority(&self, trust_domain: &TrustDomain, now: UnixTime) -> Result<Authority, RootError> {
        self.write(|transaction| {
            let mut table = transaction.open_table(ROOT).map_err(StoreError::from)?;
            let read = |key: &str| -> Result<Option<zeroize::Zeroizing<String>>, StoreError> {
                Ok(table.get(key)?.map(|text| zeroize::Zeroizing::new(text.value().to_owned())))
            };
            if let (Some(certificate), Some(key)) = (read("certificate")?, read("key")?) {
                return Ok(Authority::from_pem(trust_domain, &certificate, &key)?);
            }
            let authority = Authority::create(trust_domain, now)?;
            table.insert("certificate", authority.certificate_pem().as_str()).map_err(StoreError::from)?;
            table.insert("key", authority.key_pem().as_str()).map_err(StoreError::from)?;
            Ok(authority)
        })
    }
}
