//! DER, written and read by hand.

pub(super) const INTEGER: u8 = 0x02;
pub(super) const BIT_STRING: u8 = 0x03;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const OID: u8 = 0x06;
pub(super) const SEQUENCE: u8 = 0x30;
/// A URI among general names.
pub(super) const URI: u8 = 0x86;

/// 1.2.840.10045.4.3.2, `ecdsa-with-SHA256`.
pub(super) const ECDSA_SHA256: [u8; 8] = [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
/// 2.5.29.17, `subjectAltName`.
pub(super) const ALTERNATIVE_NAMES: [u8; 3] = [0x55, 0x1d, 0x11];

/// An element with its content.
pub(super) fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let [.., high, low] = u32::try_from(length).unwrap().to_be_bytes();
    let mut bytes = match length {
        0..0x80 => vec![tag, low],
        0x80..0x100 => vec![tag, 0x81, low],
        _ => vec![tag, 0x82, high, low],
    };
    bytes.extend_from_slice(content);
    bytes
}

/// The elements, one after the other, in one.
pub(super) fn sequence(elements: &[&[u8]]) -> Vec<u8> {
    element(SEQUENCE, &elements.concat())
}

/// One element of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Element<'a> {
    pub(super) tag: u8,
    pub(super) content: &'a [u8],
    /// With tag and length.
    pub(super) raw: &'a [u8],
}

impl Element<'_> {
    /// Whether the tag has this number, whatever its class: readers differ there.
    pub(super) const fn has_number_of(&self, tag: u8) -> bool {
        self.tag & 0x1f == tag & 0x1f
    }

    /// Whether the tag means something in its place only.
    pub(super) const fn is_marked(&self) -> bool {
        self.tag & 0xc0 == 0x80
    }
}

/// The elements that some bytes begin with. Tags have one byte, lengths are definite.
pub(super) fn elements(mut bytes: &[u8]) -> Vec<Element<'_>> {
    let mut elements = Vec::new();
    while let Some((element, rest)) = first(bytes) {
        elements.push(element);
        bytes = rest;
    }
    elements
}

/// The first element, and what is behind it.
fn first(bytes: &[u8]) -> Option<(Element<'_>, &[u8])> {
    let (tag, rest) = bytes.split_first()?;
    let (length, rest) = rest.split_first()?;
    let (length, rest) = if length & 0x80 == 0 {
        (usize::from(*length), rest)
    } else {
        let (digits, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
        let digit = |length: usize, byte: &u8| length.checked_mul(256)?.checked_add(usize::from(*byte));
        (digits.iter().try_fold(0, digit)?, rest)
    };
    let (content, after) = rest.split_at_checked(length)?;
    let raw = &bytes[..bytes.len() - after.len()];
    Some((Element { tag: *tag, content, raw }, after))
}

/// The elements of the sequence that some bytes begin with.
pub(super) fn sequence_in(bytes: &[u8]) -> Option<Vec<Element<'_>>> {
    let (sequence, _) = first(bytes)?;
    sequence.has_number_of(SEQUENCE).then(|| elements(sequence.content))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for length in [0, 1, 127, 128, 255, 256, 1000] {
            let inner = element(OCTET_STRING, &vec![7; length]);
            let outer = sequence(&[&inner, &[INTEGER, 1, 5]]);
            let read = sequence_in(&outer).unwrap();
            assert_eq!((read[0].raw, read[0].content.len()), (&inner[..], length));
            assert_eq!(read[1].content, [5]);
            assert_eq!(sequence_in(&outer[..outer.len() - 1]), None);
        }
    }
}
