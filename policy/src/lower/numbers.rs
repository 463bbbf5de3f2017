//! Numbers of rules and classes: hashes of names, so that they stay what they are when something else changes.
//! Nothing but stability rests on the hash: numbers that collide are moved apart in a fixed order.

use std::collections::{BTreeMap, BTreeSet};

use datapath::Direction;

use super::{RuleRef, RuleSet};
use crate::state::Policy;

/// The classes of identities and those of blocks. They are told apart, since the entries of an identity's class hold
/// the rules for every peer too.
pub(super) struct Classes {
    pub(super) identities: BTreeMap<RuleSet, u32>,
    pub(super) blocks: BTreeMap<RuleSet, u32>,
}

impl Classes {
    pub(super) fn of_identities(&self, set: &RuleSet) -> u32 {
        self.identities.get(set).copied().unwrap_or_default()
    }

    /// 0 for a hole.
    pub(super) fn of_block(&self, set: &RuleSet) -> u32 {
        self.blocks.get(set).copied().unwrap_or_default()
    }
}

/// Ids for rules and defaults by name; none is 0.
pub(super) fn rules(names: BTreeSet<String>) -> BTreeMap<String, u32> {
    let mut taken = BTreeSet::new();
    names
        .into_iter()
        .map(|name| {
            let id = claim(fnv(FNV_OFFSET, name.as_bytes()), &mut taken);
            (name, id)
        })
        .collect()
}

/// Numbers for the sets of rules that identities and blocks have; none is 0, an empty set has none.
pub(super) fn classes<'a>(
    policy: &Policy,
    identities: impl Iterator<Item = &'a RuleSet>,
    blocks: impl Iterator<Item = &'a RuleSet>,
) -> Classes {
    let keys = rule_keys(policy);
    let mut taken = BTreeSet::new();
    let mut number = |sets: BTreeSet<&RuleSet>, kind: &[u8]| {
        let numbered = sets.into_iter().filter(|set| !set.is_empty()).map(|set| {
            let start = fnv(FNV_OFFSET, kind);
            let hash = set
                .iter()
                .filter_map(|rule| keys.get(rule))
                .fold(start, |hash, key| fnv(hash, key.as_bytes()));
            (set.clone(), claim(hash, &mut taken))
        });
        numbered.collect()
    };
    Classes {
        identities: number(identities.collect(), b"identity"),
        blocks: number(blocks.collect(), b"block"),
    }
}

/// What names a rule beyond its place: direction, origin, and its number among the rules of that origin.
fn rule_keys(policy: &Policy) -> BTreeMap<RuleRef, String> {
    let mut keys = BTreeMap::new();
    for (direction, letter) in [(Direction::Ingress, 'i'), (Direction::Egress, 'e')] {
        let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
        for (index, rule) in policy.direction(direction).rules.iter().enumerate() {
            let nth = seen.entry(&rule.origin).or_default();
            keys.insert((direction, index), format!("{letter}{}\n{nth}\n", rule.origin));
            *nth += 1;
        }
    }
    keys
}

/// The number, or the next free one after it; never 0.
fn claim(wanted: u32, taken: &mut BTreeSet<u32>) -> u32 {
    let mut number = wanted.max(1);
    while !taken.insert(number) {
        number = number.wrapping_add(1).max(1);
    }
    number
}

const FNV_OFFSET: u32 = 0x811c_9dc5;
const FNV_PRIME: u32 = 0x0100_0193;

/// FNV-1a.
fn fnv(hash: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(FNV_PRIME))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colliding_numbers_are_moved_apart_and_never_zero() {
        let mut taken = BTreeSet::new();
        assert_eq!([7, 7, 8].map(|n| claim(n, &mut taken)), [7, 8, 9]);
        assert_eq!([u32::MAX, u32::MAX, 0, 1].map(|n| claim(n, &mut taken)), [u32::MAX, 1, 2, 3]);
    }

    #[test]
    fn the_hash_is_fnv_1a() {
        assert_eq!(fnv(FNV_OFFSET, b"foobar"), 0xbf9c_f968);
    }
}
