//! The guard on every other device: the mesh is reached through the mesh device or not at all.
//!
//! A host with the weak host model accepts a bare packet to its mesh address on any device, past all policy. What
//! the guard cannot read passes: the kernel will refuse it, and a host must never be locked out.

use crate::{
    Address, Direction, Moment, Outer, Packet, Reason, Tables, Verdict, Work,
    abi::{CidrKey, Control, Hook, PrefixKey, Settings, settings_flag},
    ethertype, nic,
    parse::{self, Fragment, Parsed, Part, protocol},
    record,
    view::is_own,
};

/// Decides as [`guard_in`] does, with room of its own.
pub fn guard<P: Packet, T: Tables>(packet: &P, moment: &Moment, tables: &T) -> bool {
    guard_in(packet, moment, tables, &mut Work::new())
}

/// Whether a packet may pass a device that is not the mesh device.
#[inline(always)]
pub fn guard_in<P: Packet, T: Tables>(packet: &P, moment: &Moment, tables: &T, work: &mut Work) -> bool {
    let settings = match moment.control {
        Control::UNPUBLISHED => None,
        control => tables.settings(control.bank()),
    };
    let Some(settings) = settings else {
        record::count(tables, moment, Reason::NotPublished, packet.length());
        return true;
    };
    let next = inspect(packet, moment, settings, tables, work);
    if next != GO_ON {
        return next == PASS;
    }
    if may_report_on_mesh(moment, settings, work) && reports(packet, moment, settings, tables, work) {
        return false;
    }
    settings.nic_flags & settings_flag::GOVERNS == 0 || nic::passes(packet, moment, settings, tables, work)
}

// What is below is not a part of `guard_in`, whose frame is in the deepest chain of calls.

/// The answer of [`inspect`]: the packet is dropped, and told.
const DROP: u32 = 0;
/// Nothing else is to be asked.
const PASS: u32 = 1;
/// Its addresses are no offence.
const GO_ON: u32 = 2;

/// Looks at the addresses of a packet.
#[inline(never)]
fn inspect<P: Packet, T: Tables>(
    packet: &P,
    moment: &Moment,
    settings: &Settings,
    tables: &T,
    work: &mut Work,
) -> u32 {
    let guards =
        matches!(moment.hook, Hook::GuardIngress) || settings.flags & settings_flag::GUARD_EGRESS != 0;
    if !guards && settings.nic_flags & settings_flag::GOVERNS == 0 {
        return PASS;
    }
    work.parsed = Parsed::new(moment.hook.direction());
    let reason = if hides_priority_tag(packet) {
        Reason::UnknownEtherType
    } else if !parse::parse_addresses(packet, &mut work.parsed) {
        return PASS;
    } else if guards {
        offence(tables, moment, settings, &work.parsed)
    } else {
        Reason::Forwarded
    };
    if matches!(reason, Reason::Forwarded) {
        return GO_ON;
    }
    work.verdict = Verdict::drop(reason);
    record::record(tables, packet, moment, &Outer::NONE, work);
    DROP
}

/// Whether a tag that carries a priority only stands below another. The kernel strips any number of them and delivers
/// what is below; no sender has a use for two. A frame of a VLAN reaches only that VLAN's device, which has a guard.
#[inline(always)]
fn hides_priority_tag<P: Packet>(packet: &P) -> bool {
    matches!(packet.ethertype(), ethertype::VLAN | ethertype::SERVICE_VLAN)
        && packet
            .load::<[u8; 2]>(0)
            .is_some_and(|tag| u32::from(u16::from_be_bytes(tag)) & ethertype::VLAN_ID == 0)
}

/// Whether a packet might report an error about one from this host's mesh address. Outside of the mesh only tunnels are
/// seen, never what is in them, so nobody there can know of one; the kernel would believe it, and change the path's MTU or
/// end a conversation. Behind a transit node's other devices are pods, which can know.
#[inline(always)]
fn may_report_on_mesh(moment: &Moment, settings: &Settings, work: &Work) -> bool {
    matches!(moment.hook, Hook::GuardIngress)
        && settings.flags & settings_flag::TRANSIT == 0
        && !matches!(work.parsed.key.protocol, protocol::TCP | protocol::UDP)
}

/// Whether a packet is an ICMP error that quotes one from this host's mesh address, or hides in a later fragment what it
/// quotes. If so, it is told.
#[inline(never)]
fn reports<P: Packet, T: Tables>(
    packet: &P,
    moment: &Moment,
    settings: &Settings,
    tables: &T,
    work: &mut Work,
) -> bool {
    if !quotes_own(packet, settings, work) {
        return false;
    }
    work.verdict = Verdict::drop(Reason::IcmpUnrelated);
    record::record(tables, packet, moment, &Outer::NONE, work);
    true
}

#[inline(always)]
fn quotes_own<P: Packet>(packet: &P, settings: &Settings, work: &mut Work) -> bool {
    let Work { parsed, quoted, .. } = work;
    if parse::parse(packet, parsed).is_err() || !matches!(parsed.part, Part::Error) {
        return false;
    }
    *quoted = Parsed::new(Direction::Egress);
    // Whatever is wrong behind the quoted addresses: the kernel looks at no more than ports.
    let _is_whole = parse::parse_quoted(packet, parsed, quoted);
    let source = *quoted.source();
    is_own(settings, source) || (source == Address::NONE && matches!(parsed.fragment, Fragment::First))
}

#[inline(always)]
fn offence<T: Tables>(tables: &T, moment: &Moment, settings: &Settings, parsed: &Parsed) -> Reason {
    if matches!(moment.hook, Hook::GuardEgress) {
        let leaves = is_mesh(tables, moment, *parsed.destination());
        return if leaves { Reason::GuardDestination } else { Reason::Forwarded };
    }
    if is_own(settings, *parsed.destination()) {
        Reason::GuardDestination
    } else if is_mesh(tables, moment, *parsed.source()) {
        Reason::GuardSource
    } else {
        Reason::Forwarded
    }
}

#[inline(always)]
fn is_mesh<T: Tables>(tables: &T, moment: &Moment, address: Address) -> bool {
    tables.prefix(&PrefixKey {
        prefix_len: CidrKey::BASE_BITS + 128,
        bank: moment.control.bank().number(),
        reserved: [0; 3],
        address,
    })
}

#[cfg(test)]
mod tests;
