//! The common form of every policy language: objects with a subject and rules whose selectors are not resolved yet.

use std::sync::Arc;

use crate::selector::Selector;
use crate::state::{Block, PortRange, RuleAction};

/// Precedences of rules. Of all rules that match, the highest decides; deny wins a tie.
pub mod precedence {
    /// Rules of `NetworkPolicy`. There is room above for cluster-wide tiers and below for a baseline.
    pub const NETWORK_POLICY: u32 = 0x8000_0000;
}

/// A policy object in the common form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyObject {
    /// `Kind/namespace/name`.
    pub origin: Arc<str>,
    /// The namespace it lives in; its subject selects in no other.
    pub namespace: String,
    /// Whom it governs. Already holds the namespace.
    pub subject: Selector,
    /// Rules toward the subject; `None` = the object does not concern this direction, empty = it allows nothing.
    pub ingress: Option<Vec<RuleSpec>>,
    /// Rules from the subject; as `ingress`.
    pub egress: Option<Vec<RuleSpec>>,
    /// What is valid but will surprise, `path: what`; for `status`.
    pub warnings: Vec<String>,
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
    /// Ports by number.
    Range(PortRange),
    /// A port by the name that the receiving end gives it.
    Named {
        /// The name.
        name: String,
        /// IP protocol number; a port of that name with another protocol does not match.
        protocol: u8,
    },
}
