//! Records of the ring buffer.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Address, Port};

/// What an event tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum EventKind {
    /// A new flow was allowed.
    Allowed = 1,
    /// A packet was dropped; `reason` says why.
    Dropped = 2,
    /// Policy would have dropped the packet, had the mode been `enforce`.
    Audited = 3,
    /// An established flow was refused on re-evaluation.
    Cut = 4,
}

impl EventKind {
    /// The number in records.
    #[must_use]
    #[inline(always)]
    #[expect(clippy::as_conversions, reason = "`From` is not const; the enum is one byte")]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// Of a number in a record; `None` for one this build does not know.
    #[must_use]
    pub const fn from_u8(value: u8) -> Option<Self> {
        match value {
            1 => Some(Self::Allowed),
            2 => Some(Self::Dropped),
            3 => Some(Self::Audited),
            4 => Some(Self::Cut),
            _ => None,
        }
    }
}

/// One event of `EVENTS` (ring buffer).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Event {
    /// Nanoseconds of the monotonic clock.
    pub time_ns: u64,
    /// [`EventKind`].
    pub kind: u8,
    /// [`crate::Reason`].
    pub reason: u8,
    /// [`crate::Direction`].
    pub direction: u8,
    /// IP protocol number.
    pub protocol: u8,
    /// The rule that decided; 0 = none.
    pub rule: u32,
    /// The remote's identity; 0 = unknown.
    pub identity: u32,
    /// VNI of the packet, ingress only.
    pub vni: u32,
    /// Bytes from the network header on.
    pub length: u32,
    /// The epoch the decision was made in.
    pub epoch: u32,
    /// Network interface.
    pub ifindex: u32,
    /// Events of this kind and reason that sampling left out before this one on this CPU.
    pub suppressed: u32,
    /// Inner source.
    pub source: Address,
    /// Inner destination.
    pub destination: Address,
    /// Outer source, ingress only.
    pub outer: Address,
    /// Source port; ICMP type in the first byte.
    pub source_port: Port,
    /// Destination port; ICMP code in the first byte.
    pub destination_port: Port,
    /// Zero.
    pub reserved: [u8; 4],
}
