//! Requests for certificates, and what is issued for those that are accepted.

use std::sync::OnceLock;
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _, UnparsedPublicKey,
};
use pki::{Authority, CheckedCsr, InvalidCsr, KeyHash, SpiffeId, Svid, TrustDomain, UnixTime};

use super::choices::Choices;
use super::der::{self, BIT_STRING, ECDSA_SHA256, INTEGER, OID};

/// 2026-01-01.
const NOW: UnixTime = UnixTime::since_unix_epoch(Duration::from_hours(490_896));
/// Up to the point of a P-256 key: `id-ecPublicKey`, `prime256v1`, an uncompressed bit string.
const P256: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// Whatever the request: accepted is only one that another reader finds to be signed by the P-256 key it names, and
/// its hash is that key's. What is issued for it names exactly who was to be named, whatever the request asked for.
///
/// # Panics
///
/// If that is not so.
pub fn csr(data: &[u8]) {
    let mut choices = Choices::new(data);
    let mode = choices.byte() % 4;
    let rest = choices.rest();
    if mode == 0 {
        check(rest);
        return;
    }
    let own = spki(signer());
    let info = match mode {
        // The input is what stands behind the key, or before it, or all there is.
        1 => der::sequence(&[&[INTEGER, 1, 0], &[0x30, 0], &own, &der::element(0xa0, rest)]),
        2 => der::sequence(&[&[INTEGER, 1, 0], &der::element(0x30, rest), &own, &[0xa0, 0]]),
        _ => der::element(0x30, rest),
    };
    // What is refused for its form needs no signature.
    let unsigned = request(&info, &[0x30, 6, INTEGER, 1, 1, INTEGER, 1, 1]);
    if matches!(CheckedCsr::from_der(&unsigned), Err(InvalidCsr::Signature)) {
        let signature = signer().sign(&SystemRandom::new(), &info).unwrap();
        check(&request(&info, signature.as_ref()));
    }
}

fn request(info: &[u8], signature: &[u8]) -> Vec<u8> {
    let algorithm = der::sequence(&[&der::element(OID, &ECDSA_SHA256)]);
    der::sequence(&[info, &algorithm, &der::element(BIT_STRING, &[&[0], signature].concat())])
}

fn check(request: &[u8]) {
    let Ok(accepted) = CheckedCsr::from_der(request) else { return };
    let spki = signed_by(request).unwrap_or_else(|| panic!("nothing is proven: {request:02x?}"));
    assert_eq!(accepted.key_hash(), KeyHash::of_spki(spki));
    let domain = authority().trust_domain();
    let id = SpiffeId::workload(domain, "shop", "db").unwrap();
    let issued = authority().issue(&accepted, &id, NOW, Duration::from_hours(1)).unwrap();
    let svid = Svid::from_der(&issued.chain[0]).unwrap();
    assert_eq!((svid.id(), svid.key_hash()), (&id, accepted.key_hash()));
    assert_eq!(svid.not_after(), issued.expires);
}

/// The key that a request names, if it is one on P-256 that signed it.
fn signed_by(request: &[u8]) -> Option<&[u8]> {
    let parts = der::sequence_in(request)?;
    let [info, algorithm, signature] = parts.as_slice() else { return None };
    let spki = der::elements(info.content).get(2)?.raw;
    let algorithm = der::elements(algorithm.content);
    let kind = algorithm.first()?;
    let (prefix, point) = spki.split_at_checked(P256.len())?;
    let is_known = prefix == P256 && point.len() == 65 && kind.content == ECDSA_SHA256;
    let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point);
    (is_known && key.verify(info.raw, signature.content.get(1..)?).is_ok()).then_some(spki)
}

fn spki(key: &EcdsaKeyPair) -> Vec<u8> {
    [&P256[..], key.public_key().as_ref()].concat()
}

fn signer() -> &'static EcdsaKeyPair {
    static KEY: OnceLock<EcdsaKeyPair> = OnceLock::new();
    KEY.get_or_init(|| EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap())
}

fn authority() -> &'static Authority {
    static AUTHORITY: OnceLock<Authority> = OnceLock::new();
    AUTHORITY
        .get_or_init(|| Authority::create(&TrustDomain::try_new("outrigger.local").unwrap(), NOW).unwrap())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed(info: &[u8]) -> Vec<u8> {
        request(info, signer().sign(&SystemRandom::new(), info).unwrap().as_ref())
    }

    #[test]
    fn what_the_target_signs_is_accepted() {
        let info = der::sequence(&[&[INTEGER, 1, 0], &[0x30, 0], &spki(signer()), &[0xa0, 0]]);
        let request = signed(&info);
        assert!(CheckedCsr::from_der(&request).is_ok());
        check(&request);
    }

    #[test]
    fn the_second_reading_wants_a_proof() {
        let info = der::sequence(&[&[INTEGER, 1, 0], &[0x30, 0], &spki(signer()), &[0xa0, 0]]);
        let mut request = signed(&info);
        assert!(signed_by(&request).is_some());
        *request.last_mut().unwrap() ^= 1;
        assert!(signed_by(&request).is_none());
    }
}
