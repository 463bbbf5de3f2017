//! Bytes that may be an update.

use proto::node::Node;

/// Whatever the bytes, applying them as an update does not panic; an update that is refused changes nothing, and
/// what one that is applied made has a canonical form that makes the same again.
///
/// # Panics
///
/// If that is not so.
pub fn wire(data: &[u8]) {
    let mut node = Node::default();
    for part in parts(data) {
        let before = node.digest();
        if node.apply(&[part]).is_err() {
            assert_eq!(node.digest(), before, "a refused update changed the state");
        }
    }
    let mut copy = Node::default();
    assert!(copy.apply(&node.parts()).is_ok(), "the canonical form is refused");
    assert_eq!(copy.digest(), node.digest(), "the canonical form makes another state");
    assert_eq!(copy.state(), node.state());
}

/// Pieces of the data: each begins with its length in one byte, the last takes the rest.
fn parts(mut data: &[u8]) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    while let Some((length, rest)) = data.split_first() {
        let length = if *length == u8::MAX { rest.len() } else { usize::from(*length).min(rest.len()) };
        let (part, left) = rest.split_at(length);
        parts.push(part);
        data = left;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_corpus_reaches_the_state() {
        let mut node = Node::default();
        for part in parts(include_bytes!("../../fuzz/corpus/wire/snapshot")) {
            node.apply(&[part]).unwrap();
        }
        assert_eq!(node.state().unwrap().endpoints.len(), 4);
    }

    #[test]
    fn pieces_have_their_lengths() {
        assert_eq!(parts(&[2, 7, 8, 255, 9, 9, 9]), [&[7, 8][..], &[9, 9, 9]]);
        assert_eq!(parts(&[5, 1]), [&[1][..]]);
    }
}
