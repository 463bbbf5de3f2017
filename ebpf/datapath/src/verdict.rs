//! Directions, actions and the reasons of drops.

use crate::{
    Address,
    abi::{EventKind, Flow},
};

/// Seen from this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Direction {
    /// Toward this host.
    Ingress = 0,
    /// From this host.
    Egress = 1,
}

impl Direction {
    /// The number in keys and records.
    #[must_use]
    #[inline(always)]
    #[expect(clippy::as_conversions, reason = "`From` is not const; the enum is one byte")]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// As it is written: `ingress` or `egress`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }

    /// The other direction.
    #[must_use]
    pub const fn opposite(self) -> Self {
        match self {
            Self::Ingress => Self::Egress,
            Self::Egress => Self::Ingress,
        }
    }

    /// Of a number in a record; `None` for a number that is no direction.
    #[must_use]
    pub const fn from_u8(value: u8) -> Option<Self> {
        match value {
            0 => Some(Self::Ingress),
            1 => Some(Self::Egress),
            _ => None,
        }
    }
}

/// What a policy entry or a default says, the stricter the greater. Zero is no action: a forgotten field denies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Action {
    /// Let the flow pass.
    Allow = 1,
    /// Let the rules below the highest tier decide.
    Pass = 2,
    /// Drop it.
    Deny = 3,
}

impl Action {
    /// The number in entries.
    #[must_use]
    #[inline(always)]
    #[expect(clippy::as_conversions, reason = "`From` is not const; the enum is one byte")]
    pub const fn number(self) -> u8 {
        self as u8
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $number:literal $word:literal;)*) => {
        /// Why a packet passed or was dropped; the index of its counter. Numbers are never reused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Reason { $($(#[$doc])* $name = $number,)* }

        impl Reason {
            /// All reasons in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The number in records.
            #[must_use]
            #[inline(always)]
            #[expect(clippy::as_conversions, reason = "`From` is not const; the enum is one byte")]
            pub const fn number(self) -> u8 {
                self as u8
            }

            /// Whether a packet with this reason goes on; the others are dropped.
            #[must_use]
            #[inline(always)]
            pub const fn passes(self) -> bool {
                self.number() < Self::FIRST_DROP
            }

            const FIRST_DROP: u8 = 16;

            /// The name in metrics and events.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }

            /// Of a number in a record; `None` for one this build does not know.
            #[must_use]
            pub const fn from_u8(value: u8) -> Option<Self> {
                match value { $($number => Some(Self::$name),)* _ => None }
            }
        }
    };
}

reasons! {
    /// A packet of an established flow passed.
    Established = 0 "established";
    /// A new flow was allowed by policy.
    NewAllowed = 1 "new_allowed";
    /// Related ICMP error passed.
    Related = 2 "related";
    /// Passed on a transit node.
    Forwarded = 3 "forwarded";
    /// Policy would have dropped it; the mode is audit.
    Audited = 4 "audited";
    /// On its way between tunnels through a transit node.
    Relayed = 5 "relayed";
    /// A packet between tunnels that needs more than a hop less: the transit node's kernel answers it, or cuts it.
    GivenToKernel = 6 "given_to_kernel";
    /// What policy never closes: discovery of routers and neighbours, news of a smaller path.
    KeptOpen = 7 "kept_open";
    /// An entry or the default of the policy denies.
    PolicyDenied = 16 "policy_denied";
    /// An established flow that policy no longer allows.
    FlowRefused = 17 "flow_refused";
    /// No endpoint has the inner source address.
    UnknownSource = 18 "unknown_source";
    /// The tunnel endpoint or the VNI contradicts the inner source.
    Spoofed = 19 "spoofed";
    /// A local packet whose source is not this host's mesh address.
    ForeignSource = 20 "foreign_source";
    /// No endpoint has the destination address.
    UnknownDestination = 21 "unknown_destination";
    /// A tunnel packet for an address that is not here.
    NotForUs = 22 "not_for_us";
    /// Headers are truncated or contradict each other.
    Malformed = 23 "malformed";
    /// Neither IPv4, IPv6 nor ARP, or a VLAN tag hides it.
    UnknownEtherType = 24 "unknown_ethertype";
    /// An IPv6 extension header that cannot be followed.
    UnknownExtension = 25 "unknown_extension";
    /// A later fragment whose first one was not seen.
    FragmentOrphan = 26 "fragment_orphan";
    /// An ICMP error about no live flow.
    IcmpUnrelated = 27 "icmp_unrelated";
    /// ARP on the mesh device.
    Arp = 28 "arp";
    /// Neighbour or router discovery, or a redirect, on the mesh device.
    NeighbourDiscovery = 29 "neighbour_discovery";
    /// The packet carries no tunnel key.
    NoTunnelKey = 30 "no_tunnel_key";
    /// The tunnel key could not be set.
    TunnelKeyRefused = 31 "tunnel_key_refused";
    /// Nothing was published yet.
    NotPublished = 32 "not_published";
    /// A stub found no program to call.
    MissedTailCall = 33 "missed_tail_call";
    /// The flow table refused an entry.
    FlowTableFull = 34 "flow_table_full";
    /// A bare packet to this host's mesh address arrived, or one to a mesh prefix would leave, on another device.
    GuardDestination = 35 "guard_destination";
    /// A bare packet from a mesh prefix arrived on another device.
    GuardSource = 36 "guard_source";
    /// Multicast or broadcast on the mesh device.
    Multicast = 37 "multicast";
    /// A protocol state that no flow can be in, such as a TCP segment without a flow that is no SYN.
    NoFlow = 38 "no_flow";
    /// The hop limit ended here.
    HopLimit = 39 "hop_limit";
    /// An IPv4 option tells routers where to send the packet next, or there are too many options to tell.
    SourceRoute = 40 "source_route";
    /// Too large to be relayed, and the kernel's routes would take it to its destination past the mesh.
    RelayTooLarge = 41 "relay_too_large";
}

/// The outcome of one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Why; tells also whether the packet goes on ([`Reason::passes`]).
    pub reason: Reason,
    /// What is told about it: the number of an [`crate::abi::EventKind`], 0 = nothing.
    pub event: u8,
    /// The rule that decided; 0 = none.
    pub rule: u32,
    /// The remote's identity; 0 = unknown.
    pub identity: u32,
    /// Egress: the VNI to write.
    pub mark: u32,
    /// Egress, and ingress of what is relayed: the underlay address to encapsulate to.
    pub tunnel: Address,
}

impl Verdict {
    /// Drops, for a reason that no rule gave.
    #[must_use]
    #[inline(always)]
    pub const fn drop(reason: Reason) -> Self {
        Self {
            reason,
            event: EventKind::Dropped.number(),
            rule: 0,
            identity: 0,
            mark: 0,
            tunnel: Address::NONE,
        }
    }

    /// Takes over what a flow says about its packets.
    #[inline(always)]
    pub(crate) const fn describe(&mut self, flow: &Flow, direction: Direction) {
        self.rule = flow.rule;
        self.identity = flow.identity;
        if matches!(direction, Direction::Egress) {
            self.mark = flow.mark;
            self.tunnel = flow.tunnel;
        }
    }
}

#[cfg(test)]
mod tests;
