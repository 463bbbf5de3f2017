//! The decision on a transit node: it forwards between tunnels and the endpoints behind it, and between tunnels of
//! hosts whose underlays do not meet. Policy is enforced at the ends; what is checked here is that nobody speaks in the
//! name of another.

use crate::{
    Address, Direction, Packet, Reason, Tables, Work,
    abi::{EndpointEntry, endpoint_flag},
    parse::{self, Fragment, Parsed, Part, protocol},
    source,
    view::View,
};

const LOCAL: u32 = endpoint_flag::OWN | endpoint_flag::BEHIND;

/// Decides about a parsed packet in either direction. Fills in the verdict if it passes, and returns its reason.
#[inline(never)]
pub(crate) fn decide<P: Packet, T: Tables>(view: &View<'_, T>, packet: &P, work: &mut Work) -> Reason {
    if work.parsed.is_multicast() {
        return Reason::Multicast;
    }
    let decided = match view.direction {
        Direction::Ingress => ingress(view, packet, work),
        Direction::Egress => egress(view, packet, work),
    };
    match decided {
        Ok(reason) | Err(reason) => reason,
    }
}

#[inline(always)]
fn ingress<P: Packet, T: Tables>(view: &View<'_, T>, packet: &P, work: &mut Work) -> Result<Reason, Reason> {
    let Work { parsed, verdict, .. } = work;
    let sender = source::check(view.tables, view.bank, parsed.source(), view.outer)?;
    verdict.identity = sender.identity;
    let destination = source::endpoint(view.tables, view.bank, parsed.destination());
    let Some(entry) = destination else { return Err(Reason::NotForUs) };
    if entry.flags & LOCAL != 0 {
        return Ok(Reason::Forwarded);
    }
    if entry.tunnel == Address::NONE || view.settings.mtu == 0 {
        return Err(Reason::NotForUs);
    }
    let is_past_mesh = entry.flags & endpoint_flag::PAST_MESH != 0;
    // Nor the fragments of such a sender: the reverse path check would look for it in the cluster's network.
    let keeps_fragments = is_past_mesh || sender.flags & endpoint_flag::PAST_MESH != 0;
    if hops(packet, parsed) <= 1 {
        return Ok(Reason::GivenToKernel);
    }
    if largest(packet, parsed) > view.settings.mtu {
        return if is_past_mesh { Err(Reason::RelayTooLarge) } else { Ok(Reason::GivenToKernel) };
    }
    if is_fragment_v4(parsed) && !keeps_fragments {
        return Ok(Reason::GivenToKernel);
    }
    verdict.tunnel = entry.tunnel;
    Ok(Reason::Relayed)
}

#[inline(always)]
fn egress<P: Packet, T: Tables>(view: &View<'_, T>, packet: &P, work: &mut Work) -> Result<Reason, Reason> {
    let Work { parsed, quoted, verdict } = work;
    let (mark, reason) = match source::endpoint(view.tables, view.bank, parsed.source()) {
        Some(entry) if entry.flags & LOCAL != 0 => (entry.mark, Reason::Forwarded),
        // Ingress checked the source; nothing but the kernel can say by which device a packet came.
        Some(entry) if is_passing_through(packet) => (entry.mark, Reason::Relayed),
        None if is_report(view, packet, parsed, quoted) => (view.settings.mark, Reason::Forwarded),
        _ => return Err(Reason::ForeignSource),
    };
    let entry = source::destination(view.tables, view.bank, parsed.destination())?;
    verdict.identity = entry.identity;
    verdict.mark = mark;
    verdict.tunnel = entry.tunnel;
    Ok(reason)
}

/// Whether a packet came in by the device it leaves by.
#[inline(always)]
fn is_passing_through<P: Packet>(packet: &P) -> bool {
    packet.arrived_by() != 0 && packet.arrived_by() == packet.ifindex()
}

/// Whether a packet takes the way of those that do not fit and are cut again: these must not come behind their later ones.
#[inline(always)]
fn is_fragment_v4(parsed: &Parsed) -> bool {
    parsed.source().is_v4() && !matches!(parsed.fragment, Fragment::Whole)
}

/// What is left of the hops.
#[inline(always)]
fn hops<P: Packet>(packet: &P, parsed: &Parsed) -> u8 {
    let word = if parsed.source().is_v4() {
        packet.load::<[u8; 4]>(8).map(|[hops, ..]| hops)
    } else {
        packet.load::<[u8; 4]>(4).map(|[.., hops]| hops)
    };
    word.unwrap_or_default()
}

/// The length of a packet, or of the largest of a super packet.
#[inline(always)]
fn largest<P: Packet>(packet: &P, parsed: &Parsed) -> u32 {
    let size = packet.segment_size();
    if size == 0 {
        return parsed.end;
    }
    parsed.transport + transport_header(packet, parsed) + size
}

#[inline(always)]
fn transport_header<P: Packet>(packet: &P, parsed: &Parsed) -> u32 {
    const UDP: u32 = 8;
    const LONGEST_TCP: u32 = 60;
    /// Where the length stands in the header of TCP, in its upper half, counted in words.
    const OFFSET: u32 = 12;
    if parsed.key.protocol != protocol::TCP {
        return UDP;
    }
    match packet.load::<[u8; 4]>(parsed.transport + OFFSET) {
        Some([offset, ..]) => u32::from(offset >> 4) * 4,
        None => LONGEST_TCP,
    }
}

/// Whether a router between this node and its endpoints, itself no endpoint, reports an error about a packet to one
/// of them. Path MTU discovery needs it.
#[inline(always)]
fn is_report<P: Packet, T: Tables>(
    view: &View<'_, T>,
    packet: &P,
    parsed: &Parsed,
    quoted: &mut Parsed,
) -> bool {
    if !matches!(parsed.part, Part::Error) {
        return false;
    }
    *quoted = Parsed::new(Direction::Ingress);
    if parse::parse_quoted(packet, parsed, quoted).is_err() || quoted.source() != parsed.destination() {
        return false;
    }
    source::endpoint(view.tables, view.bank, quoted.destination()).is_some_and(is_behind)
}

#[inline(always)]
fn is_behind(entry: &EndpointEntry) -> bool {
    entry.flags & endpoint_flag::BEHIND != 0
}

#[cfg(test)]
mod tests;
