//! A sorted map of which successive versions share what did not change: its entries stand in pages of up to
//! `PAGE`, a change copies those that it touches, and a difference skips those that both versions have. Owns no
//! meaning of keys and values.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

mod differences;
#[cfg(test)]
mod tests;

pub use differences::{Difference, Differences};

/// Entries of a page at most: what one change copies, against what a pointer to a page costs.
const PAGE: usize = 64;

/// A page; never empty.
type Page<K, V> = Arc<[(K, V)]>;

/// The map.
#[derive(Clone)]
pub struct Pages<K, V> {
    /// In the order of their keys.
    pages: Vec<Page<K, V>>,
    len: usize,
}

/// The pages of the next version.
struct Builder<K, V> {
    done: Vec<Page<K, V>>,
    /// What follows them and is no page yet.
    open: Vec<(K, V)>,
}

impl<K, V> Pages<K, V> {
    /// Without entries.
    #[must_use]
    pub const fn new() -> Self {
        Self { pages: Vec::new(), len: 0 }
    }

    /// How many entries there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether some page is the same memory.
    #[must_use]
    pub fn shares_pages_with(&self, other: &Self) -> bool {
        self.pages.iter().any(|page| other.pages.iter().any(|held| Arc::ptr_eq(page, held)))
    }

    /// The entries, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.pages.iter().flat_map(|page| page.iter()).map(|(key, value)| (key, value))
    }

    /// The keys, in order.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    /// The values, by key.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }
}

impl<K: Ord, V> Pages<K, V> {
    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &K) -> Option<&V> {
        let after = self.pages.partition_point(|page| page.first().is_some_and(|(first, _)| first <= key));
        let page = self.pages.get(after.checked_sub(1)?)?;
        let at = page.binary_search_by(|(held, _)| held.cmp(key)).ok()?;
        page.get(at).map(|(_, value)| value)
    }

    /// Whether there is an entry with this key.
    #[must_use]
    pub fn contains_key(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    /// What leads from this version to `after`, by key.
    #[must_use]
    pub fn differences<'a>(&'a self, after: &'a Self) -> Differences<'a, K, V> {
        Differences::new(&self.pages, &after.pages)
    }
}

impl<K: Ord + Clone, V: Clone> Pages<K, V> {
    /// Adds or replaces an entry.
    pub fn insert(&mut self, key: K, value: V) {
        self.change(vec![(key, Some(value))]);
    }

    /// Removes an entry, if it is there.
    pub fn remove(&mut self, key: K) {
        self.change(vec![(key, None)]);
    }

    /// Adds, replaces and, with `None`, removes entries; of several changes of one key the last one counts.
    pub fn change(&mut self, mut changes: Vec<(K, Option<V>)>) {
        changes.reverse();
        changes.sort_by(|(a, _), (b, _)| a.cmp(b));
        changes.dedup_by(|(a, _), (b, _)| a == b);
        let mut changes = changes.into_iter().peekable();
        if changes.peek().is_none() {
            return;
        }
        let mut pages = std::mem::take(&mut self.pages).into_iter().peekable();
        let mut next = Builder { done: Vec::with_capacity(pages.len()), open: Vec::new() };
        while let Some(page) = pages.next() {
            // A page has room for all that is below the next one.
            let end = pages.peek().and_then(|next| next.first()).map(|(key, _)| key);
            let is_within = |(key, _): &(K, Option<V>)| end.is_none_or(|end| key < end);
            if changes.peek().is_some_and(is_within) {
                next.merge(&page, std::iter::from_fn(|| changes.next_if(is_within)));
            } else {
                next.add(page);
            }
        }
        next.open.extend(changes.filter_map(|(key, value)| Some((key, value?))));
        next.close();
        self.pages = next.done;
        self.len = self.pages.iter().map(|page| page.len()).sum();
    }
}

impl<K: Ord + Clone, V: Clone> Builder<K, V> {
    /// Takes a page over as it is, unless what is before it is too little for a page of its own.
    fn add(&mut self, page: Page<K, V>) {
        if self.open.is_empty() {
            self.done.push(page);
        } else if self.open.len() >= PAGE / 2 {
            self.close();
            self.done.push(page);
        } else {
            self.open.extend(page.iter().cloned());
            self.close();
        }
    }

    /// Takes a page over with changes, which are sorted.
    fn merge(&mut self, page: &[(K, V)], changes: impl Iterator<Item = (K, Option<V>)>) {
        let mut held = page.iter().peekable();
        for (key, value) in changes {
            while let Some(entry) = held.next_if(|(held, _)| *held < key) {
                self.open.push(entry.clone());
            }
            held.next_if(|(held, _)| *held == key);
            self.open.extend(value.map(|value| (key, value)));
        }
        self.open.extend(held.cloned());
        if self.open.len() >= PAGE {
            self.close();
        }
    }

    /// Makes pages of about the same size of what is open.
    fn close(&mut self) {
        let open = std::mem::take(&mut self.open);
        let size = open.len().div_ceil(open.len().div_ceil(PAGE).max(1));
        let mut entries = open.into_iter();
        loop {
            let page: Page<K, V> = entries.by_ref().take(size).collect();
            if page.is_empty() {
                return;
            }
            self.done.push(page);
        }
    }
}

impl<K, V> Default for Pages<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Ord + Clone, V: Clone> FromIterator<(K, V)> for Pages<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut pages = Self::new();
        pages.change(entries.into_iter().map(|(key, value)| (key, Some(value))).collect());
        pages
    }
}

impl<K: Ord + Clone, V: Clone> From<BTreeMap<K, V>> for Pages<K, V> {
    fn from(entries: BTreeMap<K, V>) -> Self {
        entries.into_iter().collect()
    }
}

impl<K: Ord, V: PartialEq> PartialEq for Pages<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.differences(other).next().is_none()
    }
}

impl<K: Ord, V: Eq> Eq for Pages<K, V> {}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for Pages<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}
