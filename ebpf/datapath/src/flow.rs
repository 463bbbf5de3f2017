//! Flows: their keys, states and timeouts. A packet of a live flow needs no other lookup.

use crate::{
    Direction, FlowTable, Tables,
    abi::{Flow, FlowKey},
    packet::ticks,
    parse::{Parsed, Part, protocol},
};

/// Packets were seen both ways.
const CONFIRMED: u8 = 1;
/// A TCP FIN or RST was seen.
const CLOSING: u8 = 2;

const TCP_ESTABLISHED: u32 = ticks(6 * 3600);
const TCP_HALF_OPEN: u32 = ticks(60);
const TCP_CLOSING: u32 = ticks(30);
const UDP_CONFIRMED: u32 = ticks(180);
const UDP_UNCONFIRMED: u32 = ticks(30);
const ICMP: u32 = ticks(30);
const OTHER: u32 = ticks(600);

impl FlowKey {
    /// A hash that an entry repeats. Two keys may share it, which the map's own comparison makes harmless: it only
    /// has to tell that a slot was reused between the lookup and the read.
    #[must_use]
    #[inline(always)]
    pub fn tag(&self) -> u32 {
        let words: [u32; 10] = zerocopy::transmute!(*self);
        let sum = wide(words[0], words[1])
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .wrapping_add(wide(words[2], words[3]).wrapping_mul(0xbf58_476d_1ce4_e5b9))
            .wrapping_add(wide(words[4], words[5]).wrapping_mul(0x94d0_49bb_1331_11eb))
            .wrapping_add(wide(words[6], words[7]).wrapping_mul(0xd6e8_feb8_6659_fd93))
            .wrapping_add(wide(words[8], words[9]).wrapping_mul(0xff51_afd7_ed55_8ccd));
        high_word(sum)
    }
}

#[inline(always)]
fn wide(high: u32, low: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

#[inline(always)]
#[expect(clippy::as_conversions, reason = "the upper half fits")]
const fn high_word(sum: u64) -> u32 {
    (sum >> 32) as u32
}

impl Flow {
    /// Whether the flow has packets both ways.
    #[must_use]
    #[inline(always)]
    pub const fn is_confirmed(&self) -> bool {
        self.state & CONFIRMED != 0
    }

    /// Whether a TCP FIN or RST ended the flow.
    #[must_use]
    #[inline(always)]
    pub const fn is_closing(&self) -> bool {
        self.state & CLOSING != 0
    }

    /// Whether policy refused the flow after it was opened.
    #[must_use]
    #[inline(always)]
    pub const fn is_refused(&self) -> bool {
        self.refused != 0
    }

    /// Whether the flow was opened in this direction.
    #[must_use]
    #[inline(always)]
    pub const fn is_opened_by(&self, direction: Direction) -> bool {
        self.opener == direction.number()
    }

    /// The direction of the packet that opened the flow.
    #[must_use]
    #[inline(always)]
    pub const fn opened(&self) -> Direction {
        if self.is_opened_by(Direction::Egress) { Direction::Egress } else { Direction::Ingress }
    }

    /// [`ticks`] without a packet after which the flow no longer exists.
    #[must_use]
    #[inline(always)]
    pub const fn timeout(&self, protocol: u8) -> u32 {
        match protocol {
            protocol::TCP if self.is_closing() => TCP_CLOSING,
            protocol::TCP if self.is_confirmed() => TCP_ESTABLISHED,
            protocol::TCP => TCP_HALF_OPEN,
            protocol::UDP if self.is_confirmed() => UDP_CONFIRMED,
            protocol::UDP => UDP_UNCONFIRMED,
            protocol::ICMP | protocol::ICMPV6 => ICMP,
            _ => OTHER,
        }
    }

    /// Whether the flow still exists. A clock that another CPU read a moment later counts as now.
    #[must_use]
    #[inline(always)]
    pub const fn is_live(&self, protocol: u8, now: u32) -> bool {
        now.saturating_sub(self.last_seen) <= self.timeout(protocol)
    }

    /// Whether a packet starts the flow anew rather than belonging to it: an explicit opening from the other side,
    /// or a SYN on a connection that ended.
    #[must_use]
    #[inline(always)]
    pub fn is_reopened_by(&self, parsed: &Parsed, direction: Direction) -> bool {
        matches!(parsed.part, Part::Opening) && (self.is_closing() || !self.is_opened_by(direction))
    }

    /// The state after a packet. An RST in answer to a SYN ends the flow without confirming it.
    #[inline(always)]
    pub(crate) fn next_state(&self, part: Part, direction: Direction) -> u8 {
        let closing = if matches!(part, Part::Closing) { CLOSING } else { 0 };
        let confirmed = if self.is_opened_by(direction) || closing != 0 { 0 } else { CONFIRMED };
        self.state | closing | confirmed
    }

    /// Whether the stored outer facts are those of this packet, which has some.
    #[must_use]
    #[inline(always)]
    pub fn came_from(&self, outer: &crate::Outer) -> bool {
        self.vni == outer.vni && self.outer == outer.source
    }
}

/// Finds the slot of the live flow of a key and its tag, the confirmed one first.
#[inline(always)]
pub(crate) fn find<T: Tables>(tables: &T, key: &FlowKey, tag: u32, now: u32) -> Option<T::Slot> {
    if let Some(slot) = tables.flow(FlowTable::Confirmed, key)
        && is_live(&tables.load(slot), key, tag, now)
    {
        return Some(slot);
    }
    if let Some(slot) = tables.flow(FlowTable::HalfOpen, key)
        && is_live(&tables.load(slot), key, tag, now)
    {
        return Some(slot);
    }
    None
}

#[inline(always)]
const fn is_live(flow: &Flow, key: &FlowKey, tag: u32, now: u32) -> bool {
    flow.tag == tag && flow.is_live(key.protocol, now)
}
