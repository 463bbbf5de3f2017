//! Identities of the mesh: SPIFFE ids, keys, certificates, trust bundles, and the TLS configurations that accept
//! exactly those. It knows no protocol, no store and no clock: the time is an argument, or a [`TimeSource`] where TLS
//! asks for it during a handshake.

mod authority;
mod bundle;
mod csr;
mod issued;
mod key;
mod spiffe;
mod svid;
#[cfg(test)]
mod testing;
pub mod tls;

pub use rustls_pki_types::{CertificateDer, UnixTime};

pub use crate::authority::{Authority, InvalidAuthority, IssueError, Issued};
pub use crate::bundle::{InvalidBundle, TrustBundle, certificates_from_pem, certificates_to_pem};
pub use crate::csr::{CheckedCsr, InvalidCsr};
pub use crate::issued::{Asked, RootCertificate, UnfitCertificate, verify_issued};
pub use crate::key::{InvalidKey, InvalidKeyHash, KeyHash, KeyPair};
pub use crate::spiffe::{
    InvalidSpiffeId, Principal, SpiffeId, TrustDomain, is_dns1123_label, is_dns1123_subdomain,
};
pub use crate::svid::{InvalidSvid, Svid};

/// Where TLS reads the time during a handshake; tests give their own.
pub type TimeSource = std::sync::Arc<dyn rustls::time_provider::TimeProvider>;

/// The system's clock.
#[must_use]
pub fn system_time() -> TimeSource {
    std::sync::Arc::new(rustls::time_provider::DefaultTimeProvider)
}

/// The time as people write it, `2026-01-31T12:00:00Z`.
#[must_use]
pub fn display_time(at: UnixTime) -> String {
    let moment =
        i64::try_from(at.as_secs()).ok().and_then(|s| time::OffsetDateTime::from_unix_timestamp(s).ok());
    moment
        .and_then(|m| m.format(&time::format_description::well_known::Rfc3339).ok())
        .unwrap_or_else(|| format!("{} s after 1970", at.as_secs()))
}
