//! The guard on every other device: the mesh is reached through the mesh device or not at all.
//!
//! A host with the weak host model accepts a bare packet to its mesh address on any device, past all policy. What
//! the guard cannot read passes: the kernel will refuse it, and a host must never be locked out.

use crate::{
    Address, Direction, Moment, Outer, Packet, Reason, Tables, Verdict, Work,
    abi::{CidrKey, Control, Hook, PrefixKey, Settings, settings_flag},
    ethertype,
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
    if matches!(moment.hook, Hook::GuardEgress) && settings.flags & settings_flag::GUARD_EGRESS == 0 {
        return true;
    }
    work.parsed = Parsed::new(moment.hook.direction());
    let reason = if hides_priority_tag(packet) {
        Reason::UnknownEtherType
    } else if !parse::parse_addresses(packet, &mut work.parsed) {
        return true;
    } else {
        let offence = offence(tables, moment, settings, &work.parsed);
        let is_clean = matches!(offence, Reason::Forwarded);
        if is_clean && reports_on_mesh(packet, moment, settings, work) {
            Reason::IcmpUnrelated
        } else {
            offence
        }
    };
    if matches!(reason, Reason::Forwarded) {
        return true;
    }
    work.verdict = Verdict::drop(reason);
    record::record(tables, packet, moment, &Outer::NONE, work);
    false
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

/// Whether a packet reports an error about one from this host's mesh address. Outside of the mesh only tunnels are seen,
/// never what is in them, so nobody there can know of one; the kernel would believe it, and change the path's MTU or end
/// a conversation. Behind a transit node's other devices are pods, which can know.
#[inline(always)]
fn reports_on_mesh<P: Packet>(packet: &P, moment: &Moment, settings: &Settings, work: &mut Work) -> bool {
    matches!(moment.hook, Hook::GuardIngress)
        && settings.flags & settings_flag::TRANSIT == 0
        && !matches!(work.parsed.key.protocol, protocol::TCP | protocol::UDP)
        && quotes_own(packet, settings, work)
}

/// Whether a packet is an ICMP error that quotes one from this host's mesh address, or hides in a later fragment what it
/// quotes.
#[inline(never)]
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
