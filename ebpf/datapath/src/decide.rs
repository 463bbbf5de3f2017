//! The one decision about a packet of the mesh device: parse → source check → flow → identities → policy → record.

use crate::{
    Direction, Moment, Outer, Packet, Reason, Tables, Verdict,
    abi::{Control, EventKind, settings_flag},
    host,
    parse::{self, Parsed},
    record, transit,
    view::View,
};

/// What is known about the packet at hand: room that the caller lends. In the kernel it is a map's value rather than
/// stack, of which there is little, and of whose contents the verifier would follow every combination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    /// What was parsed.
    pub parsed: Parsed,
    /// What an ICMP error quotes.
    pub quoted: Parsed,
    /// What was decided.
    pub verdict: Verdict,
}

impl Work {
    /// Nothing is known.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            parsed: Parsed::new(Direction::Ingress),
            quoted: Parsed::new(Direction::Ingress),
            verdict: Verdict::drop(Reason::NotPublished),
        }
    }
}

impl Default for Work {
    fn default() -> Self {
        Self::new()
    }
}

/// Decides as [`decide_in`] does, with room of its own.
pub fn decide<P: Packet, T: Tables>(packet: &P, outer: &Outer, moment: &Moment, tables: &T) -> Verdict {
    let mut work = Work::new();
    decide_in(packet, outer, moment, tables, &mut work);
    work.verdict
}

/// Decides about one packet in the direction of the hook, counts it and tells about it. Ingress gets the facts of
/// the tunnel, egress [`Outer::NONE`]. Returns whether the packet passes; the verdict then names, for egress, the
/// tunnel to take and the VNI to write.
#[inline(always)]
pub fn decide_in<P: Packet, T: Tables>(
    packet: &P,
    outer: &Outer,
    moment: &Moment,
    tables: &T,
    work: &mut Work,
) -> bool {
    let direction = moment.hook.direction();
    work.verdict = Verdict::drop(Reason::NotPublished);
    if moment.control != Control::UNPUBLISHED
        && let Some(settings) = tables.settings(moment.control.bank())
    {
        let bank = moment.control.bank();
        let view = View {
            tables,
            settings,
            outer,
            bank,
            epoch: moment.control.epoch(),
            now: moment.tick(),
            direction,
        };
        work.verdict.event = 0;
        work.verdict.reason = reason(packet, &view, work);
        if work.verdict.event == 0 {
            work.verdict.event = event(work.verdict.reason, settings.flags);
        }
    } else {
        work.parsed = Parsed::new(direction);
    }
    record::record(tables, packet, moment, outer, work);
    work.verdict.reason.passes()
}

#[inline(always)]
fn reason<P: Packet, T: Tables>(packet: &P, view: &View<'_, T>, work: &mut Work) -> Reason {
    work.parsed = Parsed::new(view.direction);
    if let Err(reason) = parse::parse(packet, &mut work.parsed) {
        return reason;
    }
    if matches!(view.direction, Direction::Ingress) && *view.outer == Outer::NONE {
        return Reason::NoTunnelKey;
    }
    if view.settings.flags & settings_flag::TRANSIT != 0 {
        transit::decide(view, packet, work)
    } else {
        host::decide(view, packet, work)
    }
}

/// What is told about a packet with this reason: every drop, what audit mode lets pass, new flows if asked for.
#[inline(always)]
pub(crate) const fn event(reason: Reason, flags: u32) -> u8 {
    if matches!(reason, Reason::Audited) {
        EventKind::Audited.number()
    } else if matches!(reason, Reason::NewAllowed) && flags & settings_flag::EVENTS_ALLOWED != 0 {
        EventKind::Allowed.number()
    } else if reason.passes() {
        0
    } else {
        EventKind::Dropped.number()
    }
}
