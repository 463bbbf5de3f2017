//! The IPv4 header (RFC 791).

use zerocopy::FromBytes;

use super::{Fragment, Parsed, transport};
use crate::{Address, Direction, Packet, Reason};

const MIN_HEADER: u32 = 20;
/// More options than this are refused, padding included: the verifier follows every combination.
const MAX_OPTIONS: u32 = 8;

const END_OF_OPTIONS: u8 = 0;
const NO_OPERATION: u8 = 1;
const LOOSE_SOURCE_ROUTE: u8 = 131;
const STRICT_SOURCE_ROUTE: u8 = 137;

#[derive(FromBytes)]
#[repr(C)]
struct Header {
    version_and_length: u8,
    service: u8,
    total_length: [u8; 2],
    id: [u8; 2],
    fragment: [u8; 2],
    ttl: u8,
    protocol: u8,
    checksum: [u8; 2],
    /// In network order, as a word of memory.
    source: u32,
    /// In network order, as a word of memory.
    destination: u32,
}

/// Reads the header of a packet that is there as a whole.
#[inline(always)]
pub(super) fn parse<P: Packet>(packet: &P, direction: Direction, parsed: &mut Parsed) -> Result<(), Reason> {
    header(packet, 0, direction, parsed)?;
    if parsed.end > packet.length() || parsed.transport > parsed.end {
        return Err(Reason::Malformed);
    }
    if parsed.transport > MIN_HEADER { options(packet, parsed.transport) } else { Ok(()) }
}

/// Reads the header of a packet of which an ICMP error quotes the start.
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
    Ok(())
}

/// Reads the addresses and the protocol of whatever claims to be IPv4.
#[inline(always)]
pub(super) fn parse_addresses<P: Packet>(packet: &P, parsed: &mut Parsed) -> bool {
    let Some(h) = packet.load::<Header>(0) else { return false };
    parsed.set_addresses(
        parsed.direction,
        Address::from_v4(h.source.to_ne_bytes()),
        Address::from_v4(h.destination.to_ne_bytes()),
    );
    parsed.key.protocol = h.protocol;
    true
}

/// Looks through the options for one that routes (RFC 791, refused as RFC 7126 advises). What a reader could not follow
/// might hide one.
#[inline(never)]
fn options<P: Packet>(packet: &P, end: u32) -> Result<(), Reason> {
    let mut offset = MIN_HEADER;
    for _ in 0..MAX_OPTIONS {
        if offset >= end {
            return Ok(());
        }
        let Some([kind]) = packet.load::<[u8; 1]>(offset) else { return Err(Reason::Malformed) };
        match kind {
            END_OF_OPTIONS => return Ok(()),
            NO_OPERATION => offset += 1,
            LOOSE_SOURCE_ROUTE | STRICT_SOURCE_ROUTE => return Err(Reason::SourceRoute),
            _ => {
                let Some([length]) = packet.load::<[u8; 1]>(offset + 1) else {
                    return Err(Reason::Malformed);
                };
                if length < 2 || offset + u32::from(length) > end {
                    return Err(Reason::Malformed);
                }
                offset += u32::from(length);
            }
        }
    }
    if offset < end { Err(Reason::SourceRoute) } else { Ok(()) }
}

/// Reads the header at `base` and where the packet says it ends.
#[inline(always)]
fn header<P: Packet>(packet: &P, base: u32, direction: Direction, parsed: &mut Parsed) -> Result<(), Reason> {
    let Some(h) = packet.load::<Header>(base) else { return Err(Reason::Malformed) };
    let header_length = u32::from(h.version_and_length & 0x0f) * 4;
    if h.version_and_length >> 4 != 4 || header_length < MIN_HEADER {
        return Err(Reason::Malformed);
    }
    if h.ttl == 0 {
        return Err(Reason::HopLimit);
    }
    parsed.set_addresses(
        direction,
        Address::from_v4(h.source.to_ne_bytes()),
        Address::from_v4(h.destination.to_ne_bytes()),
    );
    parsed.key.protocol = h.protocol;
    parsed.transport = base + header_length;
    let fragment = u16::from_be_bytes(h.fragment);
    let more = fragment & 0x2000 != 0;
    let offset = u32::from(fragment & 0x1fff) * 8;
    if more || offset != 0 {
        parsed.fragment_id = [h.id[0], h.id[1], 0, 0];
        parsed.fragment = if offset == 0 { Fragment::First } else { Fragment::Later };
        if offset != 0 && offset < transport::header_length(parsed.key.protocol) {
            return Err(Reason::Malformed);
        }
    }
    parsed.end = base + u32::from(u16::from_be_bytes(h.total_length));
    Ok(())
}
