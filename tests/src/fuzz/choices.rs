//! The input as a row of choices, so that a target builds something sensible of any bytes.

/// What is left of the input. After its end every choice is the first.
#[derive(Debug)]
pub(super) struct Choices<'a> {
    rest: &'a [u8],
}

impl<'a> Choices<'a> {
    pub(super) const fn new(rest: &'a [u8]) -> Self {
        Self { rest }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(super) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.rest.split_first() else { return 0 };
        self.rest = rest;
        *first
    }

    pub(super) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.byte())
    }

    /// As many bytes as there are, at most so many.
    pub(super) fn take(&mut self, most: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(most.min(self.rest.len()));
        self.rest = rest;
        taken
    }

    pub(super) fn flag(&mut self) -> bool {
        self.byte() & 1 != 0
    }

    /// True for one byte in `parts`.
    pub(super) fn seldom(&mut self, parts: u8) -> bool {
        self.byte() % parts == 1
    }

    pub(super) fn below(&mut self, end: usize) -> usize {
        usize::from(self.byte()) % end
    }

    pub(super) fn one_of<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// So many things at most.
    pub(super) fn list<T>(&mut self, most: usize, mut make: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.below(most + 1)).map(|_| make(self)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_input_is_a_row_of_choices() {
        let mut choices = Choices::new(&[7, 1, 2, 9, 9]);
        assert_eq!(choices.one_of(&['a', 'b', 'c']), 'b');
        assert!(choices.flag());
        assert_eq!(choices.list(3, Choices::byte), [9, 9]);
        assert!(choices.is_empty());
        assert_eq!((choices.byte(), choices.take(4), choices.bytes()), (0, &[][..], [0, 0]));
    }
}
