//! All facts about the mesh and what follows from them: objects of the source and workloads of the store go in, the
//! compiled state comes out. Pure: numbers, time and acknowledgements are arguments. Knows no folder, no stream and
//! no database.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use ipnet::IpNet;
use policy::clusternetworkpolicy::shared_priorities;
use policy::facts::Facts;
use policy::identity::Identity;
use policy::labels::Labels;
use policy::resolve::{Resolver, UnusableIdentities};
use policy::state::{NodeSettings, State};

use crate::manifest::{Group, Kind, Object, ObjectKey, Pod, Workload as Declared};
use crate::source::{Change, Rejected};
use crate::store::{Target, WorkloadName, Workloads};

mod concerns;
mod holders;
mod nic;
pub(crate) mod parts;
mod pods;
mod relabel;
pub mod services;
mod settings;
#[cfg(test)]
mod tests;
mod warned;
mod workloads;

pub use relabel::{LONGEST_PHASE, Round};

use holders::Holders;
use relabel::Relabels;
use services::Services;
use settings::Settled;

/// What the gateway's configuration says about the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeshSettings {
    /// The cluster's name, an identity label.
    pub cluster: String,
    /// Where mesh addresses come from.
    pub pools: Vec<IpNet>,
    /// Where the pods' addresses are; empty: each pod's address is a prefix of its own.
    pub pod_prefixes: Vec<IpNet>,
    /// The UDP port of the tunnel.
    pub tunnel_port: u16,
}

/// What each workload is told about itself.
pub type Nodes = Arc<BTreeMap<WorkloadName, Arc<NodeSettings>>>;

/// What follows from all facts at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Compiled {
    /// The state.
    pub state: State,
    /// What each workload is told about itself. A workload whose group is unknown is not among them.
    pub nodes: Nodes,
    /// What users should know, one sentence each.
    pub warnings: BTreeSet<String>,
}

/// The changes of identities under way at one moment.
#[derive(Clone, Debug)]
pub struct Checkpoint(Relabels);

/// The facts.
#[derive(Debug)]
pub struct Index {
    settings: MeshSettings,
    facts: Facts,
    pods: BTreeMap<Arc<str>, Arc<Pod>>,
    services: Services,
    groups: BTreeMap<(String, String), Arc<Group>>,
    declared: BTreeMap<(String, String), Arc<Declared>>,
    workloads: Arc<Workloads>,
    rejected: Vec<Rejected>,
    addresses: Holders,
    underlay: Holders,
    relabels: Relabels,
    resolver: Resolver,
    stale: Stale,
    /// The pods that the facts were made of.
    pods_in_facts: BTreeMap<Arc<str>, Arc<Pod>>,
    settled: Settled,
    workload_warnings: BTreeSet<String>,
    pod_warnings: BTreeSet<String>,
}

/// Which facts are older than what they are made of.
#[derive(Clone, Copy, Debug, Default)]
struct Stale {
    workloads: bool,
    pods: bool,
}

impl Index {
    /// No facts yet.
    #[must_use]
    pub fn new(settings: MeshSettings) -> Self {
        Self {
            facts: Facts { cluster: settings.cluster.clone(), ..Facts::default() },
            settings,
            pods: BTreeMap::new(),
            services: Services::default(),
            groups: BTreeMap::new(),
            declared: BTreeMap::new(),
            workloads: Arc::default(),
            rejected: Vec::new(),
            addresses: Holders::default(),
            underlay: Holders::default(),
            relabels: Relabels::default(),
            resolver: Resolver::default(),
            stale: Stale::default(),
            pods_in_facts: BTreeMap::new(),
            settled: Settled::default(),
            workload_warnings: BTreeSet::new(),
            pod_warnings: BTreeSet::new(),
        }
    }

    /// Takes over a change of the source.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Put(key, object) => self.put(key, object),
            Change::Delete(key) => self.delete(&key),
        }
    }

    /// Takes over the workloads of the store.
    pub fn set_workloads(&mut self, workloads: Arc<Workloads>) {
        self.workloads = workloads;
        self.stale.workloads = true;
    }

    /// Takes over what the source rejects.
    pub fn set_rejected(&mut self, rejected: Vec<Rejected>) {
        self.rejected = rejected;
    }

    /// The groups in force, by namespace and name.
    #[must_use]
    pub fn groups(&self) -> &BTreeMap<(String, String), Arc<Group>> {
        &self.groups
    }

    /// The workloads that are declared, by namespace and name.
    #[must_use]
    pub fn declared(&self) -> &BTreeMap<(String, String), Arc<Declared>> {
        &self.declared
    }

    /// How many policies are in force.
    #[must_use]
    pub fn policies(&self) -> usize {
        self.facts.policies.len()
    }

    /// The groups that have members: these must not go.
    #[must_use]
    pub fn groups_in_use(&self) -> BTreeSet<ObjectKey> {
        let targets = self.workloads.values().map(|workload| &workload.target);
        let groups = targets.filter_map(|target| match target {
            Target::Group { namespace, name } => {
                Some(ObjectKey::new(Kind::ExternalWorkloadGroup, namespace, name))
            }
            Target::TransitNode { .. } | Target::Node { .. } => None,
        });
        groups.collect()
    }

    /// The facts, as of the last time they were brought up to date.
    #[must_use]
    pub const fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Brings the facts up to date; whether the label sets that need a number became others. Comes before
    /// [`Index::compile`].
    pub fn refresh(&mut self) -> bool {
        if self.stale.workloads {
            self.refresh_workloads();
            self.settled.outdate();
        }
        // Pods are behind transit nodes, which are workloads.
        if self.stale.workloads || self.stale.pods {
            self.refresh_pods();
        }
        self.stale = Stale::default();
        self.resolver.observe(&self.facts)
    }

    /// The label sets that need a number.
    #[must_use]
    pub fn labels(&self) -> impl ExactSizeIterator<Item = &Labels> {
        self.resolver.label_sets()
    }

    /// Compiles the facts with the numbers of their label sets. `before` is what was last published.
    ///
    /// # Errors
    /// [`UnusableIdentities`] when a label set has no number of its own.
    pub fn compile(
        &mut self,
        identities: &Arc<BTreeMap<Labels, Identity>>,
        before: Option<&Compiled>,
    ) -> Result<Compiled, UnusableIdentities> {
        self.facts.relabels = self.relabels.facts();
        let mut resolved = self.resolver.resolve(&self.facts, identities)?;
        if self.relabels.observe(before.map(|before| &before.state), &resolved.state) {
            self.facts.relabels = self.relabels.facts();
            resolved = self.resolver.resolve(&self.facts, identities)?;
        }
        let mut state = resolved.state;
        if let Some(before) = before {
            state.share_with(&before.state);
        }
        let nodes = self.nodes(&state);
        let mut warnings = resolved.warnings;
        warnings.extend(shared_priorities(self.facts.policies.values()));
        warnings.extend(self.workload_warnings.iter().chain(&self.pod_warnings).cloned());
        Ok(Compiled { state, nodes, warnings })
    }

    /// Goes on with the changes of identities that an earlier process began. Comes before the first state.
    pub fn resume_relabels(&mut self, rounds: BTreeMap<IpAddr, Round>) {
        self.relabels.resume(rounds);
    }

    /// The changes of identities, to be put back where what is compiled next is not published.
    #[must_use]
    pub fn checkpoint(&self) -> Checkpoint {
        Checkpoint(self.relabels.clone())
    }

    /// Forgets what was compiled since: what nobody was told of neither begins nor ends a change of an identity.
    pub fn take_back(&mut self, Checkpoint(relabels): Checkpoint) {
        self.relabels = relabels;
    }

    /// The changes of identities that are under way.
    #[must_use]
    pub fn relabel_rounds(&self) -> BTreeMap<IpAddr, Round> {
        self.relabels.rounds()
    }

    /// Learns that a compiled state was published under this number.
    pub fn published(&mut self, generation: u64, now: Instant) {
        self.relabels.published(generation, now);
    }

    /// Lets changes of identities go on whose phase all receivers have confirmed: `acknowledged` is the oldest
    /// generation that any connected receiver has applied, `None` without receivers. Whether a phase changed.
    pub fn advance(&mut self, acknowledged: Option<u64>, now: Instant) -> bool {
        self.relabels.advance(acknowledged, now)
    }

    /// When [`Index::advance`] is to be called at the latest; `None` while no identity is being changed.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.relabels.deadline()
    }

    fn put(&mut self, key: ObjectKey, object: Object) {
        match object {
            Object::Namespace(namespace) => {
                self.facts.namespaces.insert(key.name, namespace);
            }
            Object::Pod(pod) => {
                self.pods.insert(object_name(&key), pod);
                self.stale.pods = true;
            }
            Object::Service(service) => self.services.put(&key, Some(service), &mut self.facts.services),
            Object::EndpointSlice(slice) => {
                self.services.put_slice(&key, Some(slice), &mut self.facts.services);
            }
            Object::Policies(policies) => {
                parts::replace(&mut self.facts.policies, &key, &policies);
            }
            Object::CidrGroup(group) => {
                self.facts.cidr_groups.insert(key.name.as_str().into(), group);
            }
            Object::Group(group) => {
                self.groups.insert((key.namespace, key.name), group);
                self.stale.workloads = true;
            }
            Object::Workload(workload) => {
                self.declared.insert((key.namespace, key.name), workload);
                self.settled.outdate();
            }
        }
    }

    fn delete(&mut self, key: &ObjectKey) {
        let pair = || (key.namespace.clone(), key.name.clone());
        self.stale.pods |= key.kind == Kind::Pod;
        self.stale.workloads |= key.kind == Kind::ExternalWorkloadGroup;
        match key.kind {
            Kind::Namespace => drop(self.facts.namespaces.remove(&key.name)),
            Kind::Pod => drop(self.pods.remove(&object_name(key))),
            Kind::Service => self.services.put(key, None, &mut self.facts.services),
            Kind::EndpointSlice => self.services.put_slice(key, None, &mut self.facts.services),
            Kind::CiliumCidrGroup => drop(self.facts.cidr_groups.remove(key.name.as_str())),
            Kind::ExternalWorkloadGroup => drop(self.groups.remove(&pair())),
            Kind::ExternalWorkload => {
                self.declared.remove(&pair());
                self.settled.outdate();
            }
            Kind::NetworkPolicy
            | Kind::CiliumNetworkPolicy
            | Kind::CiliumClusterwideNetworkPolicy
            | Kind::ClusterNetworkPolicy
            | Kind::AdminNetworkPolicy
            | Kind::BaselineAdminNetworkPolicy => parts::replace(&mut self.facts.policies, key, &[]),
        }
    }

    /// Whether the address is one that only the gateway gives.
    fn in_pools(&self, address: IpAddr) -> bool {
        self.settings.pools.iter().any(|pool| pool.contains(&address))
    }

    fn among_pods(&self, address: IpAddr) -> bool {
        self.settings.pod_prefixes.iter().any(|prefix| prefix.contains(&address))
    }
}

/// `namespace/name`.
fn object_name(key: &ObjectKey) -> Arc<str> {
    format!("{}/{}", key.namespace, key.name).into()
}
