//! The certificate authority of a trust domain: makes its root, and issues X.509 SVIDs with exactly one URI.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyUsagePurpose, SanType, SerialNumber, SubjectPublicKeyInfo,
};
use rustls_pki_types::{CertificateDer, UnixTime};
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use zeroize::Zeroizing;

use crate::bundle::{
    InvalidBundle, TrustBundle, certificate_key_hash, certificates_from_pem, certificates_to_pem,
};
use crate::csr::CheckedCsr;
use crate::key::{InvalidKey, KeyHash, KeyPair};
use crate::spiffe::{InvalidSpiffeId, SpiffeId, TrustDomain};

/// How much earlier than its issue a certificate is valid, for clocks that are behind.
const BACKDATE: Duration = Duration::from_mins(5);
/// The longest time a certificate is valid for.
const MAX_LIFETIME: Duration = Duration::from_hours(24);
/// How long a root is valid: ten years.
const ROOT_LIFETIME: Duration = Duration::from_hours(10 * 365 * 24);

/// A root and its key.
pub struct Authority {
    trust_domain: TrustDomain,
    certificate: CertificateDer<'static>,
    not_after: UnixTime,
    pin: KeyHash,
    issuer: Issuer<'static, rcgen::KeyPair>,
}

/// A certificate that was issued.
#[derive(Clone, Debug)]
pub struct Issued {
    /// DER, the leaf first, then what is between it and the root: every peer has that.
    pub chain: Vec<CertificateDer<'static>>,
    /// When it stops being valid.
    pub expires: UnixTime,
}

/// A root that cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum InvalidAuthority {
    /// Its key cannot be made or read.
    #[error(transparent)]
    Key(#[from] InvalidKey),
    /// Its certificate cannot be read.
    #[error("reading the root certificate: {0}")]
    Certificate(#[from] InvalidBundle),
    /// The cryptography refused.
    #[error("making the root certificate: {0}")]
    Create(#[source] rcgen::Error),
    /// The key is another one's.
    #[error("the root certificate belongs to another key")]
    Mismatch,
    /// The root is of another trust domain.
    #[error("the root certificate is not of trust domain {0}")]
    TrustDomain(TrustDomain),
    /// The system gave no random bytes.
    #[error("the system gave no random bytes")]
    Random,
    /// The time is outside what a certificate can say.
    #[error("the clock shows {0} s after 1970, which no certificate can say")]
    Time(u64),
}

/// A certificate that was not issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The SPIFFE id is of another trust domain.
    #[error("{id} is not of trust domain {trust_domain}")]
    TrustDomain {
        /// The id.
        id: SpiffeId,
        /// The authority's.
        trust_domain: TrustDomain,
    },
    /// The id cannot be put together.
    #[error(transparent)]
    Id(#[from] InvalidSpiffeId),
    /// The time asked for is too long.
    #[error("certificates are valid for at most 24 h, {0} s were asked for")]
    Lifetime(u64),
    /// The root has expired.
    #[error("the root certificate expired at {}", crate::display_time(*.0))]
    RootExpired(UnixTime),
    /// The system gave no random bytes.
    #[error("the system gave no random bytes")]
    Random,
    /// The time is outside what a certificate can say.
    #[error("the clock shows {0} s after 1970, which no certificate can say")]
    Time(u64),
    /// The cryptography refused.
    #[error("signing a certificate: {0}")]
    Sign(#[source] rcgen::Error),
}

impl Authority {
    /// Makes a new root for a trust domain.
    ///
    /// # Errors
    /// [`InvalidAuthority`] where the system gives no random bytes or no usable time.
    pub fn create(trust_domain: &TrustDomain, now: UnixTime) -> Result<Self, InvalidAuthority> {
        let key = KeyPair::generate()?;
        let time = |at: UnixTime| moment(at).ok_or(InvalidAuthority::Time(at.as_secs()));
        let mut params = CertificateParams::default();
        params.not_before = time(earlier(now, BACKDATE))?;
        params.not_after = time(later(now, ROOT_LIFETIME))?;
        params.serial_number = Some(serial().ok_or(InvalidAuthority::Random)?);
        // The key's hash makes the name unique, so that two roots of a rotation are told apart.
        let hash = key.hash().to_string();
        let short = hash.get(..12).unwrap_or(&hash);
        params.distinguished_name = named(&format!("Outrigger root {short}"));
        let uri = format!("spiffe://{trust_domain}").try_into().map_err(InvalidAuthority::Create)?;
        params.subject_alt_names = vec![SanType::URI(uri)];
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(key.inner()).map_err(InvalidAuthority::Create)?;
        Self::assemble(trust_domain, certificate.into(), key)
    }

    /// Reads a root and its key from PEM.
    ///
    /// # Errors
    /// [`InvalidAuthority`] where one cannot be read, they do not fit, or the root is of another trust domain.
    pub fn from_pem(
        trust_domain: &TrustDomain,
        certificate: &str,
        key: &str,
    ) -> Result<Self, InvalidAuthority> {
        let bundle = TrustBundle::try_new(certificates_from_pem(certificate)?)?;
        let root = bundle.roots().first().cloned().ok_or(InvalidBundle::Empty)?;
        Self::assemble(trust_domain, root, KeyPair::from_pem(key)?)
    }

    fn assemble(
        trust_domain: &TrustDomain,
        certificate: CertificateDer<'static>,
        key: KeyPair,
    ) -> Result<Self, InvalidAuthority> {
        let (_, root) =
            X509Certificate::from_der(&certificate).map_err(|_malformed| InvalidBundle::Certificate(0))?;
        if crate::svid::uris(&root) != [format!("spiffe://{trust_domain}")] {
            return Err(InvalidAuthority::TrustDomain(trust_domain.clone()));
        }
        let not_after = crate::svid::unix_time(root.validity().not_after);
        let pin = certificate_key_hash(&certificate).ok_or(InvalidBundle::Certificate(0))?;
        if pin != key.hash() {
            return Err(InvalidAuthority::Mismatch);
        }
        let issuer =
            Issuer::from_ca_cert_der(&certificate, key.into_inner()).map_err(InvalidAuthority::Create)?;
        Ok(Self { trust_domain: trust_domain.clone(), certificate, not_after, pin, issuer })
    }

    /// Issues a certificate for the key of a request. Who it names is the caller's decision, never the request's.
    ///
    /// # Errors
    /// [`IssueError`] where the id is of another trust domain, the time too long, or the root expired.
    pub fn issue(
        &self,
        csr: &CheckedCsr,
        id: &SpiffeId,
        now: UnixTime,
        lifetime: Duration,
    ) -> Result<Issued, IssueError> {
        if id.trust_domain() != &self.trust_domain {
            return Err(IssueError::TrustDomain { id: id.clone(), trust_domain: self.trust_domain.clone() });
        }
        if lifetime > MAX_LIFETIME {
            return Err(IssueError::Lifetime(lifetime.as_secs()));
        }
        if now >= self.not_after {
            return Err(IssueError::RootExpired(self.not_after));
        }
        let expires = later(now, lifetime).min(self.not_after);
        let time = |at: UnixTime| moment(at).ok_or(IssueError::Time(at.as_secs()));
        let mut params = CertificateParams::default();
        params.not_before = time(earlier(now, BACKDATE))?;
        params.not_after = time(expires)?;
        params.serial_number = Some(serial().ok_or(IssueError::Random)?);
        params.distinguished_name = named("Outrigger");
        let uri = id.to_string().try_into().map_err(IssueError::Sign)?;
        params.subject_alt_names = vec![SanType::URI(uri)];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let key = SubjectPublicKeyInfo::from_der(csr.spki()).map_err(IssueError::Sign)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(IssueError::Sign)?;
        Ok(Issued { chain: vec![certificate.into()], expires })
    }

    /// The trust domain.
    #[must_use]
    pub const fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The root, in DER.
    #[must_use]
    pub const fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The root, in PEM.
    #[must_use]
    pub fn certificate_pem(&self) -> String {
        certificates_to_pem(std::slice::from_ref(&self.certificate))
    }

    /// The root's private key, PKCS#8 in PEM: only for the place that keeps it.
    #[must_use]
    pub fn key_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.issuer.key().serialize_pem())
    }

    /// When the root stops being valid.
    #[must_use]
    pub const fn expires(&self) -> UnixTime {
        self.not_after
    }

    /// The hash of the root's key, which join tokens carry.
    #[must_use]
    pub const fn pin(&self) -> KeyHash {
        self.pin
    }

    /// What peers of this authority trust.
    ///
    /// # Errors
    /// Never for a root that was made or read by this type.
    pub fn bundle(&self) -> Result<TrustBundle, InvalidBundle> {
        TrustBundle::try_new(vec![self.certificate.clone()])
    }
}

fn named(organization: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, organization);
    name
}

/// 128 random bits, the top one cleared so that the number is positive in 16 bytes.
fn serial() -> Option<SerialNumber> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).ok()?;
    if let Some(first) = bytes.first_mut() {
        *first = (*first & 0x7f) | 0x40;
    }
    Some(SerialNumber::from_slice(&bytes))
}

fn later(at: UnixTime, by: Duration) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(at.as_secs().saturating_add(by.as_secs())))
}

fn earlier(at: UnixTime, by: Duration) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(at.as_secs().saturating_sub(by.as_secs())))
}

fn moment(at: UnixTime) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp(i64::try_from(at.as_secs()).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, HOUR, NOW};

    #[test]
    fn an_authority_survives_pem() {
        let made = testing::authority();
        let read =
            Authority::from_pem(made.trust_domain(), &made.certificate_pem(), &made.key_pem()).unwrap();
        assert_eq!(read.pin(), made.pin());
        assert_eq!(read.certificate(), made.certificate());
        let issued = testing::workload_svid(&read, NOW);
        assert_eq!(crate::Svid::from_der(&issued.chain[0]).unwrap().id(), &testing::workload_id());
    }

    #[test]
    fn parts_of_two_authorities_do_not_fit() {
        let (a, b) = (testing::authority(), testing::other_authority());
        let mixed = Authority::from_pem(a.trust_domain(), &a.certificate_pem(), &b.key_pem());
        assert!(matches!(mixed, Err(InvalidAuthority::Mismatch)));
        let elsewhere = TrustDomain::try_new("elsewhere").unwrap();
        let foreign = Authority::from_pem(&elsewhere, &a.certificate_pem(), &a.key_pem());
        assert!(matches!(foreign, Err(InvalidAuthority::TrustDomain(_))));
    }

    #[test]
    fn the_validity_is_backdated_and_bounded() {
        let authority = testing::authority();
        let svid = crate::Svid::from_der(&testing::workload_svid(&authority, NOW).chain[0]).unwrap();
        assert_eq!(svid.not_before().as_secs(), NOW.as_secs() - 300);
        assert_eq!(svid.not_after().as_secs(), NOW.as_secs() + HOUR.as_secs());

        let csr = testing::csr();
        let too_long = authority.issue(&csr, &testing::workload_id(), NOW, 25 * HOUR);
        assert!(matches!(too_long, Err(IssueError::Lifetime(_))));
        let elsewhere = TrustDomain::try_new("elsewhere").unwrap();
        let foreign = authority.issue(&csr, &SpiffeId::gateway(&elsewhere, "g").unwrap(), NOW, HOUR);
        assert!(matches!(foreign, Err(IssueError::TrustDomain { .. })));
        let late = authority.issue(&csr, &testing::workload_id(), authority.expires(), HOUR);
        assert!(matches!(late, Err(IssueError::RootExpired(_))));
    }

    #[test]
    fn serials_are_random_and_positive() {
        let (a, b) = (serial().unwrap(), serial().unwrap());
        assert_ne!(a, b);
        assert_eq!(a.len(), 16);
        assert!(a.to_bytes()[0] < 0x80);
    }
}
