//! The seam to a packet: bounded reads, nothing else.

use zerocopy::FromBytes;

use crate::{
    Address,
    abi::{Control, Hook},
};

/// A tick is 2^30 ns, 1.07 s: a shift instead of a division for every packet.
const TICK_BITS: u32 = 30;

/// The ticks of so many seconds, rounded up.
#[must_use]
#[expect(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    reason = "`From` is not const; fewer than seconds"
)]
pub const fn ticks(seconds: u32) -> u32 {
    (seconds as u64 * 1_000_000_000).div_ceil(1 << TICK_BITS) as u32
}

/// One packet as its hook sees it. Offsets count from the network header.
pub trait Packet {
    /// The `EtherType` in the machine's order, below an outer tag that carries a priority only; 0 where the tag of a
    /// VLAN hides the network header.
    fn ethertype(&self) -> u16;

    /// Bytes from the network header to the end.
    fn length(&self) -> u32;

    /// The interface's index.
    fn ifindex(&self) -> u32;

    /// The index of the interface it came in by; 0 = it was made here.
    fn arrived_by(&self) -> u32 {
        0
    }

    /// Bytes that each packet of a super packet carries behind its transport header; 0 = it is no super packet.
    fn segment_size(&self) -> u32 {
        0
    }

    /// Copies what stands at an offset; `None` when the packet ends before its end.
    fn load<T: FromBytes>(&self, offset: u32) -> Option<T>;
}

/// What the tunnel says about a packet. An argument of the decision, since tests have no tunnel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outer {
    /// The outer source; none = the packet carries no tunnel key.
    pub source: Address,
    /// The VNI: the identity the sender claims.
    pub vni: u32,
}

impl Outer {
    /// No tunnel key: egress, and ingress that did not come through a tunnel.
    pub const NONE: Self = Self { source: Address::NONE, vni: 0 };
}

/// Where and when a packet is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The hook.
    pub hook: Hook,
    /// The control word, read once for this packet.
    pub control: Control,
    /// Nanoseconds of the monotonic clock.
    pub now_ns: u64,
}

impl Moment {
    /// Ticks of the monotonic clock; they last for 146 years of uptime.
    #[must_use]
    #[inline(always)]
    #[expect(clippy::as_conversions, clippy::cast_possible_truncation, reason = "ticks of an uptime fit")]
    pub const fn tick(&self) -> u32 {
        (self.now_ns >> TICK_BITS) as u32
    }
}
