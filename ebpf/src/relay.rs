//! Sending on what is for another tunnel, without the kernel's own forwarding: connection tracking and firewalls of a
//! transit node would see one direction only.
#![expect(unsafe_code, reason = "a redirect is a helper call")]

use aya_ebpf::{
    bindings::{BPF_F_RECOMPUTE_CSUM, TC_ACT_REDIRECT},
    helpers::bpf_redirect,
    programs::TcContext,
};
use datapath::ethertype;

/// Where it stands, from the Ethernet header on: hops and protocol of IPv4, the checksum of that header, hops of IPv6.
const HOPS_V4: usize = 14 + 8;
const CHECKSUM_V4: usize = 14 + 10;
const HOPS_V6: usize = 14 + 7;

/// Takes a hop from a packet and sends it to the egress of the device it came by, which encapsulates it. The decision
/// found that it has a hop to give.
#[inline(always)]
pub(crate) fn to_egress(context: &TcContext) -> Option<i32> {
    let mut context = TcContext::new(context.skb.skb);
    // SAFETY: the kernel passes a valid context.
    let (ifindex, protocol) = unsafe { ((*context.skb.skb).ifindex, (*context.skb.skb).protocol) };
    if protocol == u32::from(ethertype::IPV4.to_be()) {
        take_hop_v4(&mut context)?;
    } else {
        take_hop_v6(&mut context)?;
    }
    // SAFETY: the helper only notes the device.
    let action = unsafe { bpf_redirect(ifindex, 0) };
    (action == i64::from(TC_ACT_REDIRECT)).then_some(TC_ACT_REDIRECT)
}

#[inline(always)]
fn take_hop_v4(context: &mut TcContext) -> Option<()> {
    let [hops, protocol] = context.load::<[u8; 2]>(HOPS_V4).ok()?;
    let (old, new) = ([hops, protocol], [hops.wrapping_sub(1), protocol]);
    let word = |bytes| u64::from(u16::from_ne_bytes(bytes));
    context.l3_csum_replace(CHECKSUM_V4, word(old), word(new), 2).ok()?;
    context.store(HOPS_V4, &new, 0).ok()
}

#[inline(always)]
fn take_hop_v6(context: &mut TcContext) -> Option<()> {
    let hops = context.load::<u8>(HOPS_V6).ok()?;
    context.store(HOPS_V6, &hops.wrapping_sub(1), u64::from(BPF_F_RECOMPUTE_CSUM)).ok()
}
