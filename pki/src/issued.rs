//! Checking of a certificate that somebody else signed, before it is given to anybody: it must say what was asked for,
//! and nothing beside it.

use std::time::Duration;

use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, anchor_from_trusted_cert};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::authority::Issued;
use crate::bundle::{InvalidBundle, certificate_key_hash};
use crate::csr::CheckedCsr;
use crate::key::KeyHash;
use crate::spiffe::{Principal, SpiffeId};
use crate::svid::{InvalidSvid, Svid};

/// How far the clock of who signs may be from ours.
const SKEW: Duration = Duration::from_mins(1);
/// Certificates between a leaf and its root; more are refused.
const MOST_BETWEEN: usize = 4;
/// What a subject may say: where somebody is, never who. Organisation, unit, country, state, place, street, post code.
const PLACES: [&str; 7] = ["2.5.4.10", "2.5.4.11", "2.5.4.6", "2.5.4.8", "2.5.4.7", "2.5.4.9", "2.5.4.17"];

/// What was asked of who signs.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Whose key.
    pub csr: &'a CheckedCsr,
    /// The one name.
    pub id: &'a SpiffeId,
    /// The time.
    pub now: UnixTime,
    /// How long it may be valid.
    pub lifetime: Duration,
}

/// The certificate of an authority that is trusted, or signs for one that is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootCertificate {
    certificate: CertificateDer<'static>,
    pin: KeyHash,
    expires: UnixTime,
    self_issued: bool,
}

/// A certificate that is not what was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnfitCertificate {
    /// There is none.
    #[error("there is no certificate in the answer")]
    Missing,
    /// It is no SVID.
    #[error(transparent)]
    Svid(#[from] InvalidSvid),
    /// It is somebody else's.
    #[error("it names {found} instead of {asked}")]
    Id {
        /// Who was asked for.
        asked: String,
        /// Who it names.
        found: String,
    },
    /// It is for another key.
    #[error("it is for another key than the request's")]
    Key,
    /// Its subject names somebody.
    #[error(
        "its subject is `{0}`, but only the SPIFFE id may name somebody: organisation and place are allowed, no common name"
    )]
    Subject(String),
    /// It may not be used for what it is needed for.
    #[error("its extended key usage lacks {0}")]
    Usage(&'static str),
    /// It may be used for more.
    #[error("it may be used for more than TLS between client and server: {0}")]
    Purpose(&'static str),
    /// It is valid for too long.
    #[error("it is valid until {}, but only {} was asked for", crate::display_time(*.found), crate::display_time(*.asked))]
    TooLong {
        /// Its end.
        found: UnixTime,
        /// The end that was asked for.
        asked: UnixTime,
    },
    /// It is not valid now.
    #[error("it is valid from {} to {}, and now it is {}", crate::display_time(*.from), crate::display_time(*.until), crate::display_time(*.now))]
    NotValid {
        /// Its beginning.
        from: UnixTime,
        /// Its end.
        until: UnixTime,
        /// The time.
        now: UnixTime,
    },
    /// Nobody that is trusted has signed it.
    #[error("its chain does not lead to a trusted root: {0}")]
    Chain(String),
}

impl RootCertificate {
    /// Reads an authority's certificate.
    ///
    /// # Errors
    /// [`InvalidBundle`] where it is none.
    pub fn try_new(certificate: CertificateDer<'static>) -> Result<Self, InvalidBundle> {
        let (_, read) =
            X509Certificate::from_der(&certificate).map_err(|_malformed| InvalidBundle::Certificate(0))?;
        if !read.is_ca() || anchor_from_trusted_cert(&certificate).is_err() {
            return Err(InvalidBundle::NoAuthority(0));
        }
        let pin = certificate_key_hash(&certificate).ok_or(InvalidBundle::Certificate(0))?;
        let expires = crate::svid::unix_time(read.validity().not_after);
        let self_issued = read.subject().as_raw() == read.issuer().as_raw();
        Ok(Self { certificate, pin, expires, self_issued })
    }

    /// In DER.
    #[must_use]
    pub const fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The hash of its key, which join tokens carry.
    #[must_use]
    pub const fn pin(&self) -> KeyHash {
        self.pin
    }

    /// When it stops being valid.
    #[must_use]
    pub const fn expires(&self) -> UnixTime {
        self.expires
    }

    /// Whether no other authority has signed it.
    #[must_use]
    pub const fn is_self_issued(&self) -> bool {
        self.self_issued
    }
}

/// Verifies what came back: exactly the key and the name that were asked for, no authority, no longer than asked, for TLS
/// alone, with a chain to one of `roots`. The leaf and what is between it and the root, and the root's place in `roots`.
///
/// # Errors
/// [`UnfitCertificate`].
pub fn verify_issued(
    chain: &[CertificateDer<'static>],
    asked: &Asked<'_>,
    roots: &[RootCertificate],
) -> Result<(Issued, usize), UnfitCertificate> {
    let (leaf, others) = chain.split_first().ok_or(UnfitCertificate::Missing)?;
    let svid = Svid::from_der(leaf)?;
    if svid.id() != asked.id {
        return Err(UnfitCertificate::Id { asked: asked.id.to_string(), found: svid.id().to_string() });
    }
    if svid.key_hash() != asked.csr.key_hash() {
        return Err(UnfitCertificate::Key);
    }
    check_leaf(leaf, asked.id)?;
    check_time(&svid, asked)?;
    let (between, root) = path(leaf, others, asked, roots)?;
    let mut whole = vec![leaf.clone()];
    whole.extend(between);
    Ok((Issued { chain: whole, expires: svid.not_after() }, root))
}

fn check_leaf(leaf: &CertificateDer<'_>, id: &SpiffeId) -> Result<(), UnfitCertificate> {
    let unread = |_malformed| UnfitCertificate::Svid(InvalidSvid::Encoding);
    let (_, read) = X509Certificate::from_der(leaf).map_err(|_malformed| InvalidSvid::Encoding)?;
    let subject = read.subject();
    if subject.iter_attributes().any(|part| !PLACES.contains(&part.attr_type().to_id_string().as_str())) {
        return Err(UnfitCertificate::Subject(subject.to_string()));
    }
    let usage = read.key_usage().map_err(unread)?.map(|usage| usage.value);
    if usage.is_some_and(|usage| usage.key_cert_sign() || usage.crl_sign()) {
        return Err(UnfitCertificate::Purpose("signing certificates"));
    }
    if usage.is_some_and(|usage| !usage.digital_signature()) {
        return Err(UnfitCertificate::Usage("digital signatures (in the key usage)"));
    }
    let extended = read.extended_key_usage().map_err(unread)?;
    let Some(extended) = extended.map(|extended| extended.value) else {
        return Err(UnfitCertificate::Usage("client authentication"));
    };
    if extended.any {
        return Err(UnfitCertificate::Purpose("any purpose"));
    }
    let others = extended.code_signing
        || extended.email_protection
        || extended.time_stamping
        || extended.ocsp_signing
        || !extended.other.is_empty();
    if others {
        return Err(UnfitCertificate::Purpose("other extended key usages"));
    }
    match id.principal() {
        Principal::Gateway { .. } if !extended.server_auth => {
            Err(UnfitCertificate::Usage("server authentication"))
        }
        Principal::Workload { .. } | Principal::Admin { .. } if !extended.client_auth => {
            Err(UnfitCertificate::Usage("client authentication"))
        }
        Principal::Gateway { .. } | Principal::Workload { .. } | Principal::Admin { .. } => Ok(()),
    }
}

fn check_time(svid: &Svid, asked: &Asked<'_>) -> Result<(), UnfitCertificate> {
    let later = |by: Duration| {
        UnixTime::since_unix_epoch(Duration::from_secs(asked.now.as_secs().saturating_add(by.as_secs())))
    };
    let (from, until, now) = (svid.not_before(), svid.not_after(), asked.now);
    if from > later(SKEW) || until <= now {
        return Err(UnfitCertificate::NotValid { from, until, now });
    }
    if until > later(asked.lifetime.saturating_add(SKEW)) {
        return Err(UnfitCertificate::TooLong { found: until, asked: later(asked.lifetime) });
    }
    Ok(())
}

/// What is between the leaf and the first root that it leads to.
fn path(
    leaf: &CertificateDer<'_>,
    others: &[CertificateDer<'static>],
    asked: &Asked<'_>,
    roots: &[RootCertificate],
) -> Result<(Vec<CertificateDer<'static>>, usize), UnfitCertificate> {
    let failed = |error: webpki::Error| UnfitCertificate::Chain(error.to_string());
    let end = EndEntityCert::try_from(leaf).map_err(failed)?;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let usage = match asked.id.principal() {
        Principal::Gateway { .. } => webpki::KeyUsage::server_auth(),
        Principal::Workload { .. } | Principal::Admin { .. } => webpki::KeyUsage::client_auth(),
    };
    let is_root = |other: &&CertificateDer<'_>| roots.iter().all(|root| root.certificate() != *other);
    let between: Vec<CertificateDer<'static>> = others.iter().filter(is_root).cloned().collect();
    // One that is not valid yet by some seconds will be when it is used.
    let now = asked.now.max(Svid::from_der(leaf)?.not_before());
    let mut reason = "there is no root".to_owned();
    for (at, root) in roots.iter().enumerate() {
        let anchor = [anchor_from_trusted_cert(root.certificate()).map_err(failed)?];
        let algorithms = provider.signature_verification_algorithms.all;
        let found = end.verify_for_usage(algorithms, &anchor, &between, now, usage, None, None);
        match found {
            Ok(path) => {
                let used: Vec<_> =
                    path.intermediate_certificates().map(|used| used.der().into_owned()).collect();
                if used.len() > MOST_BETWEEN {
                    return Err(UnfitCertificate::Chain(format!("it is {} certificates long", used.len())));
                }
                return Ok((used, at));
            }
            Err(error) => reason = error.to_string(),
        }
    }
    Err(UnfitCertificate::Chain(reason))
}

#[cfg(test)]
mod tests;
