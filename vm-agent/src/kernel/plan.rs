//! What makes the idle bank of a table hold what it shall hold. Pure.

use policy::pages::{Difference, Pages};

/// One write to a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Write<K, V> {
    /// Add or replace an entry.
    Insert(K, V),
    /// Remove an entry.
    Remove(K),
}

impl<K, V> Write<K, V> {
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
    held: &Pages<K, V>,
    wanted: &Pages<K, V>,
) -> Vec<Write<K, V>> {
    let write = |(key, _, wanted): Difference<'_, K, V>| {
        wanted.map_or(Write::Remove(*key), |value| Write::Insert(*key, *value))
    };
    let mut writes: Vec<_> = held.differences(wanted).map(write).collect();
    writes.sort_by_key(|write| matches!(write, Write::Insert(..)));
    writes
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    type Tree = BTreeMap<u8, u8>;

    fn planned(held: &Tree, wanted: &Tree) -> Vec<Write<u8, u8>> {
        plan(&held.clone().into(), &wanted.clone().into())
    }

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
            prop_assert_eq!(apply(&held, &planned(&held, &wanted)), wanted);
        }

        #[test]
        fn nothing_is_written_where_nothing_changed(tree: Tree) {
            prop_assert!(planned(&tree, &tree).is_empty());
        }

        #[test]
        fn each_key_is_written_once_and_only_if_it_differs(held: Tree, wanted: Tree) {
            let mut keys = std::collections::BTreeSet::new();
            for write in planned(&held, &wanted) {
                let key = match write { Write::Insert(key, _) | Write::Remove(key) => key };
                prop_assert!(keys.insert(key));
                prop_assert_ne!(held.get(&key), wanted.get(&key));
            }
        }
    }
}
