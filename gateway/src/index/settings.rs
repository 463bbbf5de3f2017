//! What each workload is told about itself.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use policy::identity::Identity;
use policy::state::{EndpointKind, Mode, NodeSettings, Probe, Role, State};

use super::nic::{self, Beyond};
use super::warned::Warned;
use super::{Index, Nodes};
use crate::store::{Target, Workload, WorkloadName};

/// What was told to workloads last, and of what it was made beside the facts about workloads.
#[derive(Debug, Default)]
pub(super) struct Settled {
    made_of: Option<MadeOf>,
    nodes: Nodes,
    /// What policies say about traffic outside of the mesh.
    pub(super) beyond: Beyond,
}

#[derive(Debug, PartialEq, Eq)]
struct MadeOf {
    host_prefixes: Vec<IpNet>,
    /// Changes with every change of a workload's identity.
    identities: u64,
    /// What senders write for workloads whose identity is being changed.
    marks: BTreeMap<IpAddr, Identity>,
    /// What policies say about traffic outside of the mesh.
    told: nic::Told,
    /// What policies do not do as they are written.
    warned: Warned,
}

impl Settled {
    /// Facts about workloads became others.
    pub(super) fn outdate(&mut self) {
        self.made_of = None;
    }
}

impl Index {
    /// What each workload is told about itself; what is as before is behind the same `Arc`.
    pub(super) fn nodes(&mut self, state: &State) -> Nodes {
        let host_prefixes = self.host_prefixes(state);
        let told = self.beyond_mesh(state, &host_prefixes);
        let made_of = MadeOf {
            host_prefixes,
            identities: self.resolver.workload_changes(),
            marks: self.marks(state),
            told,
            warned: self.warned(),
        };
        // Rejected objects may concern a workload for many reasons; there are none on most days.
        if !self.rejected.is_empty() || self.settled.made_of.as_ref() != Some(&made_of) {
            self.settled.nodes = Arc::new(self.new_nodes(state, &made_of));
            self.settled.made_of = self.rejected.is_empty().then_some(made_of);
        }
        Arc::clone(&self.settled.nodes)
    }

    fn new_nodes(&self, state: &State, made_of: &MadeOf) -> BTreeMap<WorkloadName, Arc<NodeSettings>> {
        let concerns = self.concerns();
        let mut nodes = BTreeMap::new();
        for (name, workload) in self.workloads.iter() {
            let text = name.to_string();
            let Some((identity, labels)) = self.resolver.workload(&text) else { continue };
            let own = workload.addresses.iter().find_map(|address| state.endpoints.get(address));
            let role = workload.target.role();
            let (nic, mut partly_enforced) = match role {
                Role::Host => self.outside(name, workload, identity, &made_of.told),
                Role::Transit | Role::Node => (None, Vec::new()),
            };
            if role == Role::Host {
                partly_enforced.extend(made_of.warned.get(&identity).into_iter().flatten().cloned());
            }
            let settings = NodeSettings {
                workload: text,
                identity,
                mark: own.map_or(identity, |endpoint| endpoint.mark),
                addresses: workload.addresses.clone(),
                prefixes: match role {
                    Role::Host => made_of.host_prefixes.clone(),
                    Role::Transit | Role::Node => self.settings.pools.clone(),
                },
                role,
                mode: self.mode(workload),
                tunnel_port: self.settings.tunnel_port,
                rejected: concerns.of(workload, labels),
                nic,
                partly_enforced,
                probes: self.probes(workload),
            };
            let before = self.settled.nodes.get(name).filter(|before| ***before == settings);
            nodes.insert(name.clone(), before.map_or_else(|| Arc::new(settings), Arc::clone));
        }
        nodes
    }

    /// The marks of workloads' addresses whose identity is being changed.
    fn marks(&self, state: &State) -> BTreeMap<IpAddr, Identity> {
        let marks = self.facts.relabels.keys().filter_map(|address| {
            let endpoint = state.endpoints.get(address)?;
            (!matches!(endpoint.kind, EndpointKind::Pod { .. })).then_some((*address, endpoint.mark))
        });
        marks.collect()
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

    /// Those of its own object, else of its group.
    pub(super) fn probes(&self, workload: &Workload) -> Vec<Probe> {
        let Target::Group { namespace, name } = &workload.target else { return Vec::new() };
        let WorkloadName { namespace: of, name: called } = &workload.name;
        let own = self.declared.get(&(of.clone(), called.clone())).and_then(|own| own.probes.clone());
        let group = || self.groups.get(&(namespace.clone(), name.clone()));
        own.or_else(|| Some(group()?.probes.clone())).unwrap_or_default()
    }

    fn mode(&self, workload: &Workload) -> Mode {
        match &workload.target {
            Target::Group { namespace, name } => {
                self.groups.get(&(namespace.clone(), name.clone())).map_or(Mode::Enforce, |group| group.mode)
            }
            Target::TransitNode { .. } | Target::Node { .. } => Mode::Enforce,
        }
    }
}
