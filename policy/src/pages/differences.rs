//! What differs between two versions.

use std::cmp::Ordering;
use std::sync::Arc;

use super::Page;

/// A key whose value differs: with what it had before and has after, where it has something.
pub type Difference<'a, K, V> = (&'a K, Option<&'a V>, Option<&'a V>);

/// The differences of two versions, by key.
#[derive(Debug)]
pub struct Differences<'a, K, V> {
    before: Cursor<'a, K, V>,
    after: Cursor<'a, K, V>,
}

/// A place between two entries.
#[derive(Debug)]
struct Cursor<'a, K, V> {
    /// The page it is in, and those after it.
    pages: &'a [Page<K, V>],
    /// How much of the page is behind it; never all.
    at: usize,
}

impl<'a, K: Ord, V> Differences<'a, K, V> {
    pub(super) const fn new(before: &'a [Page<K, V>], after: &'a [Page<K, V>]) -> Self {
        Self { before: Cursor { pages: before, at: 0 }, after: Cursor { pages: after, at: 0 } }
    }

    /// Passes the pages that both have: whatever is before such a page is so in both.
    fn skip_shared(&mut self) {
        while let (Some(before), Some(after)) = (self.before.page(), self.after.page()) {
            if !Arc::ptr_eq(before, after) {
                return;
            }
            self.before.skip();
            self.after.skip();
        }
    }
}

impl<'a, K: Ord, V: PartialEq> Iterator for Differences<'a, K, V> {
    type Item = Difference<'a, K, V>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            self.skip_shared();
            let order = match (self.before.peek(), self.after.peek()) {
                (None, None) => return None,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((before, _)), Some((after, _))) => before.cmp(after),
            };
            let before = if order.is_le() { self.before.next() } else { None };
            let after = if order.is_ge() { self.after.next() } else { None };
            match (before, after) {
                (Some((_, before)), Some((_, after))) if before == after => {}
                (before, after) => {
                    let (key, _) = before.or(after)?;
                    return Some((key, before.map(|(_, value)| value), after.map(|(_, value)| value)));
                }
            }
        }
    }
}

impl<'a, K, V> Cursor<'a, K, V> {
    /// The page that begins here, if one does.
    const fn page(&self) -> Option<&'a Page<K, V>> {
        if self.at == 0 { self.pages.first() } else { None }
    }

    fn skip(&mut self) {
        *self = Self { pages: self.pages.split_first().map_or(&[], |(_, rest)| rest), at: 0 };
    }

    fn peek(&self) -> Option<&'a (K, V)> {
        self.pages.first()?.get(self.at)
    }

    fn next(&mut self) -> Option<&'a (K, V)> {
        let (page, rest) = self.pages.split_first()?;
        let entry = page.get(self.at)?;
        self.at += 1;
        if self.at >= page.len() {
            *self = Self { pages: rest, at: 0 };
        }
        Some(entry)
    }
}
