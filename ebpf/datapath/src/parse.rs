//! Parsing, from the network header to the ports. Whatever cannot be followed to its transport header is refused:
//! a rule about ports never looks at bytes that are none.

mod ipv4;
mod ipv6;
mod transport;

use crate::{Address, Direction, Packet, Port, Reason, abi::FlowKey, ethertype};

/// IP protocol numbers with a meaning of their own here.
pub mod protocol {
    /// Internet Control Message Protocol.
    pub const ICMP: u8 = 1;
    /// Transmission Control Protocol.
    pub const TCP: u8 = 6;
    /// User Datagram Protocol.
    pub const UDP: u8 = 17;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
    /// Stream Control Transmission Protocol.
    pub const SCTP: u8 = 132;
}

/// What a packet can be to a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Part {
    /// It belongs to one or opens one, which nothing in it tells: UDP, SCTP, protocols without ports.
    #[default]
    Datagram,
    /// It opens one: a TCP SYN, an ICMP query.
    Opening,
    /// It only belongs to one: any other TCP segment, an ICMP reply, a later fragment.
    Continuing,
    /// It also ends one: TCP FIN or RST.
    Closing,
    /// It is an ICMP error about a packet of one.
    Error,
}

/// Whether a packet is a fragment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Fragment {
    /// A whole packet; an IPv6 atomic fragment is one too.
    #[default]
    Whole,
    /// The first fragment, with the complete transport header.
    First,
    /// A later one, without ports.
    Later,
}

/// What the decision needs to know of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// The flow it belongs to. Ports of ICMP queries and replies are the identifier; the protocol of a later fragment
    /// is the one in the fragment's own header.
    pub key: FlowKey,
    /// Identification of a fragmented datagram; IPv4's two bytes stand first.
    pub fragment_id: [u8; 4],
    /// Where the transport header, or the fragment's piece of it, starts.
    pub transport: u32,
    /// Where the IP packet ends.
    pub end: u32,
    /// What it can be to a flow.
    pub part: Part,
    /// Whether it is a fragment.
    pub fragment: Fragment,
    /// ICMP type; else 0.
    pub icmp_type: u8,
    /// ICMP code; else 0.
    pub icmp_code: u8,
    /// The way it goes.
    pub direction: Direction,
}

impl Parsed {
    /// Nothing is known but the way a packet goes.
    #[must_use]
    #[inline(always)]
    pub const fn new(direction: Direction) -> Self {
        let key = FlowKey {
            local: Address::NONE,
            remote: Address::NONE,
            local_port: Port([0; 2]),
            remote_port: Port([0; 2]),
            protocol: 0,
            icmp_type: 0,
            space: [0; 2],
        };
        Self {
            key,
            fragment_id: [0; 4],
            transport: 0,
            end: 0,
            part: Part::Datagram,
            fragment: Fragment::Whole,
            icmp_type: 0,
            icmp_code: 0,
            direction,
        }
    }

    /// Source address.
    #[must_use]
    #[inline(always)]
    pub const fn source(&self) -> &Address {
        match self.direction {
            Direction::Ingress => &self.key.remote,
            Direction::Egress => &self.key.local,
        }
    }

    /// Destination address.
    #[must_use]
    #[inline(always)]
    pub const fn destination(&self) -> &Address {
        match self.direction {
            Direction::Ingress => &self.key.local,
            Direction::Egress => &self.key.remote,
        }
    }

    /// Source port, then destination port.
    #[must_use]
    #[inline(always)]
    pub const fn ports(&self) -> (Port, Port) {
        match self.direction {
            Direction::Ingress => (self.key.remote_port, self.key.local_port),
            Direction::Egress => (self.key.local_port, self.key.remote_port),
        }
    }

    #[inline(always)]
    const fn set_addresses(&mut self, direction: Direction, source: Address, destination: Address) {
        (self.key.local, self.key.remote) = match direction {
            Direction::Ingress => (destination, source),
            Direction::Egress => (source, destination),
        };
    }

    #[inline(always)]
    pub(crate) const fn set_ports(&mut self, direction: Direction, source: Port, destination: Port) {
        (self.key.local_port, self.key.remote_port) = match direction {
            Direction::Ingress => (destination, source),
            Direction::Egress => (source, destination),
        };
    }

    /// Whether the destination is a multicast or broadcast address.
    #[must_use]
    #[inline(always)]
    pub const fn is_multicast(&self) -> bool {
        let destination = self.destination();
        if destination.is_v4() {
            let [first, ..] = destination.v4_octets();
            first >= 224 && (first < 240 || matches!(destination.v4_octets(), [255, 255, 255, 255]))
        } else {
            destination.0[0] == 0xff
        }
    }
}

/// How much of a packet there must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Extent {
    /// All of it.
    Complete,
    /// As much as an ICMP error quotes: the ports.
    Quoted,
}

/// Parses a packet.
///
/// # Errors
/// The reason for which it is dropped.
#[inline(always)]
pub fn parse<P: Packet>(packet: &P, parsed: &mut Parsed) -> Result<(), Reason> {
    // Read once, where the compiler may still know it: every branch on it that goes is felt.
    let direction = parsed.direction;
    match packet.ethertype() {
        ethertype::IPV4 => {
            ipv4::parse(packet, direction, parsed)?;
            finish(packet, direction, parsed, Extent::Complete, protocol::ICMP)
        }
        ethertype::IPV6 => {
            ipv6::parse(packet, direction, parsed)?;
            finish(packet, direction, parsed, Extent::Complete, protocol::ICMPV6)
        }
        ethertype::ARP => Err(Reason::Arp),
        _ => Err(Reason::UnknownEtherType),
    }
}

/// Parses the packet that an ICMP error quotes.
///
/// # Errors
/// [`Reason::IcmpUnrelated`] where not even the ports of a whole packet or first fragment can be read.
#[inline(always)]
pub fn parse_quoted<P: Packet>(packet: &P, error: &Parsed, quoted: &mut Parsed) -> Result<(), Reason> {
    const ICMP_HEADER: u32 = 8;
    let base = error.transport + ICMP_HEADER;
    let result = if error.source().is_v4() {
        ipv4::parse_quoted(packet, base, error.end, quoted)
            .and_then(|()| finish_quoted(packet, quoted, protocol::ICMP))
    } else {
        ipv6::parse_quoted(packet, base, error.end, quoted)
            .and_then(|()| finish_quoted(packet, quoted, protocol::ICMPV6))
    };
    if result.is_err() || matches!(quoted.fragment, Fragment::Later) || matches!(quoted.part, Part::Error) {
        return Err(Reason::IcmpUnrelated);
    }
    Ok(())
}

/// Reads only the addresses and the protocol; false where there are none.
#[inline(always)]
pub(crate) fn parse_addresses<P: Packet>(packet: &P, parsed: &mut Parsed) -> bool {
    match packet.ethertype() {
        ethertype::IPV4 => ipv4::parse_addresses(packet, parsed),
        ethertype::IPV6 => ipv6::parse_addresses(packet, parsed),
        _ => false,
    }
}

/// Whether a protocol number is ICMP in one of the families.
#[must_use]
#[inline(always)]
pub const fn is_icmp(protocol: u8) -> bool {
    matches!(protocol, protocol::ICMP | protocol::ICMPV6)
}

/// Reads the transport header; `icmp` is the protocol number of ICMP in this family. In the other family that
/// number is a protocol like any other.
#[inline(always)]
fn finish<P: Packet>(
    packet: &P,
    direction: Direction,
    parsed: &mut Parsed,
    extent: Extent,
    icmp: u8,
) -> Result<(), Reason> {
    if matches!(parsed.fragment, Fragment::Later) {
        parsed.part = Part::Continuing;
        return Ok(());
    }
    transport::parse(packet, direction, parsed, extent, icmp)
}

/// As [`finish`], out of line.
#[inline(never)]
fn finish_quoted<P: Packet>(packet: &P, quoted: &mut Parsed, icmp: u8) -> Result<(), Reason> {
    finish(packet, quoted.direction, quoted, Extent::Quoted, icmp)
}

#[cfg(test)]
mod tests;
