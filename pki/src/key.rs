//! Keys: ECDSA P-256, made where they are used. A private key has no `Debug` and leaves this type only as PEM that
//! wipes itself.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{SHA256, digest};
use rcgen::PublicKeyData as _;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

use crate::csr::InvalidCsr;
use crate::spiffe::SpiffeId;

/// A private key and its public half.
pub struct KeyPair(rcgen::KeyPair);

/// SHA-256 of a public key's `SubjectPublicKeyInfo`: names a key, and pins a root.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyHash([u8; 32]);

/// A key that cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum InvalidKey {
    /// The system gave no random bytes, or the cryptography refused.
    #[error("generating a key: {0}")]
    Generate(#[source] rcgen::Error),
    /// The text is no PKCS#8 key in PEM.
    #[error("reading a private key (PKCS#8, PEM): {0}")]
    Read(#[source] rcgen::Error),
    /// The key is of another kind.
    #[error("the private key is no ECDSA key on P-256")]
    Kind,
}

/// A text that is no key hash.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a key hash is 32 bytes, 64 hexadecimal digits")]
pub struct InvalidKeyHash;

impl KeyPair {
    /// Makes a new key.
    ///
    /// # Errors
    /// [`InvalidKey::Generate`] where the system gives no random bytes.
    pub fn generate() -> Result<Self, InvalidKey> {
        rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map(Self).map_err(InvalidKey::Generate)
    }

    /// Reads a key from PKCS#8 in PEM.
    ///
    /// # Errors
    /// [`InvalidKey`] where it cannot be read, or is no ECDSA key on P-256.
    pub fn from_pem(pem: &str) -> Result<Self, InvalidKey> {
        let key = rcgen::KeyPair::from_pem(pem).map_err(InvalidKey::Read)?;
        if key.is_compatible(&rcgen::PKCS_ECDSA_P256_SHA256) { Ok(Self(key)) } else { Err(InvalidKey::Kind) }
    }

    /// PKCS#8 in PEM.
    #[must_use]
    pub fn to_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.0.serialize_pem())
    }

    /// PKCS#8 in DER, for TLS.
    #[must_use]
    pub fn to_der(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.0.serialize_der()))
    }

    /// The hash of the public half.
    #[must_use]
    pub fn hash(&self) -> KeyHash {
        KeyHash::of_spki(&self.0.subject_public_key_info())
    }

    /// A request (PKCS#10, DER) for a certificate of this key. It names nobody: who it is for is the issuer's decision.
    ///
    /// # Errors
    /// [`InvalidCsr::Create`] where the cryptography refuses.
    pub fn request(&self) -> Result<Vec<u8>, InvalidCsr> {
        self.request_with(Vec::new())
    }

    /// The same, naming whom it is for: some authorities sign requests as they are.
    ///
    /// # Errors
    /// [`InvalidCsr::Create`] where the cryptography refuses.
    pub fn request_for(&self, id: &SpiffeId) -> Result<Vec<u8>, InvalidCsr> {
        let uri = id.to_string().try_into().map_err(InvalidCsr::Create)?;
        self.request_with(vec![rcgen::SanType::URI(uri)])
    }

    fn request_with(&self, names: Vec<rcgen::SanType>) -> Result<Vec<u8>, InvalidCsr> {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.subject_alt_names = names;
        let request = params.serialize_request(&self.0).map_err(InvalidCsr::Create)?;
        Ok(request.der().to_vec())
    }

    pub(crate) const fn inner(&self) -> &rcgen::KeyPair {
        &self.0
    }

    pub(crate) fn into_inner(self) -> rcgen::KeyPair {
        self.0
    }
}

impl KeyHash {
    /// The hash of a `SubjectPublicKeyInfo` in DER.
    #[must_use]
    pub fn of_spki(spki: &[u8]) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, spki).as_ref());
        Self(hash)
    }

    /// Takes the bytes of a hash, as a join token carries them.
    ///
    /// # Errors
    /// [`InvalidKeyHash`] where they are not 32.
    pub fn try_from_bytes(bytes: &[u8]) -> Result<Self, InvalidKeyHash> {
        bytes.try_into().map(Self).map_err(|_length| InvalidKeyHash)
    }

    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyHash({self})")
    }
}

impl FromStr for KeyHash {
    type Err = InvalidKeyHash;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut hash = [0; 32];
        hex::decode_to_slice(text, &mut hash).map_err(|_malformed| InvalidKeyHash)?;
        Ok(Self(hash))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_pem() {
        let key = KeyPair::generate().unwrap();
        let again = KeyPair::from_pem(&key.to_pem()).unwrap();
        assert_eq!(again.hash(), key.hash());
        assert_ne!(KeyPair::generate().unwrap().hash(), key.hash());
    }

    #[test]
    fn other_keys_are_refused() {
        assert!(matches!(KeyPair::from_pem("no key"), Err(InvalidKey::Read(_))));
        let other = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        assert!(matches!(KeyPair::from_pem(&other.serialize_pem()), Err(InvalidKey::Kind)));
    }

    #[test]
    fn hashes_survive_their_text_form() {
        let hash = KeyPair::generate().unwrap().hash();
        assert_eq!(hash.to_string().parse(), Ok(hash));
        assert_eq!("abc".parse::<KeyHash>(), Err(InvalidKeyHash));
        assert_eq!(KeyHash::try_from_bytes(&[0; 31]), Err(InvalidKeyHash));
    }
}
