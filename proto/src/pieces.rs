//! A large message in pieces, each a message of its own: what it is decoded to is then never there as a whole.

use prost::encoding::{DecodeContext, WireType, decode_key, skip_field};

/// A piece ends with the first field that makes it so large.
const PIECE: usize = 32 << 10;

/// The pieces of a message, cut between fields. What is no message is the last piece, which no reader accepts.
pub(crate) fn pieces(message: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = message;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (piece, after) = rest.split_at_checked(cut(rest)).unwrap_or((rest, &[]));
        rest = after;
        Some(piece)
    })
}

/// Where the first piece ends.
fn cut(message: &[u8]) -> usize {
    let mut rest = message;
    while message.len() - rest.len() < PIECE && !rest.is_empty() {
        if skip(&mut rest).is_err() {
            return message.len();
        }
    }
    message.len() - rest.len()
}

fn skip(rest: &mut &[u8]) -> Result<(), prost::DecodeError> {
    let (tag, wire_type): (u32, WireType) = decode_key(rest)?;
    skip_field(wire_type, tag, rest, DecodeContext::default())
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::v1::{Owner, ResourceSet};

    fn set() -> ResourceSet {
        let owner =
            |number: u16| Owner { address: number.to_be_bytes().to_vec(), owner: "shop/db".repeat(20) };
        ResourceSet {
            owners: (0..2000).map(owner).collect(),
            removed_identities: vec![1, 2],
            ..ResourceSet::default()
        }
    }

    #[test]
    fn pieces_are_small_and_say_together_what_the_whole_said() {
        let bytes = set().encode_to_vec();
        let mut read = ResourceSet::default();
        let mut count = 0;
        for piece in pieces(&bytes) {
            assert!(piece.len() < PIECE + 200);
            read.merge(piece).unwrap();
            count += 1;
        }
        assert_eq!(read, set());
        assert!(count > 5);
        assert_eq!(pieces(&[]).count(), 0);
    }

    #[test]
    fn what_is_cut_off_is_refused_in_its_last_piece() {
        let bytes = set().encode_to_vec();
        let cut = &bytes[..bytes.len() - 1];
        assert_eq!(pieces(cut).flatten().count(), cut.len());
        assert!(ResourceSet::decode(pieces(cut).last().unwrap()).is_err());
        assert_eq!(pieces(&[0xff; 40]).collect::<Vec<_>>(), [&[0xff; 40]]);
    }
}
