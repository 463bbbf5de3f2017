//! The banked tables that policy reads. The bank stands in every key, so that one store of the control word
//! switches all of them.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::Place;
use crate::{Action, Address, Direction, Port};

/// Key of `ENDPOINTS` (hash): an address of the mesh at full length.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct EndpointKey {
    /// The number of the [`crate::abi::Place`].
    pub bank: u8,
    /// Zero.
    pub reserved: [u8; 3],
    /// The endpoint's address.
    pub address: Address,
}

/// Bits of [`EndpointEntry::flags`].
pub mod endpoint_flag {
    /// This node's own mesh address.
    pub const OWN: u32 = 1;
    /// On a transit node: the endpoint is behind this node, delivered by the node's own routes.
    pub const BEHIND: u32 = 1 << 1;
    /// A transit node, a possible sender of ICMP errors about others' packets.
    pub const ROUTER: u32 = 1 << 2;
    /// On a transit node: the endpoint is behind another node's tunnel, but this node's own routes lead to it by the
    /// cluster's network, past the mesh.
    pub const PAST_MESH: u32 = 1 << 3;
}

/// Value of `ENDPOINTS`: who has an address, and through which tunnel endpoint it is reached.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct EndpointEntry {
    /// The identity policy uses.
    pub identity: u32,
    /// The identity before a relabel, accepted as VNI until its lease ends; 0 = none.
    pub previous: u32,
    /// What whoever encapsulates for this endpoint is told to write as VNI; during a relabel not its identity yet.
    pub mark: u32,
    /// The set of tunnel endpoints that may send for this address (`TUNNELS`); 0 = only `tunnel`.
    pub tunnel_set: u32,
    /// The underlay address packets for this endpoint are encapsulated to; none for own and behind endpoints.
    pub tunnel: Address,
    /// [`endpoint_flag`].
    pub flags: u32,
    /// Zero.
    pub reserved: u32,
}

/// Key of `TUNNELS` (hash): membership of an underlay address in a set of tunnel endpoints.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct TunnelKey {
    /// The number of the [`crate::abi::Place`].
    pub bank: u8,
    /// Zero.
    pub reserved: [u8; 3],
    /// The number of the set.
    pub set: u32,
    /// A member's underlay address.
    pub address: Address,
}

/// Value of `TUNNELS`; presence is what counts.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(C)]
pub struct TunnelEntry {
    /// Zero.
    pub reserved: u32,
}

/// Key of `CIDRS` (longest-prefix trie): the blocks that policy names.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct CidrKey {
    /// Significant bits after this field: [`CidrKey::BASE_BITS`] + the prefix length of the v4-mapped block.
    pub prefix_len: u32,
    /// The number of the [`crate::abi::Place`].
    pub bank: u8,
    /// Zero.
    pub reserved: [u8; 3],
    /// The block's network address.
    pub address: Address,
}

impl CidrKey {
    /// Bits that precede the address.
    pub const BASE_BITS: u32 = 32;
}

/// Value of `CIDRS`: the peer classes of the addresses in the block.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct CidrEntry {
    /// The class of an address that an endpoint has; 0 = none.
    pub class: u32,
    /// The class of an address that none has; 0 = none.
    pub outside: u32,
}

/// Key of `CLASSES` (hash): an identity.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct ClassKey {
    /// The number of the [`crate::abi::Place`].
    pub bank: u8,
    /// Zero.
    pub reserved: [u8; 3],
    /// The peer's identity.
    pub identity: u32,
}

/// Value of `CLASSES`: the identities that policy treats alike share a class.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct ClassEntry {
    /// The class; identities that no rule names have no entry and class 0.
    pub class: u32,
}

/// Key of `POLICY` (longest-prefix trie): ports as prefixes, everything before them exact.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct PolicyKey {
    /// Significant bits after this field: [`PolicyKey::BASE_BITS`] + the length of the port prefix (0–16).
    pub prefix_len: u32,
    /// The number of the [`crate::abi::Place`].
    pub bank: u8,
    /// [`crate::Direction`].
    pub direction: u8,
    /// IP protocol number; [`PolicyKey::ANY_PROTOCOL`] holds rules without a protocol.
    pub protocol: u8,
    /// Zero.
    pub reserved: u8,
    /// The peer class; 0 holds the rules that apply to every peer.
    pub class: u32,
    /// The destination port of the flow's opener.
    pub port: Port,
    /// Zero.
    pub padding: [u8; 2],
}

impl PolicyKey {
    /// Bits that precede the port.
    pub const BASE_BITS: u32 = 64;
    /// Stands for every protocol; 255 is reserved by IANA and never on a wire.
    pub const ANY_PROTOCOL: u8 = 255;
}

/// How much an entry counts and what it says: bits 31–2 the precedence, bits 1–0 the number of the action, so that of
/// equal precedences deny comes before pass and that before allow. 0 = no rule.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(transparent)]
pub struct Rank(pub u32);

impl Rank {
    /// Of no rule.
    pub const NONE: Self = Self(0);
    /// The highest precedence.
    pub const HIGHEST_PRECEDENCE: u32 = (1 << 30) - 1;
    const ACTION: u32 = 3;

    /// Of a rule. A precedence that is too high counts as the highest.
    #[must_use]
    #[inline(always)]
    #[expect(clippy::as_conversions, reason = "`From` is not const; the action is one byte")]
    pub const fn new(precedence: u32, action: Action) -> Self {
        let precedence =
            if precedence > Self::HIGHEST_PRECEDENCE { Self::HIGHEST_PRECEDENCE } else { precedence };
        Self(precedence << 2 | action.number() as u32)
    }

    /// Whether the rule says this.
    #[must_use]
    #[inline(always)]
    #[expect(clippy::as_conversions, reason = "`From` is not const; the action is one byte")]
    pub const fn says(self, action: Action) -> bool {
        self.0 & Self::ACTION == action.number() as u32
    }
}

/// Value of `POLICY`. Of all entries that match a flow the highest rank decides.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct PolicyEntry {
    /// The highest decides.
    pub rank: Rank,
    /// Names the rule in events; resolved by the agent.
    pub rule: u32,
    /// Of the rule that decides below the highest tier, when that passes the decision on.
    pub below_rank: Rank,
    /// Its name.
    pub below_rule: u32,
}

impl PolicyEntry {
    /// Where one rule decides, and one below the highest tier.
    #[must_use]
    pub const fn of(rank: Rank, rule: u32) -> Self {
        Self { rank, rule, below_rank: rank, below_rule: rule }
    }
}

/// Key of `PREFIXES` (longest-prefix trie): the mesh prefixes the guard watches for.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct PrefixKey {
    /// Significant bits after this field: [`CidrKey::BASE_BITS`] + the prefix length of the v4-mapped prefix.
    pub prefix_len: u32,
    /// The number of the [`crate::abi::Place`].
    pub bank: u8,
    /// Zero.
    pub reserved: [u8; 3],
    /// The prefix.
    pub address: Address,
}

/// Value of `PREFIXES`; presence is what counts.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(C)]
pub struct PrefixEntry {
    /// Zero.
    pub reserved: u32,
}

/// Bits of [`Settings::flags`].
pub mod settings_flag {
    /// Report what policy would drop, drop nothing for policy. Source checks stay in force.
    pub const AUDIT: u32 = 1;
    /// A transit node: forwards for endpoints behind it, leaves policy to the ends.
    pub const TRANSIT: u32 = 1 << 1;
    /// `CIDRS` has entries for this policy; unset saves the lookup.
    pub const CIDR_RULES: u32 = 1 << 2;
    /// Send an event for every allowed new flow too, not for denied ones only.
    pub const EVENTS_ALLOWED: u32 = 1 << 3;
    /// Refuse packets to a mesh prefix on every other device.
    pub const GUARD_EGRESS: u32 = 1 << 4;
    /// Every entry of `POLICY` names its protocol; set saves the lookup of rules about every protocol.
    pub const PROTOCOLS_NAMED: u32 = 1 << 5;
    /// Some entry of `POLICY` passes the decision on to the rules below.
    pub const PASSES: u32 = 1 << 6;
    /// Of [`Settings::nic_flags`](super::Settings::nic_flags) only: policy governs the NICs.
    pub const GOVERNS: u32 = 1 << 7;
}

/// Value of `SETTINGS` (array, the index is the bank): what may change while programs are pinned.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(C)]
pub struct Settings {
    /// This host's identity.
    pub identity: u32,
    /// The identity written as VNI for packets of this host; lags `identity` during a relabel.
    pub mark: u32,
    /// [`settings_flag`].
    pub flags: u32,
    /// [`crate::Action`] for ingress that no entry matches; any other value denies.
    pub ingress_default: u8,
    /// [`crate::Action`] for egress that no entry matches; any other value denies.
    pub egress_default: u8,
    /// The same on the NICs.
    pub nic_ingress_default: u8,
    /// The same on the NICs.
    pub nic_egress_default: u8,
    /// The rule id reported for the ingress default.
    pub ingress_rule: u32,
    /// The rule id reported for the egress default.
    pub egress_rule: u32,
    /// This host's IPv4 mesh address, or none.
    pub address_v4: Address,
    /// This host's IPv6 mesh address, or none.
    pub address_v6: Address,
    /// The largest packet that the mesh device takes, in bytes from the network header; 0 = nothing is relayed.
    pub mtu: u32,
    /// [`settings_flag`] of the NICs' policy.
    pub nic_flags: u32,
    /// The rule id reported for the ingress default on the NICs.
    pub nic_ingress_rule: u32,
    /// The rule id reported for the egress default on the NICs.
    pub nic_egress_rule: u32,
    /// [`crate::ticks`] of the monotonic clock after which the NICs' policy only reports, unless it is confirmed before;
    /// 0 = it is.
    pub nic_deadline: u32,
    /// The port of tunnels, which policy on the NICs never closes toward nodes; 0 = it may.
    pub nic_tunnel_port: Port,
    /// Zero.
    pub spare: [u8; 2],
}

impl Settings {
    /// The flags of a policy.
    #[must_use]
    #[inline(always)]
    pub const fn flags_of(&self, place: Place) -> u32 {
        if place.is_nic() { self.nic_flags } else { self.flags }
    }

    /// What a policy says where no entry matches: the number of an action, and the rule.
    #[must_use]
    #[inline(always)]
    pub const fn default_of(&self, place: Place, direction: Direction) -> (u8, u32) {
        match (place.is_nic(), direction) {
            (false, Direction::Ingress) => (self.ingress_default, self.ingress_rule),
            (false, Direction::Egress) => (self.egress_default, self.egress_rule),
            (true, Direction::Ingress) => (self.nic_ingress_default, self.nic_ingress_rule),
            (true, Direction::Egress) => (self.nic_egress_default, self.nic_egress_rule),
        }
    }
}
