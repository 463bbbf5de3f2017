//! What the tests of this crate share: two authorities, a key, certificates that a real authority would not issue.

use std::sync::OnceLock;
use std::time::Duration;

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, SanType};
use rustls_pki_types::{CertificateDer, UnixTime};

use crate::{Authority, CheckedCsr, Issued, KeyPair, SpiffeId, TrustDomain};

/// The time in tests: 2026-01-01, 1767225600.
pub(crate) const NOW: UnixTime = UnixTime::since_unix_epoch(Duration::from_hours(490_896));
/// An hour.
pub(crate) const HOUR: Duration = Duration::from_hours(1);

pub(crate) fn domain() -> TrustDomain {
    TrustDomain::try_new("outrigger.local").unwrap()
}

fn read(pems: &(String, String)) -> Authority {
    Authority::from_pem(&domain(), &pems.0, &pems.1).unwrap()
}

fn made() -> (String, String) {
    let authority = Authority::create(&domain(), NOW).unwrap();
    (authority.certificate_pem(), authority.key_pem().to_string())
}

/// The authority of the tests; the same each time.
pub(crate) fn authority() -> Authority {
    static PEMS: OnceLock<(String, String)> = OnceLock::new();
    read(PEMS.get_or_init(made))
}

/// Another authority of the same trust domain, which nobody trusts.
pub(crate) fn other_authority() -> Authority {
    static PEMS: OnceLock<(String, String)> = OnceLock::new();
    read(PEMS.get_or_init(made))
}

/// The key of the tests; the same each time.
pub(crate) fn key() -> KeyPair {
    static PEM: OnceLock<String> = OnceLock::new();
    KeyPair::from_pem(PEM.get_or_init(|| KeyPair::generate().unwrap().to_pem().to_string())).unwrap()
}

pub(crate) fn csr() -> CheckedCsr {
    CheckedCsr::from_der(&key().request().unwrap()).unwrap()
}

pub(crate) fn workload_id() -> SpiffeId {
    SpiffeId::workload(&domain(), "payments", "db").unwrap()
}

pub(crate) fn workload_svid(authority: &Authority, now: UnixTime) -> Issued {
    authority.issue(&csr(), &workload_id(), now, HOUR).unwrap()
}

pub(crate) fn gateway_svid(authority: &Authority, now: UnixTime) -> Issued {
    authority.issue(&csr(), &SpiffeId::gateway(&domain(), "g").unwrap(), now, HOUR).unwrap()
}

pub(crate) fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

/// A leaf of the tests' key with any names, signed by the trusted authority.
pub(crate) fn forged(names: Vec<SanType>) -> CertificateDer<'static> {
    let authority = authority();
    let signer = rcgen::KeyPair::from_pem(&authority.key_pem()).unwrap();
    let issuer = Issuer::from_ca_cert_der(authority.certificate(), signer).unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = names;
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    let leaf = params.signed_by(key().inner(), &issuer).unwrap();
    leaf.into()
}
