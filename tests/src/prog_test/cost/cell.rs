//! The kinds of packets whose cost is measured.

use std::fmt;

use datapath::Direction;

use super::super::frames::{ethernet, ipv4, ipv6, tcp, udp};
use super::super::kernel::{DROPPED, PASSED, Rotation};
use super::super::mesh::address;
use super::tables::{FLOWS, Size};

pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
const FRAGMENT: u8 = 44;
/// The port that policy allows, and one that it does not.
pub(super) const ALLOWED: u16 = 80;
const DENIED: u16 = 81;
const OTHER: u16 = 4000;

const SYN: u8 = 2;
const SYN_ACK: u8 = 0x12;
const ACK: u8 = 0x10;

/// What a packet is to the decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Of a flow with packets both ways, opened by the peer.
    Established,
    /// Opens a flow.
    New,
    /// Opens one that policy does not allow.
    Denied,
    /// Comes from a tunnel endpoint that does not speak for its source.
    Spoofed,
    /// A later fragment of an established flow.
    Fragment,
    /// The first packet of a connection.
    Syn,
    /// Its answer.
    SynAck,
    /// A first fragment of a datagram.
    FirstFragment,
    /// A datagram of the flow of fragments.
    Datagram,
}

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

/// One kind of packet in one family and direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cell {
    pub(super) kind: Kind,
    pub(super) family: Family,
    pub(super) direction: Direction,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Established => "established",
            Kind::New => "new allowed",
            Kind::Denied => "denied",
            Kind::Spoofed => "spoofed",
            Kind::Fragment => "later fragment",
            Kind::Syn => "SYN",
            Kind::SynAck => "SYN, ACK",
            Kind::FirstFragment => "first fragment",
            Kind::Datagram => "datagram",
        };
        let family = if self.family.is_v4() { "IPv4" } else { "IPv6" };
        write!(f, "{kind}, {family} {}", if self.is_egress() { "out" } else { "in" })
    }
}

/// All that is measured.
pub(super) fn cells() -> impl Iterator<Item = Cell> {
    let kinds = [Kind::Established, Kind::New, Kind::Denied, Kind::Spoofed, Kind::Fragment];
    kinds.into_iter().flat_map(|kind| {
        [Family::V4, Family::V6].into_iter().flat_map(move |family| {
            let directions = [Direction::Ingress, Direction::Egress].into_iter();
            // What this host sends comes from no tunnel.
            let directions =
                directions.filter(move |way| kind != Kind::Spoofed || *way == Direction::Ingress);
            directions.map(move |direction| Cell { kind, family, direction })
        })
    })
}

impl Family {
    pub(super) const fn is_v4(self) -> bool {
        matches!(self, Self::V4)
    }
}

impl Cell {
    fn is_egress(self) -> bool {
        self.direction == Direction::Egress
    }

    pub(super) fn program(self) -> &'static str {
        if self.is_egress() { "test_rotating_egress" } else { "test_rotating_ingress" }
    }

    /// What the program has to return.
    pub(super) const fn action(self) -> u32 {
        if matches!(self.kind, Kind::Denied | Kind::Spoofed) { DROPPED } else { PASSED }
    }

    /// What opens the flows that the packets belong to, in order.
    pub(super) fn openers(self) -> Vec<Self> {
        let of = |kind, direction| Self { kind, direction, ..self };
        if self.kind == Kind::Established {
            vec![of(Kind::Syn, Direction::Ingress), of(Kind::SynAck, Direction::Egress)]
        } else if self.kind == Kind::Fragment {
            vec![
                of(Kind::Datagram, Direction::Ingress),
                of(Kind::Datagram, Direction::Egress),
                of(Kind::FirstFragment, self.direction),
            ]
        } else {
            Vec::new()
        }
    }

    /// The frame that is changed for each packet.
    pub(super) fn frame(self) -> Vec<u8> {
        // Flows are opened by the peer, but where what this host opens is measured.
        let is_opened_here = self.is_egress() && matches!(self.kind, Kind::New | Kind::Denied);
        let port = if self.kind == Kind::Denied { DENIED } else { ALLOWED };
        let (from, to) = if self.is_egress() == is_opened_here { (OTHER, port) } else { (port, OTHER) };
        let (protocol, payload) = match self.kind {
            Kind::Established => (TCP, tcp(from, to, ACK)),
            Kind::Syn => (TCP, tcp(from, to, SYN)),
            Kind::SynAck => (TCP, tcp(from, to, SYN_ACK)),
            Kind::New
            | Kind::Denied
            | Kind::Spoofed
            | Kind::Fragment
            | Kind::FirstFragment
            | Kind::Datagram => (UDP, udp(from, to)),
        };
        let [own, peer] = match self.family {
            Family::V4 => ["10.0.0.1", "10.64.0.0"],
            Family::V6 => ["fd00::1", "fd00::a40:0"],
        }
        .map(address);
        let (source, destination) = if self.is_egress() { (own, peer) } else { (peer, own) };
        // In units of eight bytes; more come.
        let fragment = if self.kind == Kind::FirstFragment {
            Some((0_u8, true))
        } else {
            (self.kind == Kind::Fragment).then_some((2, false))
        };
        ethernet(&match (self.family, fragment) {
            (Family::V4, fragment) => {
                let (offset, more) = fragment.unwrap_or_default();
                ipv4(source, destination, protocol, [0, 0, u8::from(more) << 5, offset], &payload)
            }
            (Family::V6, None) => ipv6(source, destination, protocol, &payload),
            (Family::V6, Some((offset, more))) => {
                let header = [protocol, 0, 0, offset << 3 | u8::from(more), 0, 0, 0, 0];
                ipv6(source, destination, FRAGMENT, &[&header[..], &payload].concat())
            }
        })
    }

    /// What changes: the port of the opener, or the identification of the fragmented datagram, and the peer.
    pub(super) fn rotation(self, size: Size) -> Rotation {
        let (network, peer) = match (self.family, self.is_egress()) {
            (Family::V4, false) => (34, 26),
            (Family::V4, true) => (34, 30),
            (Family::V6, false) => (54, 34),
            (Family::V6, true) => (54, 50),
        };
        let port = match (self.kind, self.family) {
            (Kind::Established | Kind::SynAck, _) if self.is_egress() => network + 2,
            (Kind::FirstFragment | Kind::Fragment | Kind::Datagram, Family::V4) => 18,
            (Kind::FirstFragment | Kind::Fragment, Family::V6) => 60,
            // Its flow label.
            (Kind::Datagram, Family::V6) => 16,
            _ => network,
        };
        let is_fragmented = matches!(self.kind, Kind::FirstFragment | Kind::Fragment | Kind::Datagram);
        let ports = if is_fragmented {
            FLOWS / 4 - 1
        } else if self.kind == Kind::New {
            u32::from(u16::MAX)
        } else {
            FLOWS - 1
        };
        let source = if self.kind == Kind::Spoofed { [192, 0, 2, 9] } else { [192, 0, 2, 2] };
        Rotation::of(port, ports, peer, size, source)
    }
}
