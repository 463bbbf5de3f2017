//! What is known before anything is resolved: one plain struct per kind.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::identity::Identity;
use crate::labels::{Labels, Placement};
use crate::rules::PolicyObject;
use crate::state::Role;

/// Everything that [`crate::resolve()`] needs. Keys of pods and workloads are `namespace/name`, those of policies
/// `Kind/namespace/name`.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The name of the cluster.
    pub cluster: String,
    /// Namespaces by name. One that is missing counts as one without labels.
    pub namespaces: BTreeMap<String, Arc<Namespace>>,
    /// Pods that have an address of their own; pods in their node's network are none.
    pub pods: BTreeMap<Arc<str>, Arc<Pod>>,
    /// External workloads, transit nodes among them.
    pub workloads: BTreeMap<Arc<str>, Arc<Workload>>,
    /// Policies.
    pub policies: BTreeMap<Arc<str>, Arc<PolicyObject>>,
    /// Groups of blocks that policies refer to, by name.
    pub cidr_groups: BTreeMap<Arc<str>, Arc<CidrGroup>>,
    /// Services, by `namespace/name`.
    pub services: BTreeMap<Arc<str>, Arc<Service>>,
    /// Addresses whose identity is being changed.
    pub relabels: BTreeMap<IpAddr, Relabel>,
}

/// A namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespace {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Whether it has labels that cannot be read.
    pub unreadable: bool,
}

/// A pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its service account.
    pub service_account: String,
    /// The ports of its containers that have names.
    pub named_ports: Vec<NamedPort>,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// The underlay addresses of the transit nodes it is behind, in order of preference.
    pub tunnels: Arc<Vec<IpAddr>>,
    /// The names (`namespace/name`) of those transit nodes.
    pub behind: Arc<BTreeSet<String>>,
}

/// An external workload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Workload {
    /// Its namespace.
    pub namespace: String,
    /// The labels of its group's template.
    pub labels: BTreeMap<String, String>,
    /// The service account of its group's template.
    pub service_account: String,
    /// The named ports of its group's template.
    pub named_ports: Vec<NamedPort>,
    /// Its mesh addresses.
    pub addresses: Vec<IpAddr>,
    /// Its underlay addresses, in order of preference.
    pub tunnels: Arc<Vec<IpAddr>>,
    /// What it is in the mesh. The identity of a cluster node is [`Identity::REMOTE_NODE`], and no policy selects it.
    pub role: Role,
}

/// `CiliumCIDRGroup`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CidrGroup {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its blocks.
    pub cidrs: Vec<IpNet>,
}

/// A Service, with what it leads to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// Its namespace.
    pub namespace: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The labels of the pods it leads to; `None` = it leads to the addresses of its slices.
    pub selector: Option<BTreeMap<String, String>>,
    /// The addresses of its slices, where it has no selector.
    pub addresses: Vec<IpAddr>,
}

/// A port with a name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NamedPort {
    /// The name.
    pub name: String,
    /// IP protocol number.
    pub protocol: u8,
    /// The port.
    pub number: u16,
}

/// A change of an address's identity that receivers have not all confirmed yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relabel {
    /// What some senders may still write.
    pub previous: Identity,
    /// What senders are told to write: the new identity, or an older one.
    pub mark: Identity,
}

impl Facts {
    /// The identity labels of a pod.
    #[must_use]
    pub fn labels_of_pod(&self, pod: &Pod) -> Labels {
        let none = BTreeMap::new();
        let labels = Labels::of_pod(&pod.labels, self.placement(&pod.namespace, &pod.service_account, &none));
        self.marked(labels, &pod.namespace)
    }

    /// The identity labels of an external workload.
    #[must_use]
    pub fn labels_of_workload(&self, workload: &Workload) -> Labels {
        if workload.role.is_cluster_node() {
            return Labels::of_remote_node();
        }
        let none = BTreeMap::new();
        let labels = Labels::of_workload(
            &workload.labels,
            self.placement(&workload.namespace, &workload.service_account, &none),
        );
        self.marked(labels, &workload.namespace)
    }

    /// The labels, marked where those of the namespace cannot be read.
    fn marked(&self, labels: Labels, namespace: &str) -> Labels {
        let unreadable = self.namespaces.get(namespace).is_some_and(|found| found.unreadable);
        if unreadable { labels.in_unreadable_namespace() } else { labels }
    }

    fn placement<'a>(
        &'a self,
        namespace: &'a str,
        service_account: &'a str,
        none: &'a BTreeMap<String, String>,
    ) -> Placement<'a> {
        let namespace_labels = self.namespaces.get(namespace).map_or(none, |found| &found.labels);
        Placement { namespace, namespace_labels, service_account, cluster: &self.cluster }
    }
}
