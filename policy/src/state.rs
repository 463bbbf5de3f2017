//! The compiled state: what the gateway streams, what agents lower. Selectors are already resolved; every set is
//! explicit, so that "absent" can never be read as "everything".

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use datapath::Direction;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::identity::Identity;
use crate::labels::Labels;
use crate::pages::Pages;

mod beyond;
mod block;
mod nic;
mod probe;
mod share;
#[cfg(test)]
mod tests;

pub use beyond::beyond_mesh;
pub use block::canonical;
pub(crate) use block::canonical_block;
pub use nic::{Nic, Scope};
pub use probe::{Probe, ProbeKind};
pub use share::{differences, same};

/// An endpoint: who has an address, and where it is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The identity policy uses.
    pub identity: Identity,
    /// What some senders may still write during a relabel, accepted on the wire beside `identity` and `mark`.
    pub previous: Option<Identity>,
    /// What senders for this endpoint are told to write as VNI.
    pub mark: Identity,
    /// The underlay addresses that may send for this endpoint, in order of preference; empty = unreachable.
    pub tunnels: Arc<Vec<IpAddr>>,
    /// What has the address.
    pub kind: EndpointKind,
    /// The object that has the address, as `namespace/name`; for people, never for policy. `None` where the
    /// receiver may not know it.
    pub owner: Option<Arc<str>>,
}

/// What has an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EndpointKind {
    /// A pod, behind the transit nodes named here (workload names); they deliver to it by their own routes.
    Pod {
        /// Names (`namespace/name`) of the transit nodes it is behind.
        behind: Arc<BTreeSet<String>>,
    },
    /// An external workload.
    Workload,
    /// A transit node.
    Transit,
    /// A cluster node that hosts do not reach by themselves: transit nodes stand between it and them.
    Node,
}

/// The compiled policy of one identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Toward the workload.
    pub ingress: DirectionPolicy,
    /// From the workload.
    pub egress: DirectionPolicy,
}

/// One direction of a compiled policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectionPolicy {
    /// What happens to a flow that no rule matches; an explicit fact, never derived.
    pub default: Default,
    /// The rules, in the order of their origins.
    pub rules: Vec<Rule>,
}

/// The verdict on flows that no rule matches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Default {
    /// No policy selects the workload in this direction.
    Allow,
    /// At least one policy does; these are their names (`Kind/namespace/name`), sorted.
    Deny {
        /// The policies that made the direction default-deny.
        by: Vec<String>,
    },
}

/// One resolved rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// `Kind/namespace/name#ingress[0]`: what monitor, trace and events show.
    pub origin: Arc<str>,
    /// Whom it applies to.
    pub peers: Peers,
    /// Which protocols and ports.
    pub ports: Ports,
    /// What it says.
    pub action: RuleAction,
    /// Of all rules that match, the highest precedence decides; deny wins a tie.
    pub precedence: u32,
}

/// What a rule says; of rules with one precedence the last of these decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum RuleAction {
    /// Let the flow pass.
    Allow,
    /// Leave it to the tiers below.
    Pass,
    /// Drop it.
    Deny,
}

/// The peers of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Peers {
    /// Every peer.
    Any,
    /// The union of both; nothing when both are empty.
    Only {
        /// Peers by identity.
        identities: Arc<BTreeSet<Identity>>,
        /// Peers by address.
        blocks: Vec<Block>,
    },
}

/// A CIDR block with holes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Block {
    /// The block.
    pub cidr: IpNet,
    /// What is not in it.
    pub except: Vec<IpNet>,
    /// Which of its addresses are meant.
    pub reach: Reach,
}

/// Which addresses of a block are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Reach {
    /// All, whoever has them (`ipBlock`).
    Everyone,
    /// Those that no endpoint of the mesh has (Cilium's CIDR rules).
    Outside,
}

/// The protocols and ports of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ports {
    /// Every protocol and port, ICMP included.
    Any,
    /// Any of these; nothing when empty.
    Only(Vec<PortRange>),
}

/// A range of ports of one protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PortRange {
    /// IP protocol number (6 TCP, 17 UDP, 132 SCTP).
    pub protocol: u8,
    /// First destination port of the flow's opener.
    pub first: u16,
    /// Last, inclusive; `0..=65535` is the whole protocol.
    pub last: u16,
}

/// The compiled state of the whole mesh, in the gateway. Shared parts exist once, behind `Arc`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Every endpoint, by address.
    pub endpoints: BTreeMap<IpAddr, Arc<Endpoint>>,
    /// The labels of every identity in use.
    pub identities: BTreeMap<Identity, Arc<Labels>>,
    /// The policy of every identity that an external workload has.
    pub policies: BTreeMap<Identity, Arc<Policy>>,
    /// What policies say of those of them that are selected as hosts, about traffic outside of the mesh.
    pub host_policies: BTreeMap<Identity, Arc<Policy>>,
}

/// What one node enforces and forwards: its slice of the state, as received by an agent. A copy shares all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeState {
    /// Every endpoint of the mesh, by address, the node's own among them.
    pub endpoints: Pages<IpAddr, Endpoint>,
    /// The labels this node may know, in their serialised form: they are shown and decide nothing.
    pub identities: Pages<Identity, Arc<str>>,
    /// The policy of the node's own identity.
    pub policy: Arc<Policy>,
    /// What else the node is told about itself.
    pub settings: NodeSettings,
}

/// What the gateway tells a node about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSettings {
    /// `namespace/name` of the external workload.
    pub workload: String,
    /// Its identity, the one policy uses.
    pub identity: Identity,
    /// What it writes as VNI: `identity`, or the previous one during a relabel.
    pub mark: Identity,
    /// Its mesh addresses: at most one IPv4 and one IPv6.
    pub addresses: Vec<IpAddr>,
    /// The prefixes it routes into the mesh.
    pub prefixes: Vec<IpNet>,
    /// Its part in the mesh.
    pub role: Role,
    /// Whether policy is enforced or only reported.
    pub mode: Mode,
    /// The UDP port of the tunnel, one for the whole mesh.
    pub tunnel_port: u16,
    /// Objects that were rejected and concern this node, `Kind/namespace/name: reason`; for `status`.
    pub rejected: Vec<String>,
    /// What governs its NICs; `None` = nothing does, the scope is `mesh`.
    pub nic: Option<Nic>,
    /// What policies that select it say and what is not done: about traffic that its scope leaves out, or in a form that is
    /// not enforced. Each with what that is.
    pub partly_enforced: Vec<String>,
    /// How it finds out whether its workload serves; empty: it is not asked to.
    pub probes: Vec<Probe>,
}

/// A node's part in the mesh.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// A host with its own workload; policy is enforced here.
    #[default]
    Host,
    /// A cluster node that forwards between tunnels and pods; policy is enforced at the ends.
    Transit,
    /// The same for its own pods only, by tunnels to transit nodes.
    Node,
}

impl From<Role> for EndpointKind {
    fn from(role: Role) -> Self {
        match role {
            Role::Host => Self::Workload,
            Role::Transit => Self::Transit,
            Role::Node => Self::Node,
        }
    }
}

impl Role {
    /// Whether it is a node of the cluster, which forwards and leaves policy to the ends.
    #[must_use]
    pub const fn is_cluster_node(self) -> bool {
        matches!(self, Self::Transit | Self::Node)
    }
}

/// What happens to what policy denies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// It is dropped.
    Enforce,
    /// It is reported and passes.
    Audit,
}

impl Policy {
    /// The policy of a node that nothing selects, transit nodes among them.
    #[must_use]
    pub const fn unrestricted() -> Self {
        let direction = DirectionPolicy { default: Default::Allow, rules: Vec::new() };
        Self { ingress: direction, egress: DirectionPolicy { default: Default::Allow, rules: Vec::new() } }
    }

    /// One direction of it.
    #[must_use]
    pub const fn direction(&self, direction: Direction) -> &DirectionPolicy {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }
}

impl Default {
    /// What events and traces call the default of a direction: `default-deny ingress (NetworkPolicy/shop/db)`.
    #[must_use]
    pub fn describe(&self, direction: Direction) -> String {
        let direction = match direction {
            Direction::Ingress => "ingress",
            Direction::Egress => "egress",
        };
        match self {
            Self::Allow => format!("default-allow {direction}"),
            Self::Deny { by } => format!("default-deny {direction} ({})", by.join(", ")),
        }
    }
}
