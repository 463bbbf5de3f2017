//! What policies say about traffic outside of the mesh, and whom it governs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnet::IpNet;
use policy::identity::Identity;
use policy::state::{Mode, Nic, Policy, Scope, State, beyond_mesh, differences};

use super::Index;
use crate::store::{Target, Workload, WorkloadName};

/// What is told to workloads: whom it changes for must be told anew.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// What policies say that the scope leaves out.
    left_out: Arc<BTreeMap<(Identity, Scope), Vec<String>>>,
    /// The policies of NICs.
    nics: BTreeMap<(Identity, Scope), Arc<Policy>>,
}

/// What was found out last, and of what.
#[derive(Debug, Default)]
pub(super) struct Beyond {
    policies: BTreeMap<Identity, Arc<Policy>>,
    host_policies: BTreeMap<Identity, Arc<Policy>>,
    prefixes: Vec<IpNet>,
    told: Told,
}

impl Index {
    /// What policies say about traffic outside of the mesh; looks only at those that became others.
    pub(super) fn beyond_mesh(&mut self, state: &State, prefixes: &[IpNet]) -> Told {
        let wanted = self.governed_nics();
        let beyond = &mut self.settled.beyond;
        let mut changed: BTreeSet<Identity> = BTreeSet::new();
        changed.extend(differences(&beyond.policies, &state.policies, Arc::ptr_eq).map(|(id, ..)| *id));
        changed.extend(
            differences(&beyond.host_policies, &state.host_policies, Arc::ptr_eq).map(|(id, ..)| *id),
        );
        if beyond.prefixes != prefixes {
            changed.extend(state.policies.keys());
        }
        let of = |id: &Identity| (state.policies.get(id), state.host_policies.get(id));
        if !changed.is_empty() {
            let mut left_out = BTreeMap::clone(&beyond.told.left_out);
            for id in &changed {
                let (policy, host) = of(id);
                let policy = policy.map(|policy| &**policy);
                for (scope, host) in [(Scope::Mesh, host.map(|host| &**host)), (Scope::Host, None)] {
                    let found = beyond_mesh(policy, host, prefixes);
                    if found.is_empty() {
                        left_out.remove(&(*id, scope));
                    } else {
                        left_out.insert((*id, scope), found);
                    }
                }
            }
            if left_out != *beyond.told.left_out {
                beyond.told.left_out = Arc::new(left_out);
            }
        }
        let known = std::mem::take(&mut beyond.told.nics);
        let nic = |key: (Identity, Scope)| {
            if let Some(known) = known.get(&key).filter(|_| !changed.contains(&key.0)) {
                return (key, Arc::clone(known));
            }
            let (policy, host) = of(&key.0);
            let policy = policy.filter(|_| key.1 == Scope::All);
            (key, Arc::new(Policy::of_nic(policy.into_iter().chain(host).map(|policy| &**policy))))
        };
        beyond.told.nics = wanted.into_iter().map(nic).collect();
        if !changed.is_empty() {
            beyond.policies.clone_from(&state.policies);
            beyond.host_policies.clone_from(&state.host_policies);
        }
        if beyond.prefixes != prefixes {
            beyond.prefixes = prefixes.to_vec();
        }
        beyond.told.clone()
    }

    /// What governs the NICs of a workload, and which policies its scope leaves out.
    pub(super) fn outside(
        &self,
        name: &WorkloadName,
        workload: &Workload,
        identity: Identity,
        told: &Told,
    ) -> (Option<Nic>, Vec<String>) {
        let (scope, mode) = self.scope(name, workload);
        let nic = told.nics.get(&(identity, scope));
        let nic = nic.map(|policy| Nic { scope, mode, policy: Arc::clone(policy) });
        let mut left_out = told.left_out.get(&(identity, scope)).cloned().unwrap_or_default();
        if scope == Scope::Mesh && mode == Mode::Enforce {
            left_out.push("nicMode enforce: the scope is mesh, nothing is enforced on NICs".to_owned());
        }
        (nic, left_out)
    }

    /// The identities and scopes of workloads whose NICs are governed; no walk over all where nobody asks for it.
    fn governed_nics(&self) -> BTreeSet<(Identity, Scope)> {
        let asked = self.groups.values().any(|group| group.scope != Scope::Mesh)
            || self
                .declared
                .values()
                .any(|declared| declared.scope.is_some_and(|scope| scope != Scope::Mesh));
        if !asked {
            return BTreeSet::new();
        }
        let governed = self.workloads.iter().filter_map(|(name, workload)| {
            let (scope, _) = self.scope(name, workload);
            let (identity, _) = self.resolver.workload(&name.to_string())?;
            (scope != Scope::Mesh).then_some((identity, scope))
        });
        governed.collect()
    }

    fn scope(&self, name: &WorkloadName, workload: &Workload) -> (Scope, Mode) {
        let Target::Group { namespace, name: group } = &workload.target else {
            return (Scope::Mesh, Mode::Audit);
        };
        let group = self.groups.get(&(namespace.clone(), group.clone()));
        let (scope, mode) = group.map_or((Scope::Mesh, Mode::Audit), |group| (group.scope, group.nic_mode));
        let declared = self.declared.get(&(name.namespace.clone(), name.name.clone()));
        let declared = declared.map(|declared| (declared.scope, declared.nic_mode));
        let (own_scope, own_mode) = declared.unwrap_or_default();
        (own_scope.unwrap_or(scope), own_mode.unwrap_or(mode))
    }
}
