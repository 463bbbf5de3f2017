//! What each workload is told about itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnet::IpNet;
use policy::identity::Identity;
use policy::labels::Labels;
use policy::state::{Mode, NodeSettings, Role, State};

use super::{Compiled, Index};
use crate::store::{Target, Workload, WorkloadName};

impl Index {
    pub(super) fn nodes(
        &self,
        state: &State,
        identities: &BTreeMap<Labels, Identity>,
        before: Option<&Compiled>,
    ) -> BTreeMap<WorkloadName, Arc<NodeSettings>> {
        let host_prefixes = self.host_prefixes(state);
        let concerns = self.concerns();
        let mut nodes = BTreeMap::new();
        for (name, workload) in self.workloads.iter() {
            let Some(fact) = self.facts.workloads.get(name.to_string().as_str()) else { continue };
            let labels = self.facts.labels_of_workload(fact);
            let identity =
                if fact.transit { Some(Identity::REMOTE_NODE) } else { identities.get(&labels).copied() };
            let Some(identity) = identity else { continue };
            let own = workload.addresses.iter().find_map(|address| state.endpoints.get(address));
            let role = if fact.transit { Role::Transit } else { Role::Host };
            let settings = NodeSettings {
                workload: name.to_string(),
                identity,
                mark: own.map_or(identity, |endpoint| endpoint.mark),
                addresses: workload.addresses.clone(),
                prefixes: match role {
                    Role::Host => host_prefixes.clone(),
                    Role::Transit => self.settings.pools.clone(),
                },
                role,
                mode: self.mode(workload),
                tunnel_port: self.settings.tunnel_port,
                rejected: concerns.of(workload, &labels),
            };
            let before =
                before.and_then(|before| before.nodes.get(name)).filter(|before| ***before == settings);
            nodes.insert(name.clone(), before.map_or_else(|| Arc::new(settings), Arc::clone));
        }
        nodes
    }

    /// Pools and pods' prefixes. Without configured prefixes each pod's address is one: right for few pods only,
    /// since every pod that comes or goes then changes every host's settings.
    fn host_prefixes(&self, state: &State) -> Vec<IpNet> {
        let mut prefixes: BTreeSet<IpNet> = self.settings.pools.iter().copied().collect();
        if self.settings.pod_prefixes.is_empty() {
            let addresses = self.facts.pods.values().flat_map(|pod| &pod.addresses);
            prefixes.extend(
                addresses.filter(|address| state.endpoints.contains_key(address)).copied().map(IpNet::from),
            );
        } else {
            prefixes.extend(&self.settings.pod_prefixes);
        }
        prefixes.into_iter().collect()
    }

    fn mode(&self, workload: &Workload) -> Mode {
        match &workload.target {
            Target::Group { namespace, name } => {
                self.groups.get(&(namespace.clone(), name.clone())).map_or(Mode::Enforce, |group| group.mode)
            }
            Target::TransitNode { .. } => Mode::Enforce,
        }
    }
}
