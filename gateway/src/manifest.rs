//! The kinds of objects a source gives, decoded strictly: what cannot be understood is refused with its place, never
//! skipped. One table of kinds; each kind's file owns its fields. Knows no folder, no store and no other object.

use std::fmt;
use std::sync::Arc;

use policy::facts::{CidrGroup, Namespace};
use policy::rules::PolicyObject;
use policy::{cilium, clusternetworkpolicy};

mod cidr_group;
pub mod companion;
pub mod decode;
mod fields;
mod group;
mod metadata;
mod namespace;
pub mod node;
mod pod;
mod policies;
mod port;
mod probe;
mod service;
mod workload;

#[cfg(test)]
mod tests;

pub use decode::InvalidField;
pub use group::Group;
pub use node::{InvalidYaml, Node, Position};
pub use pod::Pod;
pub use service::{EndpointSlice, MANAGED_BY, SERVICE_NAME, Service};
pub use workload::Workload;

use metadata::Metadata;
use node::Value;
use policies::Language;

/// The kinds, in the order in which objects are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `v1 Namespace`.
    Namespace,
    /// `v1 Pod`.
    Pod,
    /// `v1 Service`.
    Service,
    /// `discovery.k8s.io/v1 EndpointSlice`.
    EndpointSlice,
    /// `networking.k8s.io/v1 NetworkPolicy`.
    NetworkPolicy,
    /// `cilium.io/v2 CiliumNetworkPolicy`.
    CiliumNetworkPolicy,
    /// `cilium.io/v2 CiliumClusterwideNetworkPolicy`.
    CiliumClusterwideNetworkPolicy,
    /// `cilium.io/v2 CiliumCIDRGroup`, or `v2alpha1`.
    CiliumCidrGroup,
    /// `policy.networking.k8s.io/v1alpha2 ClusterNetworkPolicy`.
    ClusterNetworkPolicy,
    /// `policy.networking.k8s.io/v1alpha1 AdminNetworkPolicy`.
    AdminNetworkPolicy,
    /// `policy.networking.k8s.io/v1alpha1 BaselineAdminNetworkPolicy`.
    BaselineAdminNetworkPolicy,
    /// `outrigger.dev/v1alpha1 ExternalWorkloadGroup`.
    ExternalWorkloadGroup,
    /// `outrigger.dev/v1alpha1 ExternalWorkload`.
    ExternalWorkload,
}

/// What names an object: no two objects have the same key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace; empty for kinds that have none.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// A decoded object.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    /// A namespace.
    Namespace(Arc<Namespace>),
    /// A pod.
    Pod(Arc<Pod>),
    /// A Service.
    Service(Arc<Service>),
    /// Addresses behind a Service.
    EndpointSlice(Arc<EndpointSlice>),
    /// A policy of any language, with its specifications.
    Policies(Vec<Arc<PolicyObject>>),
    /// Blocks that policies refer to.
    CidrGroup(Arc<CidrGroup>),
    /// A group of external workloads.
    Group(Arc<Group>),
    /// An external workload declared before it joins.
    Workload(Arc<Workload>),
}

/// One object of a file, as far as it could be read.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// What it is called; `None` where that cannot be read.
    pub key: Option<ObjectKey>,
    /// Its text as values.
    pub node: Node,
    /// The object, or why it is refused.
    pub object: Result<Object, InvalidField>,
}

/// Bytes of the longest name that Kubernetes gives.
const LONGEST_NAME: usize = 253;

/// A kind as a cluster's API serves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resource {
    /// The kind.
    pub kind: Kind,
    /// Group and version, as `apiVersion` has them.
    pub api_version: &'static str,
    /// The kind's name there.
    pub name: &'static str,
    /// The name in addresses.
    pub plural: &'static str,
    /// Whether every cluster has it.
    pub built_in: bool,
}

/// One row of the table of kinds.
struct Row {
    kind: Kind,
    api_version: &'static str,
    name: &'static str,
    plural: &'static str,
    namespaced: bool,
    decode: fn(&Node, Metadata) -> Result<Object, InvalidField>,
}

const KINDS: [Row; 14] = [
    Row {
        kind: Kind::Namespace,
        api_version: "v1",
        name: "Namespace",
        plural: "namespaces",
        namespaced: false,
        decode: |node, metadata| namespace::decode(node, metadata).map(Arc::new).map(Object::Namespace),
    },
    Row {
        kind: Kind::Pod,
        api_version: "v1",
        name: "Pod",
        plural: "pods",
        namespaced: true,
        decode: |node, metadata| Pod::decode(node, metadata).map(Arc::new).map(Object::Pod),
    },
    Row {
        kind: Kind::Service,
        api_version: "v1",
        name: "Service",
        plural: "services",
        namespaced: true,
        decode: |node, metadata| Service::decode(node, metadata).map(Arc::new).map(Object::Service),
    },
    Row {
        kind: Kind::EndpointSlice,
        api_version: "discovery.k8s.io/v1",
        name: "EndpointSlice",
        plural: "endpointslices",
        namespaced: true,
        decode: |node, metadata| {
            EndpointSlice::decode(node, &metadata).map(Arc::new).map(Object::EndpointSlice)
        },
    },
    Row {
        kind: Kind::NetworkPolicy,
        api_version: "networking.k8s.io/v1",
        name: "NetworkPolicy",
        plural: "networkpolicies",
        namespaced: true,
        decode: |node, _metadata| Language::NetworkPolicy.decode(node),
    },
    Row {
        kind: Kind::CiliumNetworkPolicy,
        api_version: "cilium.io/v2",
        name: "CiliumNetworkPolicy",
        plural: "ciliumnetworkpolicies",
        namespaced: true,
        decode: |node, _metadata| Language::Cilium(cilium::Kind::Namespaced).decode(node),
    },
    Row {
        kind: Kind::CiliumClusterwideNetworkPolicy,
        api_version: "cilium.io/v2",
        name: "CiliumClusterwideNetworkPolicy",
        plural: "ciliumclusterwidenetworkpolicies",
        namespaced: false,
        decode: |node, _metadata| Language::Cilium(cilium::Kind::Clusterwide).decode(node),
    },
    Row {
        kind: Kind::CiliumCidrGroup,
        api_version: "cilium.io/v2",
        name: "CiliumCIDRGroup",
        plural: "ciliumcidrgroups",
        namespaced: false,
        decode: |node, metadata| cidr_group::decode(node, metadata).map(Arc::new).map(Object::CidrGroup),
    },
    Row {
        kind: Kind::CiliumCidrGroup,
        api_version: "cilium.io/v2alpha1",
        name: "CiliumCIDRGroup",
        plural: "ciliumcidrgroups",
        namespaced: false,
        decode: |node, metadata| cidr_group::decode(node, metadata).map(Arc::new).map(Object::CidrGroup),
    },
    Row {
        kind: Kind::ClusterNetworkPolicy,
        api_version: "policy.networking.k8s.io/v1alpha2",
        name: "ClusterNetworkPolicy",
        plural: "clusternetworkpolicies",
        namespaced: false,
        decode: |node, _metadata| Language::Cluster(clusternetworkpolicy::Kind::Cluster).decode(node),
    },
    Row {
        kind: Kind::AdminNetworkPolicy,
        api_version: "policy.networking.k8s.io/v1alpha1",
        name: "AdminNetworkPolicy",
        plural: "adminnetworkpolicies",
        namespaced: false,
        decode: |node, _metadata| Language::Cluster(clusternetworkpolicy::Kind::Admin).decode(node),
    },
    Row {
        kind: Kind::BaselineAdminNetworkPolicy,
        api_version: "policy.networking.k8s.io/v1alpha1",
        name: "BaselineAdminNetworkPolicy",
        plural: "baselineadminnetworkpolicies",
        namespaced: false,
        decode: |node, _metadata| Language::Cluster(clusternetworkpolicy::Kind::Baseline).decode(node),
    },
    Row {
        kind: Kind::ExternalWorkloadGroup,
        api_version: "outrigger.dev/v1alpha1",
        name: "ExternalWorkloadGroup",
        plural: "externalworkloadgroups",
        namespaced: true,
        decode: |node, metadata| Group::decode(node, &metadata).map(Arc::new).map(Object::Group),
    },
    Row {
        kind: Kind::ExternalWorkload,
        api_version: "outrigger.dev/v1alpha1",
        name: "ExternalWorkload",
        plural: "externalworkloads",
        namespaced: true,
        decode: |node, metadata| Workload::decode(node, &metadata).map(Arc::new).map(Object::Workload),
    },
];

/// Every object of a document: itself, or the items of a list, in order.
#[must_use]
pub fn manifests(document: Node) -> Vec<Manifest> {
    let is_list = document.get("kind").and_then(Node::as_str).is_some_and(|kind| kind.ends_with("List"));
    if !is_list {
        return vec![Manifest::read(document)];
    }
    if let Err(error) = fields::only(&document, &["apiVersion", "kind", "metadata", "items"]) {
        return vec![Manifest { key: None, node: document, object: Err(error) }];
    }
    if let Some(Value::Sequence(items)) = document.get("items").map(|items| &items.value) {
        return items.iter().cloned().flat_map(manifests).collect();
    }
    let object = Err(InvalidField::new(&document, "items", "a list needs its items"));
    vec![Manifest { key: None, node: document, object }]
}

impl Manifest {
    /// Reads one object.
    #[must_use]
    pub fn read(node: Node) -> Self {
        let row = match Row::of(&node) {
            Ok(row) => row,
            Err(error) => return Self { key: None, node, object: Err(error) },
        };
        let metadata = Metadata::decode(&node, row.namespaced);
        let key = metadata.as_ref().map_or_else(
            |_invalid| ObjectKey::evident(&node, row),
            |metadata| Some(ObjectKey::new(row.kind, &metadata.namespace, &metadata.name)),
        );
        let object = metadata.and_then(|metadata| (row.decode)(&node, metadata));
        Self { key, node, object }
    }

    /// For an object that was never valid: what takes its place, so that it opens nothing. A policy that isolates what it
    /// evidently selects; a namespace of which nothing is known to be absent. `None` where nothing can be said, and for
    /// kinds that open nothing by being absent.
    #[must_use]
    pub fn stand_in(&self) -> Option<Object> {
        let kind = self.key.as_ref()?.kind;
        if kind == Kind::Namespace {
            let namespace = Namespace { unreadable: true, ..Namespace::default() };
            return Some(Object::Namespace(Arc::new(namespace)));
        }
        Language::of(kind)?.stand_in(&self.node)
    }
}

impl Row {
    fn of(node: &Node) -> Result<&'static Self, InvalidField> {
        if !matches!(node.value, Value::Mapping(_)) {
            return Err(InvalidField::new(
                node,
                "",
                "an object is expected, with apiVersion, kind and metadata",
            ));
        }
        let text = |name: &'static str| {
            let value = node.get(name).ok_or_else(|| InvalidField::new(node, name, "is missing"))?;
            value.as_str().ok_or_else(|| InvalidField::new(value, name, "expected a text"))
        };
        let (api_version, kind) = (text("apiVersion")?, text("kind")?);
        KINDS.iter().find(|row| row.api_version == api_version && row.name == kind).ok_or_else(|| {
            let known: Vec<_> = KINDS.iter().map(|row| format!("{} {}", row.api_version, row.name)).collect();
            let place = node.get("kind").unwrap_or(node);
            let message = format!("unknown kind \"{api_version} {kind}\"; known are {}", known.join(", "));
            InvalidField::new(place, "kind", message)
        })
    }
}

impl Resource {
    /// Every kind in every version that is understood, of a kind the best version first.
    pub fn all() -> impl Iterator<Item = Self> {
        KINDS.iter().map(|row| {
            let Row { kind, api_version, name, plural, namespaced: _, decode: _ } = *row;
            let built_in = matches!(api_version, "v1" | "discovery.k8s.io/v1" | "networking.k8s.io/v1");
            Self { kind, api_version, name, plural, built_in }
        })
    }
}

impl ObjectKey {
    /// The key of an object.
    #[must_use]
    pub fn new(kind: Kind, namespace: &str, name: &str) -> Self {
        Self { kind, namespace: namespace.to_owned(), name: name.to_owned() }
    }

    /// The key that metadata gives although something in them is wrong.
    fn evident(node: &Node, row: &Row) -> Option<Self> {
        let metadata = node.get("metadata")?;
        let name = metadata.get("name")?.as_str()?;
        let namespace = match metadata.get("namespace") {
            Some(namespace) if row.namespaced => namespace.as_str()?,
            None if row.namespaced => metadata::DEFAULT_NAMESPACE,
            Some(_) | None => "",
        };
        // Nothing has a longer name; it would be shown wherever the object is.
        let is_name = |text: &str| text.len() <= LONGEST_NAME;
        (is_name(name) && is_name(namespace)).then(|| Self::new(row.kind, namespace, name))
    }
}

impl Kind {
    /// Whether its objects are policies.
    #[must_use]
    pub const fn is_policy(self) -> bool {
        Language::of(self).is_some()
    }

    /// The kind with a name of the table, whatever its group.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        KINDS.iter().find(|row| row.name == name).map(|row| row.kind)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        KINDS.iter().find(|row| row.kind == *self).map_or(Ok(()), |row| f.write_str(row.name))
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace.as_str() {
            "" => write!(f, "{}/{}", self.kind, self.name),
            namespace => write!(f, "{}/{namespace}/{}", self.kind, self.name),
        }
    }
}
