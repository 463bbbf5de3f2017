//! What makes the idle bank of a table hold what it shall hold. Pure.

use std::cmp::Ordering;
use std::collections::BTreeMap;

/// One write to a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Write<K, V> {
    /// Add or replace an entry.
    Insert(K, V),
    /// Remove an entry.
    Remove(K),
}

impl<K, V> Write<K, V> {
    /// Whose entry it changes.
    pub(super) const fn key(&self) -> &K {
        match self {
            Self::Insert(key, _) | Self::Remove(key) => key,
        }
    }

    /// What the entry is afterwards.
    pub(super) fn into_entry(self) -> (K, Option<V>) {
        match self {
            Self::Insert(key, value) => (key, Some(value)),
            Self::Remove(key) => (key, None),
        }
    }
}

/// Plans the writes that lead from `held` to `wanted`: removals first, so that their room can be used.
pub(super) fn plan<K: Copy + Ord, V: Copy + PartialEq>(
    held: &BTreeMap<K, V>,
    wanted: &BTreeMap<K, V>,
) -> Vec<Write<K, V>> {
    let mut removals = Vec::new();
    let mut inserts = Vec::new();
    let mut old = held.iter().peekable();
    let mut new = wanted.iter().peekable();
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => break,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((held_key, _)), Some((wanted_key, _))) => held_key.cmp(wanted_key),
        };
        match order {
            Ordering::Less => removals.extend(old.next().map(|(key, _)| Write::Remove(*key))),
            Ordering::Greater => inserts.extend(new.next().map(|(key, value)| Write::Insert(*key, *value))),
            Ordering::Equal => {
                let same = old.next().map(|(_, value)| value) == new.peek().map(|(_, value)| *value);
                inserts.extend(new.next().filter(|_| !same).map(|(key, value)| Write::Insert(*key, *value)));
            }
        }
    }
    removals.append(&mut inserts);
    removals
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Tree = BTreeMap<u8, u8>;

    fn apply(held: &Tree, writes: &[Write<u8, u8>]) -> Tree {
        let mut tree = held.clone();
        for write in writes {
            match write {
                Write::Insert(key, value) => drop(tree.insert(*key, *value)),
                Write::Remove(key) => drop(tree.remove(key)),
            }
        }
        tree
    }

    proptest! {
        #[test]
        fn a_plan_leads_to_what_is_wanted(held: Tree, wanted: Tree) {
            prop_assert_eq!(apply(&held, &plan(&held, &wanted)), wanted);
        }

        #[test]
        fn nothing_is_written_where_nothing_changed(tree: Tree) {
            prop_assert!(plan(&tree, &tree).is_empty());
        }

        #[test]
        fn each_key_is_written_once_and_only_if_it_differs(held: Tree, wanted: Tree) {
            let mut keys = std::collections::BTreeSet::new();
            for write in plan(&held, &wanted) {
                let key = match write { Write::Insert(key, _) | Write::Remove(key) => key };
                prop_assert!(keys.insert(key));
                prop_assert_ne!(held.get(&key), wanted.get(&key));
            }
        }
    }
}
