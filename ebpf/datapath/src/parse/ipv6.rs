//! The IPv6 header and its extension headers (RFC 8200).

use zerocopy::FromBytes;

use super::{Fragment, Parsed, transport};
use crate::{Address, Direction, Packet, Reason};

const HEADER: u32 = 40;
/// More extension headers than this are refused.
const MAX_EXTENSIONS: u32 = 6;

#[derive(FromBytes)]
#[repr(C)]
struct Header {
    version: u8,
    rest: [u8; 3],
    payload_length: [u8; 2],
    next: u8,
    hop_limit: u8,
    source: Address,
    destination: Address,
}

/// The first eight bytes of an extension header.
#[derive(FromBytes)]
#[repr(C)]
struct Extension {
    next: u8,
    /// In units of eight bytes, without the first eight; not in a fragment header.
    length: u8,
    /// Of a fragment header: the offset, and whether more come. Of a routing header: type and segments left.
    offset: [u8; 2],
    id: [u8; 4],
}

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;
const MOBILITY: u8 = 135;
const HIP: u8 = 139;
const SHIM6: u8 = 140;
const EXPERIMENT_1: u8 = 253;
const EXPERIMENT_2: u8 = 254;

/// Reads the headers of a packet that is there as a whole.
#[inline(always)]
pub(super) fn parse<P: Packet>(packet: &P, direction: Direction, parsed: &mut Parsed) -> Result<(), Reason> {
    header(packet, 0, direction, parsed)?;
    if parsed.end > packet.length() {
        return Err(Reason::Malformed);
    }
    extensions(packet, parsed)
}

/// Reads the headers of a packet of which an ICMP error quotes the start.
#[inline(never)]
pub(super) fn parse_quoted<P: Packet>(
    packet: &P,
    base: u32,
    limit: u32,
    parsed: &mut Parsed,
) -> Result<(), Reason> {
    header(packet, base, parsed.direction, parsed)?;
    // What stands behind the end of the error is no quotation.
    if parsed.transport > limit {
        return Err(Reason::Malformed);
    }
    parsed.end = limit;
    extensions(packet, parsed)
}

/// Reads the addresses and the first header's protocol of whatever claims to be IPv6.
#[inline(always)]
pub(super) fn parse_addresses<P: Packet>(packet: &P, parsed: &mut Parsed) -> bool {
    let Some(h) = packet.load::<Header>(0) else { return false };
    parsed.set_addresses(parsed.direction, h.source, h.destination);
    parsed.key.protocol = h.next;
    true
}

/// Reads the fixed header at `base` and where the packet says it ends.
#[inline(always)]
fn header<P: Packet>(packet: &P, base: u32, direction: Direction, parsed: &mut Parsed) -> Result<(), Reason> {
    let Some(h) = packet.load::<Header>(base) else { return Err(Reason::Malformed) };
    if h.version >> 4 != 6 {
        return Err(Reason::Malformed);
    }
    if h.hop_limit == 0 {
        return Err(Reason::HopLimit);
    }
    // On the wire a v4-mapped address would be a second name of an IPv4 endpoint.
    if h.source.is_v4() || h.destination.is_v4() {
        return Err(Reason::Malformed);
    }
    parsed.set_addresses(direction, h.source, h.destination);
    parsed.key.protocol = h.next;
    parsed.transport = base + HEADER;
    parsed.end = base + HEADER + u32::from(u16::from_be_bytes(h.payload_length));
    Ok(())
}

#[inline(always)]
fn extensions<P: Packet>(packet: &P, parsed: &mut Parsed) -> Result<(), Reason> {
    if is_extension(parsed.key.protocol) { walk(packet, parsed) } else { Ok(()) }
}

#[inline(always)]
const fn is_extension(next: u8) -> bool {
    matches!(
        next,
        HOP_BY_HOP
            | ROUTING
            | FRAGMENT
            | DESTINATION_OPTIONS
            | MOBILITY
            | HIP
            | SHIM6
            | EXPERIMENT_1
            | EXPERIMENT_2
    )
}

/// Follows the chain to the transport header. Behind the header of a real fragment no other may come, since later
/// fragments could not be told from its kind.
#[inline(never)]
fn walk<P: Packet>(packet: &P, parsed: &mut Parsed) -> Result<(), Reason> {
    let mut offset = parsed.transport;
    let mut next = parsed.key.protocol;
    for _ in 0..MAX_EXTENSIONS {
        if !is_extension(next) {
            break;
        }
        if offset + 8 > parsed.end {
            return Err(Reason::Malformed);
        }
        let Some(h) = packet.load::<Extension>(offset) else { return Err(Reason::Malformed) };
        match next {
            HOP_BY_HOP | DESTINATION_OPTIONS => offset += (u32::from(h.length) + 1) * 8,
            // A packet that is not yet where it goes has another destination than it shows.
            ROUTING if h.offset[1] == 0 => offset += (u32::from(h.length) + 1) * 8,
            FRAGMENT => {
                fragment(&h, parsed)?;
                offset += 8;
                if !matches!(parsed.fragment, Fragment::Whole) && is_extension(h.next) {
                    return Err(Reason::UnknownExtension);
                }
            }
            _ => return Err(Reason::UnknownExtension),
        }
        next = h.next;
    }
    if is_extension(next) {
        return Err(Reason::UnknownExtension);
    }
    if offset > parsed.end {
        return Err(Reason::Malformed);
    }
    parsed.key.protocol = next;
    parsed.transport = offset;
    Ok(())
}

#[inline(always)]
fn fragment(h: &Extension, parsed: &mut Parsed) -> Result<(), Reason> {
    // A second fragment header would rename the datagram.
    if !matches!(parsed.fragment, Fragment::Whole) {
        return Err(Reason::UnknownExtension);
    }
    let field = u16::from_be_bytes(h.offset);
    let offset = u32::from(field & 0xfff8);
    if offset == 0 && field & 1 == 0 {
        return Ok(());
    }
    parsed.fragment_id = h.id;
    parsed.fragment = if offset == 0 { Fragment::First } else { Fragment::Later };
    if offset != 0 && offset < transport::header_length(h.next) {
        return Err(Reason::Malformed);
    }
    Ok(())
}
