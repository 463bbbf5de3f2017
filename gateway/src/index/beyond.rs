//! What policies say about traffic outside of the mesh, which nothing governs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnet::IpNet;
use policy::identity::Identity;
use policy::state::{Policy, State, beyond_mesh, differences};

/// What was found out last, and of what.
#[derive(Debug, Default)]
pub(super) struct Beyond {
    policies: BTreeMap<Identity, Arc<Policy>>,
    host_policies: BTreeMap<Identity, Arc<Policy>>,
    prefixes: Vec<IpNet>,
    found: Arc<BTreeMap<Identity, Vec<String>>>,
}

impl Beyond {
    /// By identity; looks only at policies that became others.
    pub(super) fn update(
        &mut self,
        state: &State,
        prefixes: &[IpNet],
    ) -> Arc<BTreeMap<Identity, Vec<String>>> {
        let mut changed: BTreeSet<Identity> = BTreeSet::new();
        changed.extend(differences(&self.policies, &state.policies, Arc::ptr_eq).map(|(id, ..)| *id));
        changed
            .extend(differences(&self.host_policies, &state.host_policies, Arc::ptr_eq).map(|(id, ..)| *id));
        if self.prefixes != prefixes {
            changed.extend(state.policies.keys());
            self.prefixes = prefixes.to_vec();
        }
        if changed.is_empty() {
            return Arc::clone(&self.found);
        }
        let mut found = BTreeMap::clone(&self.found);
        for id in changed {
            let (policy, host) = (state.policies.get(&id), state.host_policies.get(&id));
            let lines = beyond_mesh(policy.map(|policy| &**policy), host.map(|host| &**host), prefixes);
            if lines.is_empty() { drop(found.remove(&id)) } else { drop(found.insert(id, lines)) }
        }
        self.policies.clone_from(&state.policies);
        self.host_policies.clone_from(&state.host_policies);
        if found != *self.found {
            self.found = Arc::new(found);
        }
        Arc::clone(&self.found)
    }
}
