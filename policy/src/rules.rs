//! The common form of every policy language: objects with a subject and rules whose selectors are not resolved yet.

use std::sync::Arc;

use ipnet::IpNet;

use crate::labels::Labels;
use crate::selector::Selector;
use crate::state::{Block, PortRange, RuleAction};

/// Precedences of rules. Of all rules that match, the highest decides; deny wins a tie.
pub mod precedence {
    /// The highest one there is: they share a word of the maps with the action.
    pub const HIGHEST: u32 = datapath::abi::Rank::HIGHEST_PRECEDENCE;
    /// What policy on NICs never closes: before all others.
    pub const FAILSAFE: u32 = HIGHEST;
    /// The lowest precedence of the administrators' tier.
    pub const ADMIN: u32 = 0x3000_0000;
    /// Rules of `NetworkPolicy` and of Cilium's languages.
    pub const NETWORK_POLICY: u32 = 0x2000_0000;
    /// The lowest precedence of the baseline.
    pub const BASELINE: u32 = 0x1000_0000;
}

/// A policy object in the common form, or one specification of an object that has several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyObject {
    /// `Kind/namespace/name`, or `Kind/name` of a kind without namespaces; with several specifications
    /// `Kind/namespace/name#specs[0]`.
    pub origin: Arc<str>,
    /// Whom it governs.
    pub subject: Subject,
    /// Rules toward the subject; `None` = the object does not concern this direction.
    pub ingress: Option<Section>,
    /// Rules from the subject.
    pub egress: Option<Section>,
    /// What is valid but will surprise, `path: what`; for `status`.
    pub warnings: Vec<String>,
}

/// Whom an object governs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Nobody.
    Nobody,
    /// External workloads, as endpoints of the mesh. Holds the namespace of an object that has one.
    Endpoints(Selector),
    /// External workloads, as hosts.
    Nodes(Selector),
}

impl Subject {
    /// Whether it governs the workloads with these labels, as endpoints or as hosts.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        self.selector().is_some_and(|selector| selector.matches(labels))
    }

    /// Whether it may govern them, as far as their labels can be read.
    #[must_use]
    pub fn may_match(&self, labels: &Labels) -> bool {
        self.selector().is_some_and(|selector| selector.may_match(labels))
    }

    /// Whether it governs hosts: what they send and receive outside of the mesh.
    #[must_use]
    pub const fn is_hosts(&self) -> bool {
        matches!(self, Self::Nodes(_))
    }

    pub(crate) const fn selector(&self) -> Option<&Selector> {
        match self {
            Self::Nobody => None,
            Self::Endpoints(selector) | Self::Nodes(selector) => Some(selector),
        }
    }
}

/// One direction of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Section {
    /// Whether flows that no rule matches are denied.
    pub isolates: bool,
    /// The rules.
    pub rules: Vec<RuleSpec>,
}

impl Section {
    /// Denies what these rules do not allow.
    #[must_use]
    pub const fn isolating(rules: Vec<RuleSpec>) -> Self {
        Self { isolates: true, rules }
    }
}

/// A rule whose selectors are not resolved yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleSpec {
    /// `Kind/namespace/name#ingress[0]`.
    pub origin: Arc<str>,
    /// Whom it applies to.
    pub peers: PeerSpec,
    /// Which protocols and ports.
    pub ports: PortSpec,
    /// What it says.
    pub action: RuleAction,
    /// Its precedence.
    pub precedence: u32,
}

/// The peers of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerSpec {
    /// Every peer.
    Any,
    /// Any of these; nobody when empty.
    Only(Vec<Peer>),
}

/// One peer of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Pods and external workloads alike.
    Endpoints(Selector),
    /// Addresses.
    Block(Block),
    /// Whoever is meant by a name of its own.
    Entity(Entity),
    /// Nodes of the cluster, by their labels.
    Nodes(Selector),
    /// What Services lead to.
    Service(ServicePeer),
    /// The addresses of groups that no endpoint of the mesh has.
    CidrGroups {
        /// Which groups.
        groups: CidrGroups,
        /// What is not meant.
        except: Vec<IpNet>,
    },
}

/// Peers that Cilium gives names to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Entity {
    /// Every peer.
    All,
    /// Every address that no endpoint of the mesh has.
    World,
    /// Of these the IPv4 ones.
    WorldV4,
    /// Of these the IPv6 ones.
    WorldV6,
    /// Every endpoint and node of this cluster.
    Cluster,
    /// Every endpoint and node of every cluster.
    ClusterMesh,
    /// The node of the subject: an external workload has none beside itself.
    Host,
    /// The other nodes, transit nodes among them.
    RemoteNode,
    /// The API server of the cluster.
    KubeApiserver,
    /// What Cilium has names for and this mesh has not: endpoints that are being set up, unmanaged ones, health
    /// endpoints, ingress proxies.
    Nobody,
}

impl Entity {
    /// The entity with this name in a policy.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "all" => Self::All,
            "world" => Self::World,
            "world-ipv4" => Self::WorldV4,
            "world-ipv6" => Self::WorldV6,
            "cluster" => Self::Cluster,
            "cluster-mesh" => Self::ClusterMesh,
            "host" => Self::Host,
            "remote-node" => Self::RemoteNode,
            "kube-apiserver" => Self::KubeApiserver,
            "init" | "unmanaged" | "health" | "ingress" | "none" => Self::Nobody,
            _ => return None,
        })
    }
}

/// Services as peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePeer {
    /// In this namespace; `None` = in any.
    pub namespace: Option<String>,
    /// Which.
    pub services: Services,
}

/// Which Services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Services {
    /// The one with this name.
    Named(String),
    /// Those with these labels.
    Selected(Selector),
}

/// Which `CiliumCIDRGroup`s.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CidrGroups {
    /// The one with this name.
    Named(String),
    /// Those with these labels.
    Selected(Selector),
}

/// The protocols and ports of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortSpec {
    /// Every protocol and port, ICMP included.
    Any,
    /// Any of these; nothing when empty.
    Only(Vec<PortMatch>),
}

/// One item of a rule's ports.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PortMatch {
    /// Ports by number; of ICMP and `ICMPv6` the types.
    Range(PortRange),
    /// A port by the name that the receiving end gives it.
    Named {
        /// The name.
        name: String,
        /// IP protocol number; a port of that name with another protocol does not match.
        protocol: u8,
    },
}
