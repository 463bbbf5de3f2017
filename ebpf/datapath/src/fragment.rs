//! Fragments: the first one carries the ports, later ones follow it.

use crate::{
    Tables,
    abi::{FragmentEntry, FragmentKey},
    packet::ticks,
    parse::Parsed,
};

/// Reassembly gives up after 30 s (Linux) or 60 s (RFC 8200); what comes later belongs to no datagram.
const TIMEOUT: u32 = ticks(30);

#[inline(always)]
fn key(parsed: &Parsed) -> FragmentKey {
    FragmentKey {
        source: *parsed.source(),
        destination: *parsed.destination(),
        id: parsed.fragment_id,
        protocol: parsed.key.protocol,
        direction: parsed.direction.number(),
        space: parsed.key.space,
    }
}

/// Remembers the ports of a first fragment that passed; false when the map refuses.
#[inline(never)]
pub(crate) fn remember<T: Tables>(tables: &T, parsed: &Parsed, now: u32) -> bool {
    let (source_port, destination_port) = parsed.ports();
    let entry = FragmentEntry {
        source_port,
        destination_port,
        seen: now,
        icmp_type: parsed.key.icmp_type,
        reserved: [0; 3],
    };
    tables.insert_fragment(&key(parsed), &entry)
}

/// Gives a later fragment the ports of its first one; false when that did not pass.
#[inline(never)]
pub(crate) fn follow<T: Tables>(tables: &T, parsed: &mut Parsed, now: u32) -> bool {
    let Some(entry) = tables.fragment(&key(parsed)) else { return false };
    parsed.set_ports(parsed.direction, entry.source_port, entry.destination_port);
    parsed.key.icmp_type = entry.icmp_type;
    now.saturating_sub(entry.seen) <= TIMEOUT
}
