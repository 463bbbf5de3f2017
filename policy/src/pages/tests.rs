//! Laws: a change does what it does to a tree, differences lead from one version to the other, and what a change does
//! not touch is shared.

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::*;

type Tree = BTreeMap<u16, u8>;

fn tree() -> impl Strategy<Value = Tree> {
    btree_map(0_u16..600, any::<u8>(), 0..500)
}

fn changes() -> impl Strategy<Value = Vec<(u16, Option<u8>)>> {
    prop_oneof![
        vec((0_u16..600, any::<Option<u8>>()), 0..4),
        vec((0_u16..600, any::<Option<u8>>()), 0..300),
        // A run of removals leaves pages of too little.
        (0_u16..600, 0_u16..400)
            .prop_map(|(from, count)| (from..from + count).map(|key| (key, None)).collect()),
    ]
}

fn applied(mut tree: Tree, changes: &[(u16, Option<u8>)]) -> Tree {
    for (key, value) in changes {
        match value {
            Some(value) => drop(tree.insert(*key, *value)),
            None => drop(tree.remove(key)),
        }
    }
    tree
}

fn check(pages: &Pages<u16, u8>, tree: &Tree) {
    assert_eq!(pages.iter().collect::<Vec<_>>(), tree.iter().collect::<Vec<_>>());
    assert_eq!((pages.len(), pages.is_empty()), (tree.len(), tree.is_empty()));
    assert!((0..600).all(|key| pages.get(&key) == tree.get(&key)));
    let sizes: Vec<usize> = pages.pages.iter().map(|page| page.len()).collect();
    assert!(sizes.iter().all(|size| (1..=PAGE).contains(size)), "{sizes:?}");
}

proptest! {
    #[test]
    fn changes_are_those_of_a_tree(tree in tree(), rows in vec(changes(), 0..6)) {
        let mut pages = Pages::from(tree.clone());
        let mut tree = tree;
        for changes in rows {
            tree = applied(tree, &changes);
            pages.change(changes);
            check(&pages, &tree);
            // Pages stay filled, whatever the way.
            prop_assert!(pages.pages.len() <= tree.len() / (PAGE / 4) + 2, "{} of {}", pages.pages.len(), tree.len());
        }
    }

    #[test]
    fn differences_lead_from_one_to_the_other(tree in tree(), changes in changes(), other in tree(), related: bool) {
        let before = Pages::from(tree.clone());
        let mut after = Pages::from(other);
        if related {
            after = before.clone();
            after.change(changes);
        }
        let mut keys = 0;
        let mut led = tree;
        for (key, held, wanted) in before.differences(&after) {
            prop_assert_eq!((held, wanted), (before.get(key), after.get(key)));
            prop_assert_ne!(held, wanted);
            prop_assert!(keys <= *key);
            keys = *key + 1;
            led = applied(led, &[(*key, wanted.copied())]);
        }
        check(&after, &led);
        prop_assert_eq!(before == after, keys == 0);
    }
}

#[test]
fn a_change_copies_only_the_pages_that_it_touches() {
    let before: Pages<u32, u32> = (0..100_000).map(|key| (key * 2, key)).collect();
    let mut after = before.clone();
    after.change(vec![(0, None), (100_001, Some(7)), (199_998, Some(7))]);
    let shared = after.pages.iter().filter(|page| before.pages.iter().any(|held| Arc::ptr_eq(page, held)));
    assert!(shared.count() >= before.pages.len() - 4);
    let keys: Vec<u32> = before.differences(&after).map(|(key, ..)| *key).collect();
    assert_eq!(keys, [0, 100_001, 199_998]);
}

#[test]
fn a_crowd_that_goes_one_by_one_leaves_nothing() {
    let mut pages: Pages<u32, u32> = (0..1000).map(|key| (key, key)).collect();
    for key in 0..1000 {
        pages.remove(key * 7 % 1000);
    }
    assert!(pages.is_empty() && pages.pages.is_empty());
}
