//! Random histories of small clusters: a resolver that goes on finds what one that begins anew finds.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use proptest::prelude::*;

use super::cluster::{Cluster, cluster};
use crate::facts::{Facts, Relabel};
use crate::identity::Identity;
use crate::labels::Labels;
use crate::resolve::{Resolver, identity_labels, resolve};

/// A step: a cluster, what of it is taken over, an address that several shall claim, a change of identities.
#[derive(Clone, Debug)]
struct Step {
    cluster: Cluster,
    taken: [bool; 4],
    keep: Vec<bool>,
    contested: Option<(usize, usize)>,
    relabel: Option<(u8, [u32; 2], bool)>,
    /// A namespace whose labels cannot be read.
    unreadable: Option<usize>,
    /// Whether numbers are given anew, in another order.
    renumber: bool,
    /// Whether the numbers are those of the step before, which need not suffice.
    stale: bool,
}

fn step() -> impl Strategy<Value = Step> {
    // Mostly small changes: where everything changes at once, everything is looked at anyway.
    let keep = prop::collection::vec(prop::bool::weighted(0.93), 16);
    let taken = prop::array::uniform4(prop::bool::weighted(0.85));
    let contested = prop::option::of((0..8_usize, 0..8_usize));
    let relabel = prop::option::of((1..5_u8, prop::array::uniform2(300..304_u32), any::<bool>()));
    let unreadable = prop::option::weighted(0.2, 0..3_usize);
    let numbers = (prop::bool::weighted(0.1), prop::bool::weighted(0.1));
    (cluster(), taken, keep, contested, relabel, unreadable, numbers).prop_map(
        |(cluster, taken, keep, contested, relabel, unreadable, (renumber, stale))| Step {
            cluster,
            taken,
            keep,
            contested,
            relabel,
            unreadable,
            renumber,
            stale,
        },
    )
}

impl Step {
    /// The facts after the step. What is equal to before is behind the same `Arc`.
    fn after(&self, before: &Facts) -> Facts {
        let mut new = self.cluster.facts();
        if let Some(namespace) = self.unreadable.and_then(|index| new.namespaces.values_mut().nth(index)) {
            Arc::make_mut(namespace).unreadable = true;
        }
        let [namespaces, pods, workloads, policies] = self.taken;
        share(&mut new.namespaces, &before.namespaces, namespaces, &self.keep);
        share(&mut new.pods, &before.pods, pods, &self.keep);
        share(&mut new.workloads, &before.workloads, workloads, &self.keep);
        share(&mut new.policies, &before.policies, policies, &self.keep);
        if let Some((from, to)) = self.contested {
            let addresses: Vec<IpAddr> = new
                .workloads
                .values()
                .flat_map(|workload| &workload.addresses)
                .chain(new.pods.values().flat_map(|pod| &pod.addresses))
                .copied()
                .collect();
            let address = addresses[from % addresses.len()];
            let name = new.pods.keys().nth(to % new.pods.len()).cloned().unwrap();
            let pod = new.pods.get_mut(&name).unwrap();
            if !pod.addresses.contains(&address) {
                Arc::make_mut(pod).addresses.push(address);
            }
        }
        if let Some((last, written, of_workload)) = self.relabel {
            let address = if of_workload { format!("10.9.0.{last}") } else { format!("10.0.0.{last}") };
            let [previous, mark] = written.map(|number| Identity::try_new(number).unwrap());
            let relabel = Relabel { previous, mark };
            new.relabels = BTreeMap::from([(address.parse().unwrap(), relabel)]);
        }
        new
    }

    /// The numbers after the step: a label set keeps its own, also while nothing has it.
    fn numbers(&self, facts: &Facts, before: &BTreeMap<Labels, Identity>) -> BTreeMap<Labels, Identity> {
        if self.stale {
            return before.clone();
        }
        let mut after = before.clone();
        for labels in identity_labels(facts) {
            let next = Identity::try_new(300 + u32::try_from(after.len()).unwrap()).unwrap();
            after.entry(labels).or_insert(next);
        }
        if self.renumber {
            let numbers: Vec<Identity> = after.values().rev().copied().collect();
            after.values_mut().zip(numbers).for_each(|(number, other)| *number = other);
        }
        after
    }
}

/// Takes entries of `before` instead of new ones, and where both are equal always.
fn share<K: Ord + Clone, V: PartialEq>(
    new: &mut BTreeMap<K, Arc<V>>,
    before: &BTreeMap<K, Arc<V>>,
    taken: bool,
    keep: &[bool],
) {
    for ((key, old), keep) in before.iter().zip(keep.iter().cycle()) {
        match new.get_mut(key) {
            Some(value) if *value == *old || (taken && *keep) => *value = Arc::clone(old),
            None if taken && *keep => drop(new.insert(key.clone(), Arc::clone(old))),
            Some(_) | None => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn a_resolver_finds_what_a_new_one_would(steps in prop::collection::vec(step(), 1..40)) {
        let mut resolver = Resolver::default();
        let (mut facts, mut numbers) = (Facts::default(), Arc::default());
        for step in &steps {
            facts = step.after(&facts);
            let new = step.numbers(&facts, &numbers);
            if new != *numbers {
                numbers = Arc::new(new);
            }
            let before: Vec<Labels> = resolver.label_sets().cloned().collect();
            let changed = resolver.observe(&facts);
            let sets: Vec<Labels> = resolver.label_sets().cloned().collect();
            prop_assert_eq!(&sets, &identity_labels(&facts).into_iter().collect::<Vec<_>>());
            prop_assert!(changed || before == sets);
            let (anew, gone_on) = (resolve(&facts, &numbers), resolver.resolve(&facts, &numbers));
            match anew {
                Ok(anew) => prop_assert_eq!(gone_on.unwrap(), anew),
                Err(_) => prop_assert!(gone_on.is_err()),
            }
        }
    }
}
