//! Leaf certificates of peers: whom they name.

use pki::{CertificateDer, KeyHash, Svid};

use super::choices::Choices;
use super::der::{self, ALTERNATIVE_NAMES, BIT_STRING, ECDSA_SHA256, INTEGER, OCTET_STRING, OID, URI};

const UTC_TIME: u8 = 0x17;

/// Whatever the certificate: accepted is only one in which another reader finds alternative names once, in them one
/// name and no other, a URI, and that is the id; and the hash is that of the key in it.
///
/// # Panics
///
/// If that is not so.
pub fn certificate(data: &[u8]) {
    let mut choices = Choices::new(data);
    let mode = choices.byte() % 4;
    let rest = choices.rest();
    let names = |content: &[u8]| {
        let names = der::element(OCTET_STRING, &der::element(0x30, content));
        der::sequence(&[&der::element(OID, &ALTERNATIVE_NAMES), &names])
    };
    // The input is all there is, or the extensions, or the names, or the only name.
    let leaf = match mode {
        0 => rest.to_vec(),
        1 => with_extensions(rest),
        2 => with_extensions(&names(rest)),
        _ => with_extensions(&names(&der::element(URI, rest))),
    };
    let Ok(svid) = Svid::from_der(&CertificateDer::from(leaf.as_slice())) else { return };
    let seen = named(&leaf).unwrap_or_else(|| panic!("{:?} of {leaf:02x?}", svid.id()));
    assert_eq!(std::str::from_utf8(seen.uri), Ok(svid.id().to_string().as_str()));
    assert_eq!(svid.key_hash(), KeyHash::of_spki(seen.spki));
    assert!(svid.not_before() >= pki::UnixTime::since_unix_epoch(std::time::Duration::ZERO));
}

/// A certificate around some extensions. Its signature is none: that is TLS's business.
fn with_extensions(extensions: &[u8]) -> Vec<u8> {
    let algorithm = der::sequence(&[&der::element(OID, &ECDSA_SHA256)]);
    let time = |text: &[u8]| der::element(UTC_TIME, text);
    let validity = der::sequence(&[&time(b"260101000000Z"), &time(b"260102000000Z")]);
    // `id-ecPublicKey`, `prime256v1`, and some point.
    let curve = [
        0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1,
        7,
    ];
    let point = [&[0, 4][..], &[7; 64]].concat();
    let spki = der::sequence(&[&der::sequence(&[&curve]), &der::element(BIT_STRING, &point)]);
    let tbs = der::sequence(&[
        &[0xa0, 3, INTEGER, 1, 2],
        &[INTEGER, 1, 1],
        &algorithm,
        &[0x30, 0],
        &validity,
        &[0x30, 0],
        &spki,
        &der::element(0xa3, &der::element(0x30, extensions)),
    ]);
    der::sequence(&[&tbs, &algorithm, &[BIT_STRING, 2, 0, 1]])
}

/// What a leaf certificate says.
struct Seen<'a> {
    uri: &'a [u8],
    spki: &'a [u8],
}

fn named(leaf: &[u8]) -> Option<Seen<'_>> {
    let certificate = der::sequence_in(leaf)?;
    let fields = der::elements(certificate.first()?.content);
    // The version and the fields behind the key are marked; what is left stands in a fixed order.
    let mut plain = fields.iter().filter(|field| !field.is_marked());
    let spki = plain.nth(5)?.raw;
    let marked = fields.iter().find(|field| field.tag == 0xa3)?;
    let extensions = der::sequence_in(marked.content)?;
    let mut found = Vec::new();
    for extension in &extensions {
        let parts = der::elements(extension.content);
        if let Some((name, parts)) = parts.split_first()
            && (name.tag, name.content) == (OID, &ALTERNATIVE_NAMES)
        {
            found.push(parts.iter().find(|part| part.tag == OCTET_STRING)?.content);
        }
    }
    let [names] = found.as_slice() else { return None };
    match der::sequence_in(names)?.as_slice() {
        [name] if name.tag == URI => Some(Seen { uri: name.content, spki }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_is_an_svid() {
        let id = b"spiffe://outrigger.local/ns/shop/ew/db";
        let name = der::element(URI, id);
        let names = der::element(OCTET_STRING, &der::element(0x30, &name));
        let leaf = with_extensions(&der::sequence(&[&der::element(OID, &ALTERNATIVE_NAMES), &names]));
        let svid = Svid::from_der(&CertificateDer::from(leaf.as_slice())).unwrap();
        assert_eq!(svid.id().to_string().as_bytes(), id);
        assert_eq!(named(&leaf).unwrap().uri, id);
        certificate(&[&[3], &id[..]].concat());
    }
}
