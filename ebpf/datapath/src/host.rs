//! The decision on a host: policy is enforced here.

use crate::{
    Address, Direction, FlowTable, Packet, Port, Reason, Tables, Verdict, Work,
    abi::{EndpointEntry, EventKind, Flow, FlowKey, Place},
    flow, fragment,
    parse::{self, Fragment, Parsed, Part},
    policy::{self, Answer, Question},
    related, source,
    view::View,
};

/// Decides about a parsed packet in either direction: fills in the verdict and returns its reason.
#[inline(always)]
pub(crate) fn decide<P: Packet, T: Tables>(view: &View<'_, T>, packet: &P, work: &mut Work) -> Reason {
    if work.parsed.is_multicast() {
        return Reason::Multicast;
    }
    if matches!(work.parsed.part, Part::Error) {
        return related::decide(view, packet, work);
    }
    let Work { parsed, verdict, .. } = work;
    if matches!(parsed.fragment, Fragment::Later) && !fragment::follow(view.tables, parsed, view.now) {
        return Reason::FragmentOrphan;
    }
    let tag = parsed.key.tag();
    let reason = match flow::find(view.tables, &parsed.key, tag, view.now) {
        Some(slot) => known(view, parsed, slot, tag, verdict),
        None => open(view, parsed, None, tag, verdict),
    };
    if matches!(parsed.fragment, Fragment::First) && reason.passes() {
        // Refused by the map, its later fragments are orphans, and counted so.
        let _is_remembered = fragment::remember(view.tables, parsed, view.now);
    }
    reason
}

/// A packet of a live flow. While nothing changes, the epoch and the outer facts are compared, and nothing is written
/// but the time, once a tick.
#[inline(always)]
fn known<T: Tables>(
    view: &View<'_, T>,
    parsed: &Parsed,
    slot: T::Slot,
    tag: u32,
    verdict: &mut Verdict,
) -> Reason {
    let mut flow = view.tables.load(slot);
    // Before anything is done with what may be another flow's by now.
    if !view.tables.is_still(slot, tag) {
        return open(view, parsed, None, tag, verdict);
    }
    if flow.is_reopened_by(parsed, view.direction) {
        return open(view, parsed, Some(slot), tag, verdict);
    }
    let mut reason = Reason::Established;
    if !is_proven(view, &flow) {
        reason = prove(view, &parsed.key, slot, verdict);
        if !matches!(reason, Reason::Established | Reason::Audited) {
            return reason;
        }
        flow = view.tables.load(slot);
        if !view.tables.is_still(slot, tag) {
            return open(view, parsed, None, tag, verdict);
        }
    }
    verdict.describe(&flow, view.direction);
    if flow.last_seen != view.now {
        // Refused ones too: kept alive, so that no packet of it is taken for a new flow.
        view.tables.touch(slot, view.now);
    }
    if flow.is_refused() {
        return Reason::FlowRefused;
    }
    if flow.next_state(parsed.part, view.direction) != flow.state {
        advance(view, parsed, slot);
    }
    reason
}

/// Whether the flow was proven with these tables and these outer facts.
#[inline(always)]
fn is_proven<T: Tables>(view: &View<'_, T>, flow: &Flow) -> bool {
    flow.epoch == view.epoch && (matches!(view.direction, Direction::Egress) || flow.came_from(view.outer))
}

/// Takes a flow to its next state, and one that now has packets both ways out of reach of floods. False when the map
/// for those refuses it, which leaves it where it was.
#[inline(never)]
pub(crate) fn advance<T: Tables>(view: &View<'_, T>, parsed: &Parsed, slot: T::Slot) -> bool {
    let mut flow = view.tables.load(slot);
    let was_confirmed = flow.is_confirmed();
    flow.state = flow.next_state(parsed.part, view.direction);
    if !was_confirmed && flow.is_confirmed() {
        flow.last_seen = view.now;
        let is_moved = view.tables.insert(FlowTable::Confirmed, &parsed.key, &flow);
        if is_moved {
            view.tables.remove_half_open(&parsed.key);
            return true;
        }
    }
    view.tables.store(slot, &flow);
    was_confirmed
}

/// Proves a flow again: the source check where the outer facts are others, policy where the epoch is another one.
/// `Established` and `Audited` tell that it may go on. `FlowRefused` tells that policy refused it, which is written
/// down and filled in; any other reason drops this packet only.
#[inline(never)]
fn prove<T: Tables>(view: &View<'_, T>, key: &FlowKey, slot: T::Slot, verdict: &mut Verdict) -> Reason {
    let entry = match remote(view, key) {
        Ok(entry) => entry,
        Err(reason) => return reason,
    };
    let flow = view.tables.load(slot);
    let was_refused = flow.is_refused();
    let mut reason = if was_refused { Reason::FlowRefused } else { Reason::Established };
    if flow.epoch != view.epoch {
        if !view.is_own(key.local) {
            return not_ours(view.direction);
        }
        reason = reevaluate(view, key, entry, slot);
    }
    let mut flow = view.tables.load(slot);
    if matches!(view.direction, Direction::Ingress) {
        flow.outer = view.outer.source;
        flow.vni = view.outer.vni;
    }
    flow.last_seen = view.now;
    view.tables.store(slot, &flow);
    if matches!(reason, Reason::FlowRefused) {
        verdict.describe(&flow, view.direction);
        verdict.event = if was_refused { EventKind::Dropped.number() } else { EventKind::Cut.number() };
    }
    reason
}

/// The endpoint at the other end: for ingress the one the tunnel speaks for, for egress the one a tunnel leads to.
#[inline(always)]
fn remote<'a, T: Tables>(view: &View<'a, T>, key: &FlowKey) -> Result<&'a EndpointEntry, Reason> {
    match view.direction {
        Direction::Ingress => source::check(view.tables, view.bank, &key.remote, view.outer),
        Direction::Egress => source::destination(view.tables, view.bank, &key.remote),
    }
}

/// What it means that the local address of a packet is not this host's.
#[inline(always)]
const fn not_ours(direction: Direction) -> Reason {
    match direction {
        Direction::Ingress => Reason::NotForUs,
        Direction::Egress => Reason::ForeignSource,
    }
}

/// Asks policy about the flow in a slot again, from its opener's side, whichever packet is the cause.
#[inline(never)]
pub(crate) fn reevaluate<T: Tables>(
    view: &View<'_, T>,
    key: &FlowKey,
    entry: &EndpointEntry,
    slot: T::Slot,
) -> Reason {
    let mut answer = Answer::default();
    let is_allowed = ask(view, key, entry, view.tables.load(slot).opened(), &mut answer);
    let is_refused = !is_allowed && !view.is_audit();
    let mut flow = view.tables.load(slot);
    flow.epoch = view.epoch;
    flow.identity = entry.identity;
    flow.rule = answer.rule;
    flow.tunnel = entry.tunnel;
    flow.mark = view.settings.mark;
    flow.refused = u8::from(is_refused);
    // Validated against tables that are gone.
    flow.outer = Address::NONE;
    flow.vni = 0;
    view.tables.store(slot, &flow);
    if is_refused {
        Reason::FlowRefused
    } else if is_allowed {
        Reason::Established
    } else {
        Reason::Audited
    }
}

#[inline(always)]
fn ask<T: Tables>(
    view: &View<'_, T>,
    key: &FlowKey,
    entry: &EndpointEntry,
    opener: Direction,
    answer: &mut Answer,
) -> bool {
    let port = opened_port(key, opener);
    let question = Question {
        remote: key.remote,
        identity: entry.identity,
        port,
        protocol: key.protocol,
        direction: opener,
    };
    policy::ask(view.tables, Place::mesh(view.bank), view.settings, &question, answer)
}

/// What policy is asked about as the port of a flow with this opener.
#[inline(always)]
pub(crate) const fn opened_port(key: &FlowKey, opener: Direction) -> Port {
    if parse::is_icmp(key.protocol) {
        return Port([0, key.icmp_type]);
    }
    match opener {
        Direction::Ingress => key.local_port,
        Direction::Egress => key.remote_port,
    }
}

/// A packet without a live flow, or one that starts it anew in the given slot.
#[inline(never)]
fn open<T: Tables>(
    view: &View<'_, T>,
    parsed: &Parsed,
    slot: Option<T::Slot>,
    tag: u32,
    verdict: &mut Verdict,
) -> Reason {
    let key = &parsed.key;
    let entry = match may_open(view, parsed) {
        Ok(entry) => entry,
        Err(reason) => return reason,
    };
    let mut answer = Answer::default();
    let is_allowed = ask(view, key, entry, view.direction, &mut answer);
    verdict.rule = answer.rule;
    verdict.identity = entry.identity;
    verdict.mark = view.settings.mark;
    verdict.tunnel = entry.tunnel;
    if !is_allowed && !view.is_audit() {
        return Reason::PolicyDenied;
    }
    if !begin(view, key, slot, tag, verdict) {
        Reason::FlowTableFull
    } else if is_allowed {
        Reason::NewAllowed
    } else {
        Reason::Audited
    }
}

/// The endpoint at the other end, if this packet may open a flow with it.
#[inline(always)]
fn may_open<'a, T: Tables>(view: &View<'a, T>, parsed: &Parsed) -> Result<&'a EndpointEntry, Reason> {
    // The tunnel is checked before, and the own address of a sender here: who speaks comes first.
    if matches!(view.direction, Direction::Egress) && !view.is_own(parsed.key.local) {
        return Err(Reason::ForeignSource);
    }
    let entry = remote(view, &parsed.key)?;
    if matches!(view.direction, Direction::Ingress) && !view.is_own(parsed.key.local) {
        return Err(Reason::NotForUs);
    }
    if matches!(parsed.fragment, Fragment::Later) {
        return Err(Reason::FragmentOrphan);
    }
    match parsed.part {
        Part::Opening | Part::Datagram => Ok(entry),
        Part::Continuing | Part::Closing | Part::Error => Err(Reason::NoFlow),
    }
}

/// Writes a new flow down, in the place of the one it follows or among the half-open ones; false when there is no
/// room.
#[inline(never)]
pub(crate) fn begin<T: Tables>(
    view: &View<'_, T>,
    key: &FlowKey,
    slot: Option<T::Slot>,
    tag: u32,
    verdict: &Verdict,
) -> bool {
    let flow = Flow {
        tag,
        epoch: view.epoch,
        identity: verdict.identity,
        rule: verdict.rule,
        last_seen: view.now,
        vni: view.outer.vni,
        outer: view.outer.source,
        tunnel: verdict.tunnel,
        opener: view.direction.number(),
        state: 0,
        refused: 0,
        padding: 0,
        mark: verdict.mark,
        reserved: [0; 16],
    };
    match slot {
        Some(slot) => {
            view.tables.store(slot, &flow);
            true
        }
        None => view.tables.insert(FlowTable::HalfOpen, key, &flow),
    }
}

#[cfg(test)]
mod tests;
