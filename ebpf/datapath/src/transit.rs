//! The decision on a transit node: it forwards between tunnels and the endpoints behind it. Policy is enforced at
//! the ends; what is checked here is that nobody speaks in the name of another.

use crate::{
    Direction, Packet, Reason, Tables, Work,
    abi::{EndpointEntry, endpoint_flag},
    parse::{self, Parsed, Part},
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
        Direction::Ingress => ingress(view, work),
        Direction::Egress => egress(view, packet, work),
    };
    match decided {
        Ok(()) => Reason::Forwarded,
        Err(reason) => reason,
    }
}

#[inline(always)]
fn ingress<T: Tables>(view: &View<'_, T>, work: &mut Work) -> Result<(), Reason> {
    let Work { parsed, verdict, .. } = work;
    let sender = source::check(view.tables, view.bank, parsed.source(), view.outer)?;
    match source::endpoint(view.tables, view.bank, parsed.destination()) {
        Some(entry) if entry.flags & LOCAL != 0 => {}
        _ => return Err(Reason::NotForUs),
    }
    verdict.identity = sender.identity;
    Ok(())
}

#[inline(always)]
fn egress<P: Packet, T: Tables>(view: &View<'_, T>, packet: &P, work: &mut Work) -> Result<(), Reason> {
    let Work { parsed, quoted, verdict } = work;
    let mark = match source::endpoint(view.tables, view.bank, parsed.source()) {
        Some(entry) if entry.flags & LOCAL != 0 => entry.mark,
        None if is_report(view, packet, parsed, quoted) => view.settings.mark,
        _ => return Err(Reason::ForeignSource),
    };
    let entry = source::destination(view.tables, view.bank, parsed.destination())?;
    verdict.identity = entry.identity;
    verdict.mark = mark;
    verdict.tunnel = entry.tunnel;
    Ok(())
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
