//! The parts of an update, put together from its chunks: a part that is larger than a chunk goes on in the next one.

use bytes::Bytes;

/// The parts of one update, as far as they came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    whole: Vec<Bytes>,
    /// Of the part that goes on in the next chunk.
    pieces: Vec<Bytes>,
}

/// The update ended within a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the update ended within a part")]
pub struct CutOff;

impl Parts {
    /// Takes the parts of the next chunk.
    pub fn add(&mut self, parts: Vec<Bytes>, continues: bool) {
        let goes_on = !self.pieces.is_empty();
        for (index, part) in parts.into_iter().enumerate() {
            if index > 0 || !goes_on {
                self.end_part();
            }
            self.pieces.push(part);
        }
        if !continues {
            self.end_part();
        }
    }

    /// All of them, after the last chunk.
    ///
    /// # Errors
    /// [`CutOff`] where the last one is not whole.
    pub fn finish(self) -> Result<Vec<Bytes>, CutOff> {
        if self.pieces.is_empty() { Ok(self.whole) } else { Err(CutOff) }
    }

    fn end_part(&mut self) {
        let pieces = std::mem::take(&mut self.pieces);
        if pieces.len() > 1 {
            self.whole.push(pieces.concat().into());
        } else {
            self.whole.extend(pieces);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn added(chunks: &[(&[&'static str], bool)]) -> Result<Vec<Bytes>, CutOff> {
        let mut parts = Parts::default();
        for (chunk, continues) in chunks {
            parts.add(chunk.iter().map(|part| Bytes::from_static(part.as_bytes())).collect(), *continues);
        }
        parts.finish()
    }

    #[test]
    fn a_part_goes_on_over_any_number_of_chunks() {
        assert_eq!(added(&[(&["a", "b"], false), (&["c"], false)]).unwrap(), ["a", "b", "c"]);
        let over_three: [(&[&str], bool); 4] =
            [(&["a", "b"], true), (&["c"], true), (&["d", "e"], false), (&["f"], false)];
        assert_eq!(added(&over_three).unwrap(), ["a", "bcd", "e", "f"]);
        assert_eq!(added(&[(&["a"], true), (&[], false)]).unwrap(), ["a"]);
        assert_eq!(added(&[(&[], false)]).unwrap(), Vec::<Bytes>::new());
        assert_eq!(added(&[(&["a"], true)]), Err(CutOff));
    }
}
