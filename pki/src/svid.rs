//! Reading of a peer's certificate: whom it names, until when, and which key. Whether it can be trusted is TLS's
//! business.

use std::time::Duration;

use rcgen::{PublicKeyData as _, SubjectPublicKeyInfo};
use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::EndEntityCert;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::time::ASN1Time;

use crate::key::KeyHash;
use crate::spiffe::{InvalidSpiffeId, SpiffeId};

/// A leaf certificate with exactly one URI, a SPIFFE id of the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Svid {
    id: SpiffeId,
    not_before: UnixTime,
    not_after: UnixTime,
    key_hash: KeyHash,
}

/// A certificate that is no SVID of the mesh.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSvid {
    /// It is no X.509 certificate.
    #[error("the certificate is no X.509 certificate")]
    Encoding,
    /// It does not have exactly one URI.
    #[error("the certificate names {0} URIs, an SVID names exactly one")]
    Uris(usize),
    /// It has names of other kinds.
    #[error("the certificate has alternative names that are no URIs")]
    OtherNames,
    /// The URI is no SPIFFE id of the mesh.
    #[error(transparent)]
    Id(#[from] InvalidSpiffeId),
    /// It is an authority's.
    #[error("the certificate is an authority's, not a peer's")]
    Authority,
}

impl Svid {
    /// Reads a leaf certificate.
    ///
    /// # Errors
    /// [`InvalidSvid`] where it is no SVID of the mesh.
    pub fn from_der(leaf: &CertificateDer<'_>) -> Result<Self, InvalidSvid> {
        // The reader that TLS trusts is the stricter one: what they read differently names nobody.
        let strict = EndEntityCert::try_from(leaf).map_err(|_malformed| InvalidSvid::Encoding)?;
        let (rest, certificate) =
            X509Certificate::from_der(leaf).map_err(|_malformed| InvalidSvid::Encoding)?;
        if !rest.is_empty() {
            return Err(InvalidSvid::Encoding);
        }
        if certificate.is_ca() {
            return Err(InvalidSvid::Authority);
        }
        let names = certificate.subject_alternative_name().map_err(|_twice| InvalidSvid::Encoding)?;
        let count = names.as_ref().map_or(0, |names| names.value.general_names.len());
        let uris = uris(&certificate);
        if count != uris.len() {
            return Err(InvalidSvid::OtherNames);
        }
        if !strict.valid_uri_names().eq(uris.iter().map(String::as_str)) {
            return Err(InvalidSvid::Encoding);
        }
        let [uri] = uris.as_slice() else { return Err(InvalidSvid::Uris(uris.len())) };
        let spki = certificate.public_key().raw;
        // Another reader could see another key in one that is not written in the one way.
        let key = SubjectPublicKeyInfo::from_der(spki).map_err(|_unknown| InvalidSvid::Encoding)?;
        if key.subject_public_key_info() != spki {
            return Err(InvalidSvid::Encoding);
        }
        Ok(Self {
            id: uri.parse()?,
            not_before: unix_time(certificate.validity().not_before),
            not_after: unix_time(certificate.validity().not_after),
            key_hash: KeyHash::of_spki(spki),
        })
    }

    /// Whom it names.
    #[must_use]
    pub const fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// From when it is valid.
    #[must_use]
    pub const fn not_before(&self) -> UnixTime {
        self.not_before
    }

    /// Until when it is valid.
    #[must_use]
    pub const fn not_after(&self) -> UnixTime {
        self.not_after
    }

    /// The hash of its key.
    #[must_use]
    pub const fn key_hash(&self) -> KeyHash {
        self.key_hash
    }
}

pub(crate) fn uris(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return Vec::new() };
    let uri = |name: &GeneralName<'_>| {
        if let GeneralName::URI(uri) = name { Some((*uri).to_owned()) } else { None }
    };
    names.value.general_names.iter().filter_map(uri).collect()
}

/// Times before 1970 count as 1970: nothing of ours is that old.
pub(crate) fn unix_time(at: ASN1Time) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(at.timestamp()).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use rcgen::SanType;

    use super::*;
    use crate::testing::{self, NOW, uri};

    #[test]
    fn a_leaf_names_its_holder() {
        let issued = testing::workload_svid(&testing::authority(), NOW);
        let svid = Svid::from_der(&issued.chain[0]).unwrap();
        assert_eq!(svid.id(), &testing::workload_id());
        assert_eq!(svid.not_after(), issued.expires);
        assert_eq!(svid.key_hash(), testing::csr().key_hash());
    }

    #[test]
    fn other_name_counts_are_refused() {
        let none = testing::forged(vec![]);
        assert_eq!(Svid::from_der(&none), Err(InvalidSvid::Uris(0)));
        let id = testing::workload_id().to_string();
        let two = testing::forged(vec![uri(&id), uri("spiffe://outrigger.local/admin/a")]);
        assert_eq!(Svid::from_der(&two), Err(InvalidSvid::Uris(2)));
        let dns = testing::forged(vec![uri(&id), SanType::DnsName("a.example".try_into().unwrap())]);
        assert_eq!(Svid::from_der(&dns), Err(InvalidSvid::OtherNames));
    }

    #[test]
    fn what_is_no_svid_is_refused() {
        assert_eq!(Svid::from_der(&CertificateDer::from(vec![0; 8])), Err(InvalidSvid::Encoding));
        assert_eq!(Svid::from_der(testing::authority().certificate()), Err(InvalidSvid::Authority));
        // The extensions in another class: one reader takes them for extensions, the other does not.
        let mut odd = testing::workload_svid(&testing::authority(), NOW).chain[0].to_vec();
        // With the tag of the list in it: keys and signatures are random.
        let extensions = odd.windows(4).position(|part| matches!(part, [0xa3, 0x81, _, 0x30])).unwrap();
        odd[extensions] = 0xe3;
        assert_eq!(Svid::from_der(&CertificateDer::from(odd)), Err(InvalidSvid::Encoding));
        let foreign = testing::forged(vec![uri("spiffe://outrigger.local/ns/a/sa/b")]);
        assert!(matches!(Svid::from_der(&foreign), Err(InvalidSvid::Id(_))));
    }
}
