//! Equal parts of successive states behind the same `Arc`, so that a difference compares pointers.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::State;

/// Whether two shared parts are equal; looks at the values only where the pointers differ.
#[must_use]
pub fn same<T: PartialEq>(a: &Arc<T>, b: &Arc<T>) -> bool {
    Arc::ptr_eq(a, b) || a == b
}

/// The entries that only one of two maps has, or whose values are not the `same`, in the order of their keys. One walk
/// over both, without a look-up.
pub fn differences<'a, K: Ord, V, W>(
    before: &'a BTreeMap<K, V>,
    after: &'a BTreeMap<K, W>,
    same: impl Fn(&V, &W) -> bool + 'a,
) -> impl Iterator<Item = (&'a K, Option<&'a V>, Option<&'a W>)> {
    let (mut before, mut after) = (before.iter().peekable(), after.iter().peekable());
    std::iter::from_fn(move || {
        loop {
            let order = match (before.peek(), after.peek()) {
                (None, None) => return None,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((old, _)), Some((new, _))) => old.cmp(new),
            };
            match order {
                Ordering::Less => return before.next().map(|(key, value)| (key, Some(value), None)),
                Ordering::Greater => return after.next().map(|(key, value)| (key, None, Some(value))),
                Ordering::Equal => match (before.next(), after.next()) {
                    (Some((_, old)), Some((_, new))) if same(old, new) => {}
                    (Some((key, old)), Some((_, new))) => return Some((key, Some(old), Some(new))),
                    _ => return None,
                },
            }
        }
    })
}

impl State {
    /// Takes every part that equals one of `previous` from there. Changes no value.
    pub fn share_with(&mut self, previous: &Self) {
        share(&mut self.endpoints, &previous.endpoints);
        share(&mut self.identities, &previous.identities);
        share(&mut self.policies, &previous.policies);
        share(&mut self.host_policies, &previous.host_policies);
    }
}

fn share<K: Ord + Clone, V: PartialEq>(parts: &mut BTreeMap<K, Arc<V>>, previous: &BTreeMap<K, Arc<V>>) {
    let others = differences(previous, parts, Arc::ptr_eq);
    let equal = others.filter_map(|(key, before, now)| {
        let before = before?;
        (**before == **now?).then(|| (key.clone(), Arc::clone(before)))
    });
    let equal: Vec<_> = equal.collect();
    parts.extend(equal);
}
