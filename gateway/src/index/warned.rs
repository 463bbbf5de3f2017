//! What policies do not do as they are written, by whom they govern.

use std::collections::{BTreeMap, BTreeSet};

use policy::identity::Identity;

use super::{Index, parts};

/// Sentences by identity.
pub(super) type Warned = BTreeMap<Identity, Vec<String>>;

impl Index {
    /// What is valid in the policies of each identity and does not apply as written: rules of layer 7, names, labels that
    /// identities lack. What stands in for refused objects is told as refused.
    pub(super) fn warned(&self) -> Warned {
        let refused = self.rejected.iter().filter_map(|rejected| rejected.key.as_ref());
        let stand_ins: BTreeSet<_> = refused
            .filter(|key| key.kind.is_policy())
            .flat_map(|key| parts::of(&self.facts.policies, key))
            .map(|object| &object.origin)
            .collect();
        let mut warned = Warned::new();
        for (object, concerned, warnings) in self.resolver.warned() {
            if stand_ins.contains(&object.origin) {
                continue;
            }
            for identity in concerned {
                warned.entry(*identity).or_default().extend(warnings.iter().cloned());
            }
        }
        warned
    }
}
