//! Transport headers: as much of them as flows and policy need.

use super::{Extent, Parsed, Part, protocol};
use crate::{Direction, Packet, Port, Reason};

const TCP_FIN: u8 = 0x01;
const TCP_SYN: u8 = 0x02;
const TCP_RST: u8 = 0x04;
const TCP_ACK: u8 = 0x10;

/// Bytes of a protocol's header that a first fragment carries whole, and that no later fragment may cover.
#[inline(always)]
pub(super) const fn header_length(protocol: u8) -> u32 {
    match protocol {
        protocol::TCP => 20,
        protocol::SCTP => 12,
        protocol::UDP | protocol::ICMP | protocol::ICMPV6 => 8,
        _ => 0,
    }
}

/// Reads the ports and what the packet can be to a flow.
#[inline(always)]
pub(super) fn parse<P: Packet>(
    packet: &P,
    direction: Direction,
    parsed: &mut Parsed,
    extent: Extent,
    icmp: u8,
) -> Result<(), Reason> {
    match parsed.key.protocol {
        protocol::TCP => tcp(packet, direction, parsed, extent),
        protocol::UDP | protocol::SCTP => ports(packet, direction, parsed, extent),
        number if number == icmp => icmp_message(packet, direction, parsed, icmp),
        _ => Ok(()),
    }
}

#[inline(always)]
fn tcp<P: Packet>(
    packet: &P,
    direction: Direction,
    parsed: &mut Parsed,
    extent: Extent,
) -> Result<(), Reason> {
    if matches!(extent, Extent::Quoted) {
        return ports(packet, direction, parsed, extent);
    }
    let room = parsed.end - parsed.transport;
    if room < header_length(protocol::TCP) {
        return Err(Reason::Malformed);
    }
    let Some(h) = packet.load::<[u8; 16]>(parsed.transport) else { return Err(Reason::Malformed) };
    let header = u32::from(h[12] >> 4) * 4;
    if header < header_length(protocol::TCP) || header > room {
        return Err(Reason::Malformed);
    }
    parsed.set_ports(direction, Port([h[0], h[1]]), Port([h[2], h[3]]));
    parsed.part = match h[13] & (TCP_FIN | TCP_SYN | TCP_RST | TCP_ACK) {
        TCP_SYN => Part::Opening,
        flags if flags & (TCP_FIN | TCP_RST) != 0 => Part::Closing,
        _ => Part::Continuing,
    };
    Ok(())
}

#[inline(always)]
fn ports<P: Packet>(
    packet: &P,
    direction: Direction,
    parsed: &mut Parsed,
    extent: Extent,
) -> Result<(), Reason> {
    const PORTS: u32 = 4;
    let needed = if matches!(extent, Extent::Quoted) { PORTS } else { header_length(parsed.key.protocol) };
    if parsed.transport + needed > parsed.end {
        return Err(Reason::Malformed);
    }
    let Some(h) = packet.load::<[u8; 4]>(parsed.transport) else { return Err(Reason::Malformed) };
    parsed.set_ports(direction, Port([h[0], h[1]]), Port([h[2], h[3]]));
    Ok(())
}

#[inline(always)]
fn icmp_message<P: Packet>(
    packet: &P,
    direction: Direction,
    parsed: &mut Parsed,
    icmp: u8,
) -> Result<(), Reason> {
    if parsed.transport + header_length(icmp) > parsed.end {
        return Err(Reason::Malformed);
    }
    let Some(h) = packet.load::<[u8; 8]>(parsed.transport) else { return Err(Reason::Malformed) };
    parsed.icmp_type = h[0];
    parsed.icmp_code = h[1];
    let identifier = Port([h[4], h[5]]);
    if icmp == protocol::ICMP {
        icmp_v4(direction, parsed, identifier)
    } else {
        icmp_v6(direction, parsed, identifier)
    }
}

/// Types of <https://www.iana.org/assignments/icmp-parameters>; those without an identifier are flows of their own.
#[inline(always)]
fn icmp_v4(direction: Direction, parsed: &mut Parsed, identifier: Port) -> Result<(), Reason> {
    match parsed.icmp_type {
        // Destination unreachable, source quench, time exceeded, parameter problem.
        3 | 4 | 11 | 12 => parsed.part = Part::Error,
        // Redirect, router advertisement, router solicitation.
        5 | 9 | 10 => return Err(Reason::NeighbourDiscovery),
        // Echo, timestamp, information, address mask, extended echo: queries, then replies.
        8 | 13 | 15 | 17 | 42 => query(direction, parsed, identifier),
        0 => reply(direction, parsed, identifier, 8),
        14 | 16 | 18 | 43 => reply(direction, parsed, identifier, parsed.icmp_type - 1),
        _ => parsed.key.icmp_type = parsed.icmp_type,
    }
    Ok(())
}

/// Types of <https://www.iana.org/assignments/icmpv6-parameters>. Types below 128 are errors.
#[inline(always)]
fn icmp_v6(direction: Direction, parsed: &mut Parsed, identifier: Port) -> Result<(), Reason> {
    match parsed.icmp_type {
        0..=127 => parsed.part = Part::Error,
        // Router and neighbour discovery, redirect, inverse discovery, certification paths.
        133..=137 | 141 | 142 | 148 | 149 => return Err(Reason::NeighbourDiscovery),
        // Echo, extended echo: queries, then replies.
        128 | 160 => query(direction, parsed, identifier),
        129 | 161 => reply(direction, parsed, identifier, parsed.icmp_type - 1),
        _ => parsed.key.icmp_type = parsed.icmp_type,
    }
    Ok(())
}

#[inline(always)]
fn query(direction: Direction, parsed: &mut Parsed, identifier: Port) {
    parsed.set_ports(direction, identifier, identifier);
    parsed.key.icmp_type = parsed.icmp_type;
    parsed.part = Part::Opening;
}

/// A reply to a query of that type.
#[inline(always)]
fn reply(direction: Direction, parsed: &mut Parsed, identifier: Port, query: u8) {
    parsed.set_ports(direction, identifier, identifier);
    parsed.key.icmp_type = query;
    parsed.part = Part::Continuing;
}
