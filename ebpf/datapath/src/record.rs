//! Every packet is counted; drops, openings and cuts are told, sampled under load.

use crate::{
    Moment, Outer, Packet, Port, Reason, Tables, Work,
    abi::{Bucket, Event, counter_slot},
    parse,
};

/// A bucket gives one event back in this time: 100 a second for each CPU, hook and reason.
const INTERVAL_NS: u64 = 10_000_000;
/// A full bucket holds 100 events.
const BURST_NS: u64 = 100 * INTERVAL_NS;

/// Counts a packet.
#[inline(always)]
pub(crate) fn count<T: Tables>(tables: &T, moment: &Moment, reason: Reason, length: u32) {
    tables.count(counter_slot(moment.hook, reason), length);
}

/// Counts a packet and tells about it if the verdict says so.
#[inline(always)]
pub(crate) fn record<P: Packet, T: Tables>(
    tables: &T,
    packet: &P,
    moment: &Moment,
    outer: &Outer,
    work: &Work,
) {
    count(tables, moment, work.verdict.reason, packet.length());
    if work.verdict.event != 0 {
        tell(tables, packet, moment, outer, work);
    }
}

/// Sends an event unless there were too many of its kind; false when it was left out.
#[inline(never)]
fn tell<P: Packet, T: Tables>(tables: &T, packet: &P, moment: &Moment, outer: &Outer, work: &Work) -> bool {
    let slot = counter_slot(moment.hook, work.verdict.reason);
    let Some(mut bucket) = tables.bucket(slot) else { return false };
    let is_told =
        bucket.take(moment.now_ns) && tables.emit(event(packet, moment, outer, work, bucket.suppressed));
    bucket.suppressed = if is_told { 0 } else { bucket.suppressed.saturating_add(1) };
    tables.store_bucket(slot, &bucket);
    is_told
}

impl Bucket {
    /// Takes a token; false when there is none.
    #[inline(always)]
    fn take(&mut self, now_ns: u64) -> bool {
        let full_at = if self.full_at_ns > now_ns { self.full_at_ns } else { now_ns };
        if full_at + INTERVAL_NS > now_ns + BURST_NS {
            return false;
        }
        self.full_at_ns = full_at + INTERVAL_NS;
        true
    }
}

#[inline(always)]
fn event<P: Packet>(packet: &P, moment: &Moment, outer: &Outer, work: &Work, suppressed: u32) -> Event {
    let Work { parsed, verdict, .. } = work;
    let (source_port, destination_port) = if parse::is_icmp(parsed.key.protocol) {
        (Port([parsed.icmp_type, 0]), Port([parsed.icmp_code, 0]))
    } else {
        parsed.ports()
    };
    Event {
        time_ns: moment.now_ns,
        kind: verdict.event,
        reason: verdict.reason.number(),
        direction: moment.hook.direction().number(),
        protocol: parsed.key.protocol,
        rule: verdict.rule,
        identity: verdict.identity,
        vni: outer.vni,
        length: packet.length(),
        epoch: moment.control.epoch(),
        ifindex: packet.ifindex(),
        suppressed,
        source: *parsed.source(),
        destination: *parsed.destination(),
        outer: outer.source,
        source_port,
        destination_port,
        reserved: [0; 4],
    }
}

#[cfg(test)]
mod tests;
