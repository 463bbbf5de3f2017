//! The roots a node trusts: several during a rotation.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::key::KeyHash;

/// The roots of a trust domain; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustBundle(Vec<CertificateDer<'static>>);

/// Roots that cannot be trusted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBundle {
    /// There is none: TLS without a root would trust nobody, or everybody.
    #[error("the trust bundle holds no root certificate")]
    Empty,
    /// The PEM text cannot be read.
    #[error("reading the trust bundle (PEM): {0}")]
    Pem(String),
    /// A root is no X.509 certificate.
    #[error("root certificate {0} of the trust bundle is no X.509 certificate")]
    Certificate(usize),
    /// A certificate is no authority.
    #[error("certificate {0} of the trust bundle is no certificate authority")]
    NoAuthority(usize),
}

impl TrustBundle {
    /// Takes roots in DER.
    ///
    /// # Errors
    /// [`InvalidBundle`] where there is none, or one is no authority's certificate.
    pub fn try_new(roots: Vec<CertificateDer<'static>>) -> Result<Self, InvalidBundle> {
        if roots.is_empty() {
            return Err(InvalidBundle::Empty);
        }
        for (at, root) in roots.iter().enumerate() {
            let (_, certificate) =
                X509Certificate::from_der(root).map_err(|_malformed| InvalidBundle::Certificate(at))?;
            if !certificate.is_ca() {
                return Err(InvalidBundle::NoAuthority(at));
            }
        }
        Ok(Self(roots))
    }

    /// Reads roots from PEM.
    ///
    /// # Errors
    /// [`InvalidBundle`] as in [`TrustBundle::try_new`], and where the text is no PEM.
    pub fn from_pem(pem: &str) -> Result<Self, InvalidBundle> {
        let roots: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
        Self::try_new(roots.map_err(|e| InvalidBundle::Pem(e.to_string()))?)
    }

    /// The roots as PEM.
    #[must_use]
    pub fn to_pem(&self) -> String {
        certificates_to_pem(&self.0)
    }

    /// The roots in DER.
    #[must_use]
    pub fn roots(&self) -> &[CertificateDer<'static>] {
        &self.0
    }

    /// What a join token pins: the hash of each root's key.
    #[must_use]
    pub fn pins(&self) -> Vec<KeyHash> {
        self.0.iter().filter_map(|root| certificate_key_hash(root)).collect()
    }

    pub(crate) fn to_store(&self) -> Result<RootCertStore, rustls::Error> {
        let mut store = RootCertStore::empty();
        for root in &self.0 {
            store.add(root.clone())?;
        }
        Ok(store)
    }
}

/// Certificates as PEM, one after the other.
#[must_use]
pub fn certificates_to_pem(certificates: &[CertificateDer<'_>]) -> String {
    certificates.iter().map(|c| pem_block("CERTIFICATE", c)).collect()
}

/// Reads certificates from PEM, in their order.
///
/// # Errors
/// [`InvalidBundle::Pem`] where the text is no PEM, [`InvalidBundle::Empty`] where it holds no certificate.
pub fn certificates_from_pem(pem: &str) -> Result<Vec<CertificateDer<'static>>, InvalidBundle> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let certificates = certificates.map_err(|e| InvalidBundle::Pem(e.to_string()))?;
    if certificates.is_empty() { Err(InvalidBundle::Empty) } else { Ok(certificates) }
}

pub(crate) fn certificate_key_hash(certificate: &CertificateDer<'_>) -> Option<KeyHash> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    Some(KeyHash::of_spki(certificate.public_key().raw))
}

pub(crate) fn pem_block(tag: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut block = format!("-----BEGIN {tag}-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at_checked(64).unwrap_or((rest, ""));
        block.push_str(line);
        block.push('\n');
        rest = after;
    }
    block + "-----END " + tag + "-----\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, NOW};

    #[test]
    fn a_bundle_survives_pem() {
        let bundle = testing::authority().bundle().unwrap();
        assert_eq!(TrustBundle::from_pem(&bundle.to_pem()).unwrap(), bundle);
        assert_eq!(bundle.pins(), vec![testing::authority().pin()]);
    }

    #[test]
    fn what_is_no_root_is_refused() {
        assert_eq!(TrustBundle::try_new(vec![]), Err(InvalidBundle::Empty));
        assert_eq!(TrustBundle::from_pem("nothing"), Err(InvalidBundle::Empty));
        let garbage = CertificateDer::from(vec![1, 2, 3]);
        assert_eq!(TrustBundle::try_new(vec![garbage]), Err(InvalidBundle::Certificate(0)));
        let leaf = testing::workload_svid(&testing::authority(), NOW).chain.remove(0);
        assert_eq!(TrustBundle::try_new(vec![leaf]), Err(InvalidBundle::NoAuthority(0)));
    }
}
