//! Policy on the NICs: what this host itself sends and receives outside of the mesh. What is forwarded, for containers
//! too, is its own affair.
//!
//! A policy of its own, flows of its own in the same tables, and no source check: outside of the mesh nobody vouches for
//! an address.

use crate::{
    Address, Direction, Moment, Outer, Packet, Reason, Tables, Verdict, Work,
    abi::{
        EndpointEntry, EndpointKey, EventKind, FlowKey, Place, Settings, TunnelKey, endpoint_flag,
        settings_flag,
    },
    decide, flow, fragment, host,
    parse::{self, Fragment, Parsed, Part, protocol},
    policy::{self, Answer, NO_ENDPOINT, Question},
    record,
    source::REMOTE_NODE,
    view::View,
};

/// In the keys of flows and fragments.
const SPACE: [u8; 2] = [1, 0];
/// In the place of a flow's mark: somebody else's, whose address became this host's on the way out.
const FORWARDED: u32 = 1;
/// A connection from before anybody looked: either end may have opened it.
const UNKNOWN_OPENER: u32 = 2;

/// Whether a packet that the guard lets pass may pass this device.
#[inline(never)]
pub(crate) fn passes<P: Packet, T: Tables>(
    packet: &P,
    moment: &Moment,
    settings: &Settings,
    tables: &T,
    work: &mut Work,
) -> bool {
    let view = View {
        tables,
        settings,
        outer: &Outer::NONE,
        bank: moment.control.bank(),
        epoch: moment.control.epoch(),
        now: moment.tick(),
        direction: moment.hook.direction(),
    };
    if !is_governed(&view, packet.ifindex(), &work.parsed) {
        return true;
    }
    work.verdict = Verdict::drop(Reason::NotPublished);
    work.verdict.event = 0;
    let mut reason = judge(&view, packet, work);
    if !reason.passes() && is_audit(&view) {
        reason = Reason::Audited;
    }
    work.verdict.reason = reason;
    if work.verdict.event == 0 || reason.passes() {
        work.verdict.event = decide::event(reason, settings.flags);
    }
    record::record(tables, packet, moment, &Outer::NONE, work);
    reason.passes()
}

/// Whether the device is a NIC, and the packet one of this host itself, or for everybody.
#[inline(always)]
fn is_governed<T: Tables>(view: &View<'_, T>, ifindex: u32, parsed: &Parsed) -> bool {
    let place = Place::nic(view.bank).number();
    let device = TunnelKey { bank: place, reserved: [0; 3], set: ifindex, address: Address::NONE };
    view.tables.tunnel(&device)
        && (endpoint(view, parsed.key.local).is_some_and(|entry| entry.flags & endpoint_flag::OWN != 0)
            || (matches!(view.direction, Direction::Ingress) && parsed.is_multicast()))
}

/// Who has an address, as far as NICs know it: this host, and nodes of the mesh.
#[inline(always)]
fn endpoint<'a, T: Tables>(view: &View<'a, T>, address: Address) -> Option<&'a EndpointEntry> {
    let bank = Place::nic(view.bank).number();
    view.tables.endpoint(&EndpointKey { bank, reserved: [0; 3], address })
}

/// Whether policy only reports here: so it was told to, or nobody confirmed it in time.
#[inline(always)]
const fn is_audit<T: Tables>(view: &View<'_, T>) -> bool {
    let Settings { nic_flags, nic_deadline, .. } = *view.settings;
    nic_flags & settings_flag::AUDIT != 0 || (nic_deadline != 0 && view.now > nic_deadline)
}

#[inline(always)]
fn judge<P: Packet, T: Tables>(view: &View<'_, T>, packet: &P, work: &mut Work) -> Reason {
    work.parsed = Parsed::new(view.direction);
    work.parsed.key.space = SPACE;
    match parse::parse(packet, &mut work.parsed) {
        Ok(()) => {}
        Err(Reason::Arp | Reason::NeighbourDiscovery | Reason::UnknownEtherType) => return Reason::KeptOpen,
        Err(reason) => return reason,
    }
    let is_later = matches!(work.parsed.fragment, Fragment::Later);
    if is_later && !fragment::follow(view.tables, &mut work.parsed, view.now) {
        return Reason::FragmentOrphan;
    }
    if is_kept_open(&work.parsed) || is_tunnel(view, &work.parsed) {
        if matches!(work.parsed.fragment, Fragment::First) {
            // Refused by the map, its later fragments are orphans, and counted so.
            let _is_remembered = fragment::remember(view.tables, &work.parsed, view.now);
        }
        return Reason::KeptOpen;
    }
    if matches!(work.parsed.part, Part::Error) {
        return related(view, packet, work);
    }
    let Work { parsed, verdict, .. } = work;
    let tag = parsed.key.tag();
    let reason = if parsed.is_multicast() {
        // Answers come from another address: there is no flow.
        stateless(view, &parsed.key, verdict)
    } else {
        match flow::find(view.tables, &parsed.key, tag, view.now) {
            Some(slot) => known(view, parsed, slot, tag, packet.arrived_by(), verdict),
            None => open(view, parsed, None, packet.arrived_by(), verdict),
        }
    };
    if matches!(parsed.fragment, Fragment::First) && (reason.passes() || is_audit(view)) {
        // Refused by the map, its later fragments are orphans, and counted so.
        let _is_remembered = fragment::remember(view.tables, parsed, view.now);
    }
    reason
}

/// Whether the network would break without this message: a path that became smaller, listeners of multicast, which
/// neighbour discovery needs behind a switch that looks at it.
#[inline(always)]
const fn is_kept_open(parsed: &Parsed) -> bool {
    if matches!(parsed.fragment, Fragment::Later) {
        return false;
    }
    match parsed.key.protocol {
        protocol::ICMP => parsed.icmp_type == 3 && parsed.icmp_code == 4,
        protocol::ICMPV6 => matches!(parsed.icmp_type, 2 | 130..=132 | 143),
        _ => false,
    }
}

/// Whether it is a tunnel packet to or from a node of the mesh: these carry other flows, and are none.
#[inline(always)]
fn is_tunnel<T: Tables>(view: &View<'_, T>, parsed: &Parsed) -> bool {
    let (_, destination) = parsed.ports();
    parsed.key.protocol == protocol::UDP
        && destination.get() != 0
        && destination == view.settings.nic_tunnel_port
        && identity(view, parsed.key.remote) == REMOTE_NODE
}

/// A packet of a live flow.
#[inline(always)]
fn known<T: Tables>(
    view: &View<'_, T>,
    parsed: &Parsed,
    slot: T::Slot,
    tag: u32,
    arrived_by: u32,
    verdict: &mut Verdict,
) -> Reason {
    let flow = view.tables.load(slot);
    // Before anything is done with what may be another flow's by now.
    if !view.tables.is_still(slot, tag) {
        return open(view, parsed, None, arrived_by, verdict);
    }
    // On the way out the packet says whose it is, and ports are used again. What came in first was for this host, also
    // where it forwards the port.
    let is_anothers = matches!(view.direction, Direction::Egress)
        && matches!(flow.opened(), Direction::Egress)
        && (flow.mark == FORWARDED) != is_forwarded(view.direction, arrived_by);
    let is_new = flow.mark == UNKNOWN_OPENER && matches!(parsed.part, Part::Opening);
    if is_anothers || is_new || flow.is_reopened_by(parsed, view.direction) {
        return open(view, parsed, Some(slot), arrived_by, verdict);
    }
    let mut reason = Reason::Established;
    if flow.epoch != view.epoch {
        reason = reevaluate(view, &parsed.key, slot);
        if !flow.is_refused() && matches!(reason, Reason::FlowRefused) {
            verdict.event = EventKind::Cut.number();
        }
    } else if flow.is_refused() {
        reason = Reason::FlowRefused;
    }
    let flow = view.tables.load(slot);
    verdict.rule = flow.rule;
    verdict.identity = flow.identity;
    if flow.last_seen != view.now {
        view.tables.touch(slot, view.now);
    }
    if reason.passes() && flow.next_state(parsed.part, view.direction) != flow.state {
        host::advance(view, parsed, slot);
    }
    reason
}

/// Asks policy about a flow again, from its opener's side.
#[inline(never)]
fn reevaluate<T: Tables>(view: &View<'_, T>, key: &FlowKey, slot: T::Slot) -> Reason {
    let mut answer = Answer { rule: 0, allowed: 1 };
    let is_allowed = match view.tables.load(slot).mark {
        FORWARDED => true,
        UNKNOWN_OPENER => ask_both(view, key, &mut answer),
        _ => ask(view, key, view.tables.load(slot).opened(), &mut answer),
    };
    let is_refused = !is_allowed && !is_audit(view);
    let mut flow = view.tables.load(slot);
    flow.epoch = view.epoch;
    flow.rule = answer.rule;
    flow.refused = u8::from(is_refused);
    view.tables.store(slot, &flow);
    if is_refused {
        Reason::FlowRefused
    } else if is_allowed {
        Reason::Established
    } else {
        Reason::Audited
    }
}

/// A packet without a live flow, or one that starts it anew in the given slot.
#[inline(never)]
fn open<T: Tables>(
    view: &View<'_, T>,
    parsed: &Parsed,
    slot: Option<T::Slot>,
    arrived_by: u32,
    verdict: &mut Verdict,
) -> Reason {
    let key = &parsed.key;
    if matches!(parsed.fragment, Fragment::Later) {
        return Reason::FragmentOrphan;
    }
    let mut answer = Answer { rule: 0, allowed: 1 };
    let mut is_allowed = is_forwarded(view.direction, arrived_by);
    if is_allowed {
        verdict.mark = FORWARDED;
    } else {
        is_allowed = match parsed.part {
            Part::Opening | Part::Datagram => ask(view, key, view.direction, &mut answer),
            // A connection from before somebody looked. What opens one is asked about all the same.
            Part::Continuing | Part::Closing if key.protocol == protocol::TCP => {
                verdict.mark = UNKNOWN_OPENER;
                ask_both(view, key, &mut answer)
            }
            Part::Continuing | Part::Closing | Part::Error => return Reason::NoFlow,
        };
    }
    verdict.rule = answer.rule;
    verdict.identity = identity(view, key.remote);
    if !is_allowed && !is_audit(view) {
        return Reason::PolicyDenied;
    }
    if !host::begin(view, key, slot, key.tag(), verdict) {
        Reason::FlowTableFull
    } else if is_allowed {
        Reason::NewAllowed
    } else {
        Reason::Audited
    }
}

/// Whether a packet that leaves is somebody else's, of whom only the device is known by which it came; 0 = none.
#[inline(always)]
const fn is_forwarded(direction: Direction, arrived_by: u32) -> bool {
    arrived_by != 0 && matches!(direction, Direction::Egress)
}

/// A packet to everybody.
#[inline(always)]
fn stateless<T: Tables>(view: &View<'_, T>, key: &FlowKey, verdict: &mut Verdict) -> Reason {
    let mut answer = Answer::default();
    let is_allowed = ask(view, key, view.direction, &mut answer);
    verdict.rule = answer.rule;
    if is_allowed { Reason::NewAllowed } else { Reason::PolicyDenied }
}

#[inline(always)]
fn identity<T: Tables>(view: &View<'_, T>, remote: Address) -> u32 {
    endpoint(view, remote).map_or(NO_ENDPOINT, |entry| entry.identity)
}

#[inline(never)]
fn ask<T: Tables>(view: &View<'_, T>, key: &FlowKey, opener: Direction, answer: &mut Answer) -> bool {
    let question = Question {
        remote: key.remote,
        identity: identity(view, key.remote),
        port: host::opened_port(key, opener),
        protocol: key.protocol,
        direction: opener,
    };
    policy::ask(view.tables, Place::nic(view.bank), view.settings, &question, answer)
}

/// Whether policy would have let either end open the flow.
#[inline(always)]
fn ask_both<T: Tables>(view: &View<'_, T>, key: &FlowKey, answer: &mut Answer) -> bool {
    ask(view, key, Direction::Ingress, answer) || ask(view, key, Direction::Egress, answer)
}

/// An ICMP error: it passes if it is about a live flow.
#[inline(never)]
fn related<P: Packet, T: Tables>(view: &View<'_, T>, packet: &P, work: &mut Work) -> Reason {
    let Work { parsed, quoted, verdict } = work;
    // What is quoted went the other way.
    *quoted = Parsed::new(view.direction.opposite());
    quoted.key.space = SPACE;
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
    if view.tables.load(slot).epoch != view.epoch {
        reevaluate(view, key, slot);
    }
    let flow = view.tables.load(slot);
    if flow.is_refused() {
        return Reason::IcmpUnrelated;
    }
    verdict.rule = flow.rule;
    verdict.identity = flow.identity;
    Reason::Related
}

#[cfg(test)]
mod tests;
