//! Flow and fragment state. It outlives publications and versions: fields are only appended in reserved bytes.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Address, Port};

/// Key of `FLOWS` and `HALF_OPEN` (LRU hashes): a flow as seen from this host.
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
pub struct FlowKey {
    /// The mesh address on this host.
    pub local: Address,
    /// The other end.
    pub remote: Address,
    /// The local port; for ICMP queries the identifier.
    pub local_port: Port,
    /// The remote port; for ICMP queries the identifier.
    pub remote_port: Port,
    /// IP protocol number.
    pub protocol: u8,
    /// Of ICMP and `ICMPv6` the type of the query, for replies too, or of a message that is none; else 0.
    pub icmp_type: u8,
    /// Keeps the flows of the mesh and of the NICs apart; zero in the mesh.
    pub space: [u8; 2],
}

/// Value of `FLOWS` (confirmed: packets seen both ways) and `HALF_OPEN`.
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
pub struct Flow {
    /// Repeats a hash of the key: an LRU slot may be reused under a reader.
    pub tag: u32,
    /// The epoch in which policy was last evaluated.
    pub epoch: u32,
    /// The remote's identity at that time.
    pub identity: u32,
    /// The rule that decided.
    pub rule: u32,
    /// [`crate::ticks`] of the monotonic clock when the last packet came.
    pub last_seen: u32,
    /// VNI the last checked ingress packet carried.
    pub vni: u32,
    /// Outer source the last checked ingress packet came from; none = no ingress packet was checked yet.
    pub outer: Address,
    /// Where egress packets go while `epoch` is current.
    pub tunnel: Address,
    /// [`crate::Direction`] of the packet that opened the flow.
    pub opener: u8,
    /// Transport state; private to `flow`.
    pub state: u8,
    /// 1 when re-evaluation refused the flow: the entry stays so that a reply is never taken for a new flow.
    pub refused: u8,
    /// Zero.
    pub padding: u8,
    /// VNI to write on egress while `epoch` is current.
    pub mark: u32,
    /// Zero.
    pub reserved: [u8; 16],
}

/// Key of `FRAGMENTS` (LRU hash): a datagram in fragments (RFC 791, RFC 8200 §4.5).
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
pub struct FragmentKey {
    /// Source of the datagram.
    pub source: Address,
    /// Destination of the datagram.
    pub destination: Address,
    /// Identification, as on the wire; IPv4's two bytes stand first.
    pub id: [u8; 4],
    /// IP protocol number.
    pub protocol: u8,
    /// [`crate::Direction`].
    pub direction: u8,
    /// As in the flow's key.
    pub space: [u8; 2],
}

/// Value of `FRAGMENTS`: the ports that only the first fragment carries.
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
pub struct FragmentEntry {
    /// Source port of the first fragment.
    pub source_port: Port,
    /// Destination port of the first fragment.
    pub destination_port: Port,
    /// [`crate::ticks`] of the monotonic clock when the first fragment passed.
    pub seen: u32,
    /// As in the flow's key.
    pub icmp_type: u8,
    /// Zero.
    pub reserved: [u8; 3],
}
