//! Pods as facts: those that have an address of their own, and the cluster nodes they are behind.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use policy::facts::Pod as Fact;
use policy::state::Role;

use super::Index;
use crate::manifest::Pod;

/// The cluster nodes a pod is behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Behind {
    names: Arc<BTreeSet<String>>,
    tunnels: Arc<Vec<IpAddr>>,
}

impl Index {
    pub(super) fn refresh_pods(&mut self) {
        let mut warnings = BTreeSet::new();
        let endpoints = || self.pods.iter().filter(|(_, pod)| is_endpoint(pod));
        let claims =
            endpoints().flat_map(|(name, pod)| pod.addresses.iter().map(move |address| (*address, name)));
        for contested in self.addresses.settle(claims) {
            warnings.insert(format!(
                "pod {} has the address {}, which pod {} has: it is not reached there",
                contested.claimant, contested.address, contested.holder
            ));
        }
        let (by_node, all) = self.cluster_nodes();
        let mut facts = BTreeMap::new();
        for (name, pod) in self.pods.iter().filter(|(_, pod)| is_endpoint(pod)) {
            let behind = pod.node.as_ref().and_then(|node| by_node.get(node)).unwrap_or(&all);
            let addresses = self.usable(name, pod, &mut warnings);
            if addresses.is_empty() && !pod.addresses.is_empty() {
                continue;
            }
            let same_pod = || self.pods_in_facts.get(name).is_some_and(|before| Arc::ptr_eq(before, pod));
            let known = self.facts.pods.get(name).filter(|known| {
                known.addresses == addresses
                    && known.tunnels == behind.tunnels
                    && known.behind == behind.names
                    && same_pod()
            });
            if let Some(known) = known {
                facts.insert(Arc::clone(name), Arc::clone(known));
                continue;
            }
            let Some((namespace, _)) = name.split_once('/') else { continue };
            let fact = Fact {
                namespace: namespace.to_owned(),
                labels: pod.labels.clone(),
                service_account: pod.service_account.clone(),
                named_ports: pod.named_ports.clone(),
                addresses,
                tunnels: Arc::clone(&behind.tunnels),
                behind: Arc::clone(&behind.names),
            };
            let before = self.facts.pods.get(name).filter(|before| ***before == fact);
            facts.insert(Arc::clone(name), before.map_or_else(|| Arc::new(fact), Arc::clone));
        }
        self.facts.pods = facts;
        self.pods_in_facts.clone_from(&self.pods);
        self.pod_warnings = warnings;
    }

    /// The pod's addresses without those that others hold or that only the gateway gives.
    fn usable(&self, name: &str, pod: &Pod, warnings: &mut BTreeSet<String>) -> Vec<IpAddr> {
        let mut usable = Vec::new();
        for &address in &pod.addresses {
            if self.in_pools(address) {
                warnings.insert(format!(
                    "pod {name} has the address {address}, which is in a pool of mesh addresses: it is not reached there"
                ));
            } else if self.addresses.holds(name, address) {
                usable.push(address);
            }
        }
        let prefixes = &self.settings.pod_prefixes;
        if !prefixes.is_empty() {
            for address in
                usable.iter().filter(|address| !prefixes.iter().any(|prefix| prefix.contains(*address)))
            {
                warnings.insert(format!("pod {name} has the address {address}, which is in none of podPrefixes: no host reaches it"));
            }
        }
        usable
    }

    /// What is behind each cluster node with an agent, and what is behind all transit nodes.
    fn cluster_nodes(&self) -> (BTreeMap<String, Behind>, Behind) {
        let mut by_node: BTreeMap<String, (BTreeSet<String>, Vec<IpAddr>)> = BTreeMap::new();
        let mut all: (BTreeSet<String>, Vec<IpAddr>) = <_>::default();
        for (name, workload) in self.workloads.iter() {
            let Some(node) = workload.target.cluster_node() else { continue };
            let name = name.to_string();
            let Some(fact) = self.facts.workloads.get(name.as_str()) else { continue };
            let is_transit = workload.target.role() == Role::Transit;
            let own = by_node.entry(node.to_owned()).or_default();
            for (names, tunnels) in [Some(own), is_transit.then_some(&mut all)].into_iter().flatten() {
                names.insert(name.clone());
                tunnels.extend(fact.tunnels.iter().copied());
            }
        }
        let share = |(names, tunnels)| Behind { names: Arc::new(names), tunnels: Arc::new(tunnels) };
        (by_node.into_iter().map(|(node, behind)| (node, share(behind))).collect(), share(all))
    }
}

/// Pods that have ended have no address any more; those in their node's network are the node.
fn is_endpoint(pod: &Pod) -> bool {
    !pod.ended && !pod.host_network
}
