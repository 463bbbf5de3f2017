//! Checking of certificate requests. Only the key and the proof that its holder asks count: subject and extensions
//! are not even read, so a request can ask for no name. Where an authority signs requests as they are, they must ask for
//! the one name that they would be given.

use rcgen::PublicKeyData as _;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer as _;

use crate::bundle::pem_block;
use crate::key::KeyHash;
use crate::spiffe::SpiffeId;

/// A request whose signature was verified.
#[derive(Clone, Debug)]
pub struct CheckedCsr {
    der: Vec<u8>,
    spki: Vec<u8>,
    key_hash: KeyHash,
}

/// A request that is refused, or could not be made.
#[derive(Debug, thiserror::Error)]
pub enum InvalidCsr {
    /// It could not be made.
    #[error("making a certificate request: {0}")]
    Create(#[source] rcgen::Error),
    /// It is no PKCS#10 request in DER.
    #[error("the certificate request is no PKCS#10 request in DER")]
    Encoding,
    /// The signature does not fit the key.
    #[error("the certificate request is not signed by the key it names")]
    Signature,
    /// The key is of another kind.
    #[error("the certificate request's key is no ECDSA key on P-256")]
    Key,
}

/// The largest request that is looked at; one for a P-256 key has about 200 bytes.
const MAX_BYTES: usize = 16 * 1024;

impl CheckedCsr {
    /// Reads a request and verifies its signature.
    ///
    /// # Errors
    /// [`InvalidCsr`] where it cannot be read, is not signed by its key, or has a key of another kind.
    pub fn from_der(der: &[u8]) -> Result<Self, InvalidCsr> {
        if der.len() > MAX_BYTES {
            return Err(InvalidCsr::Encoding);
        }
        let (rest, request) =
            X509CertificationRequest::from_der(der).map_err(|_malformed| InvalidCsr::Encoding)?;
        if !rest.is_empty() {
            return Err(InvalidCsr::Encoding);
        }
        let spki = request.certification_request_info.subject_pki.raw.to_vec();
        let key = rcgen::SubjectPublicKeyInfo::from_der(&spki).map_err(|_unknown| InvalidCsr::Key)?;
        if !is_p256(&key) || key.subject_public_key_info() != spki {
            return Err(InvalidCsr::Key);
        }
        request.verify_signature().map_err(|_wrong| InvalidCsr::Signature)?;
        let key_hash = KeyHash::of_spki(&spki);
        Ok(Self { der: der.to_vec(), spki, key_hash })
    }

    /// The hash of the key.
    #[must_use]
    pub const fn key_hash(&self) -> KeyHash {
        self.key_hash
    }

    /// The request in PEM.
    #[must_use]
    pub fn to_pem(&self) -> String {
        pem_block("CERTIFICATE REQUEST", &self.der)
    }

    /// Whether it asks for this name and for nothing else: no subject, no other name, no use.
    #[must_use]
    pub fn names_only(&self, id: &SpiffeId) -> bool {
        let Ok((_, request)) = X509CertificationRequest::from_der(&self.der) else { return false };
        let mut asked = request.requested_extensions().into_iter().flatten();
        let (Some(ParsedExtension::SubjectAlternativeName(names)), None) = (asked.next(), asked.next())
        else {
            return false;
        };
        let is_id = |name: &GeneralName<'_>| matches!(name, GeneralName::URI(uri) if *uri == id.to_string());
        let unnamed = request.certification_request_info.subject.iter().next().is_none();
        unnamed && names.general_names.len() == 1 && names.general_names.iter().all(is_id)
    }

    pub(crate) fn spki(&self) -> &[u8] {
        &self.spki
    }
}

/// Only an uncompressed point, 65 bytes: a key has one encoding, so that its hash is one too.
fn is_p256(key: &rcgen::SubjectPublicKeyInfo) -> bool {
    key.algorithm() == &rcgen::PKCS_ECDSA_P256_SHA256 && key.der_bytes().len() == 65
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::KeyPair;

    #[test]
    fn a_request_gives_its_key() {
        let key = KeyPair::generate().unwrap();
        let csr = CheckedCsr::from_der(&key.request().unwrap()).unwrap();
        assert_eq!(csr.key_hash(), key.hash());
    }

    #[test]
    fn every_flipped_byte_is_refused_or_the_key_stays() {
        let key = KeyPair::generate().unwrap();
        let request = key.request().unwrap();
        for at in 0..request.len() {
            let mut bad = request.clone();
            bad[at] ^= 1;
            if let Ok(accepted) = CheckedCsr::from_der(&bad) {
                assert_eq!(accepted.key_hash(), key.hash(), "byte {at}");
            }
        }
    }

    #[test]
    fn a_wrong_signature_is_named() {
        let mut request = KeyPair::generate().unwrap().request().unwrap();
        *request.last_mut().unwrap() ^= 1;
        assert!(matches!(CheckedCsr::from_der(&request), Err(InvalidCsr::Signature)));
    }

    #[test]
    fn trailing_bytes_and_other_keys_are_refused() {
        let mut request = KeyPair::generate().unwrap().request().unwrap();
        request.push(0);
        assert!(matches!(CheckedCsr::from_der(&request), Err(InvalidCsr::Encoding)));

        let other = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let request = rcgen::CertificateParams::default().serialize_request(&other).unwrap();
        assert!(matches!(CheckedCsr::from_der(request.der()), Err(InvalidCsr::Key)));
    }
}
