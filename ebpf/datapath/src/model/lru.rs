//! A map that evicts the least recently used entry.

use alloc::collections::BTreeMap;

use super::alloc;

/// An LRU hash of the kernel, with exact recency.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lru<K, V> {
    capacity: usize,
    uses: u64,
    entries: BTreeMap<K, (V, u64)>,
}

impl<K: Ord + Clone, V: Clone> Lru<K, V> {
    /// An empty map with room for so many entries.
    #[must_use]
    pub const fn new(capacity: usize) -> Self {
        Self { capacity, uses: 0, entries: BTreeMap::new() }
    }

    /// Finds an entry, which counts as a use.
    pub fn get(&mut self, key: &K) -> Option<&mut V> {
        self.uses += 1;
        let (value, used) = self.entries.get_mut(key)?;
        *used = self.uses;
        Some(value)
    }

    /// Adds or replaces an entry; a full map gives up the one not used for longest. False without any room.
    pub fn insert(&mut self, key: K, value: V) -> bool {
        if self.capacity == 0 {
            return false;
        }
        self.uses += 1;
        if self.entries.len() >= self.capacity && !self.entries.contains_key(&key) {
            let oldest = self.entries.iter().min_by_key(|(_, (_, used))| *used).map(|(key, _)| key.clone());
            if let Some(oldest) = oldest {
                self.entries.remove(&oldest);
            }
        }
        self.entries.insert(key, (value, self.uses));
        true
    }

    /// Removes an entry.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        self.entries.remove(key).map(|(value, _)| value)
    }

    /// All entries in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.entries.iter().map(|(key, (value, _))| (key, value))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_map_gives_up_what_was_not_used_for_longest() {
        let mut map = Lru::new(2);
        assert!(map.insert(1, 'a') && map.insert(2, 'b'));
        assert_eq!(map.get(&1), Some(&mut 'a'));
        assert!(map.insert(3, 'c'));
        assert_eq!(map.iter().map(|(key, _)| *key).collect::<Vec<_>>(), [1, 3]);
        assert!(map.insert(3, 'd'), "replacing evicts nothing");
        assert_eq!(map.len(), 2);
        assert!(!Lru::new(0).insert(1, 1));
    }
}
