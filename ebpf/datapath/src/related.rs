//! ICMP errors: they pass when they are about a live flow and come from where its remote may send from.

use crate::{
    Direction, Packet, Reason, Tables, Work,
    abi::EndpointEntry,
    flow, host,
    parse::{self, Parsed},
    source,
    view::View,
};

/// Decides about an ICMP error. Fills in the verdict if it passes, and returns its reason.
#[inline(never)]
pub(crate) fn decide<P: Packet, T: Tables>(view: &View<'_, T>, packet: &P, work: &mut Work) -> Reason {
    let Work { parsed, quoted, verdict } = work;
    // What is quoted went the other way.
    *quoted = Parsed::new(view.direction.opposite());
    if let Err(reason) = parse::parse_quoted(packet, parsed, quoted) {
        return reason;
    }
    if quoted.source() != parsed.destination() {
        return Reason::IcmpUnrelated;
    }
    let key = &quoted.key;
    let Some(slot) = flow::find(view.tables, key, key.tag(), view.now) else {
        return Reason::IcmpUnrelated;
    };
    let Some(remote) = source::endpoint(view.tables, view.bank, &key.remote) else {
        return Reason::IcmpUnrelated;
    };
    if let Err(reason) = may_report(view, parsed, remote) {
        return reason;
    }
    if view.tables.load(slot).epoch != view.epoch {
        host::reevaluate(view, key, remote, slot);
    }
    let flow = view.tables.load(slot);
    if flow.is_refused() {
        return Reason::IcmpUnrelated;
    }
    verdict.describe(&flow, view.direction);
    Reason::Related
}

/// Whether the sender of an error may report about packets to `remote`.
#[inline(always)]
fn may_report<T: Tables>(view: &View<'_, T>, parsed: &Parsed, remote: &EndpointEntry) -> Result<(), Reason> {
    if matches!(view.direction, Direction::Egress) {
        return if view.is_own(parsed.key.local) { Ok(()) } else { Err(Reason::ForeignSource) };
    }
    if !view.is_own(parsed.key.local) {
        return Err(Reason::NotForUs);
    }
    if !source::may_send(view.tables, view.bank, remote, &view.outer.source) {
        return Err(Reason::Spoofed);
    }
    let may_claim = match source::endpoint(view.tables, view.bank, &parsed.key.remote) {
        Some(sender) => {
            source::may_send(view.tables, view.bank, sender, &view.outer.source)
                && source::may_claim(sender, view.outer.vni)
        }
        // A router on the way, without an address in the mesh: its transit node marks the packet as its own.
        None => view.outer.vni == source::REMOTE_NODE || source::may_claim(remote, view.outer.vni),
    };
    if may_claim { Ok(()) } else { Err(Reason::Spoofed) }
}

#[cfg(test)]
mod tests;
