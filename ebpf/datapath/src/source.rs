//! The source check: does the tunnel endpoint speak for the inner source?

use crate::{
    Address, Outer, Reason, Tables,
    abi::{Bank, EndpointEntry, EndpointKey, TunnelKey, endpoint_flag},
};

/// The identity of transit nodes; what they originate carries it.
pub(crate) const REMOTE_NODE: u32 = 6;

/// The endpoint that has an address. Out of line, as [`may_send`] is: callers have little stack left.
#[inline(never)]
pub(crate) fn endpoint<'t, T: Tables>(
    tables: &'t T,
    bank: Bank,
    address: &Address,
) -> Option<&'t EndpointEntry> {
    entry(tables, bank, address)
}

#[inline(always)]
fn entry<'t, T: Tables>(tables: &'t T, bank: Bank, address: &Address) -> Option<&'t EndpointEntry> {
    tables.endpoint(&EndpointKey { bank: bank.number(), reserved: [0; 3], address: *address })
}

/// The endpoint that has an address and is reached through a tunnel.
///
/// # Errors
/// [`Reason::UnknownDestination`] if there is none.
#[inline(always)]
pub(crate) fn destination<'t, T: Tables>(
    tables: &'t T,
    bank: Bank,
    address: &Address,
) -> Result<&'t EndpointEntry, Reason> {
    match entry(tables, bank, address) {
        Some(entry) if entry.tunnel != Address::NONE => Ok(entry),
        _ => Err(Reason::UnknownDestination),
    }
}

/// Whether packets of an endpoint may come from a tunnel endpoint.
#[inline(never)]
pub(crate) fn may_send<T: Tables>(tables: &T, bank: Bank, entry: &EndpointEntry, outer: &Address) -> bool {
    speaks_for(tables, bank, entry, outer)
}

#[inline(always)]
fn speaks_for<T: Tables>(tables: &T, bank: Bank, entry: &EndpointEntry, outer: &Address) -> bool {
    if *outer == Address::NONE || entry.flags & endpoint_flag::OWN != 0 {
        return false;
    }
    if entry.tunnel_set == 0 {
        return entry.tunnel == *outer;
    }
    tables.tunnel(&TunnelKey {
        bank: bank.number(),
        reserved: [0; 3],
        set: entry.tunnel_set,
        address: *outer,
    })
}

/// Whether an endpoint may carry a VNI: that of its identity, of what senders for it are told to write, or of what
/// some of them may still write while it is relabelled.
#[inline(always)]
pub(crate) fn may_claim(entry: &EndpointEntry, vni: u32) -> bool {
    vni != 0 && (vni == entry.identity || vni == entry.previous || vni == entry.mark)
}

/// The full check of a packet's outer facts against the table.
///
/// # Errors
/// [`Reason::UnknownSource`] without an entry, [`Reason::Spoofed`] where the tunnel contradicts it.
#[inline(always)]
pub(crate) fn check<'t, T: Tables>(
    tables: &'t T,
    bank: Bank,
    source: &Address,
    outer: &Outer,
) -> Result<&'t EndpointEntry, Reason> {
    let Some(entry) = entry(tables, bank, source) else { return Err(Reason::UnknownSource) };
    if speaks_for(tables, bank, entry, &outer.source) && may_claim(entry, outer.vni) {
        Ok(entry)
    } else {
        Err(Reason::Spoofed)
    }
}
