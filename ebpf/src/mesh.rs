//! The programs of the mesh device.

use aya_ebpf::{
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC},
    macros::classifier,
    programs::TcContext,
};
use datapath::{
    Address, Moment, Outer, Reason, Tables as _, Verdict,
    abi::{Control, Hook, counter_slot},
};

use crate::{
    relay,
    skb::MeshPacket,
    stub,
    tables::{self, Desk, Maps},
    tunnel,
};

/// Packets from the tunnel.
#[classifier]
pub(crate) fn mesh_ingress(context: TcContext) -> i32 {
    let outer = tunnel::outer(&context);
    ingress(&context, stub::handed_over(&context), &outer)
}

/// Packets into the tunnel.
#[classifier]
pub(crate) fn mesh_egress(context: TcContext) -> i32 {
    egress(&context, stub::handed_over(&context)).map_or(TC_ACT_SHOT, |_| TC_ACT_UNSPEC)
}

/// [`mesh_ingress`] with the outer facts from the control buffer (words 0–3 the outer source in network order, word
/// 4 the VNI): the kernel has no tunnel key for packets of a test run. Never attached.
#[classifier]
pub(crate) fn test_mesh_ingress(context: TcContext) -> i32 {
    let [a, b, c, d, vni] = stub::control_buffer(&context);
    let words: [u32; 4] = [a, b, c, d];
    ingress(&context, tables::control(), &Outer { source: Address(zerocopy::transmute!(words)), vni })
}

/// [`mesh_egress`] that reports the tunnel and the mark it uses in the control buffer, in the same places. Never
/// attached.
#[classifier]
pub(crate) fn test_mesh_egress(context: TcContext) -> i32 {
    let Some(verdict) = egress(&context, tables::control()) else { return TC_ACT_SHOT };
    let [a, b, c, d]: [u32; 4] = zerocopy::transmute!(verdict.tunnel.0);
    stub::set_control_buffer(&context, [a, b, c, d, verdict.mark]);
    TC_ACT_UNSPEC
}

/// Only sends into the tunnel that the control buffer names: what the kernel's own part of egress costs. Never
/// attached.
#[classifier]
pub(crate) fn test_encapsulate(context: TcContext) -> i32 {
    let [a, b, c, d, mark] = stub::control_buffer(&context);
    let words: [u32; 4] = [a, b, c, d];
    let verdict =
        Verdict { mark, tunnel: Address(zerocopy::transmute!(words)), ..Verdict::drop(Reason::Forwarded) };
    if tunnel::encapsulate(&context, &verdict) { TC_ACT_UNSPEC } else { TC_ACT_SHOT }
}

/// Does nothing: what a test run costs by itself. Never attached.
#[classifier]
pub(crate) fn test_empty(_: TcContext) -> i32 {
    TC_ACT_UNSPEC
}

#[inline(always)]
fn ingress(context: &TcContext, control: Control, outer: &Outer) -> i32 {
    let Some(Desk { now_ns, work }) = tables::desk() else { return TC_ACT_SHOT };
    let moment = Moment { hook: Hook::MeshIngress, control, now_ns };
    if !datapath::decide_in(&MeshPacket::new(context), outer, &moment, &Maps, work) {
        return TC_ACT_SHOT;
    }
    if matches!(work.verdict.reason, Reason::Relayed) {
        return relay::to_egress(context).unwrap_or(TC_ACT_SHOT);
    }
    if tunnel::deliver(context) { TC_ACT_UNSPEC } else { TC_ACT_SHOT }
}

#[inline(always)]
fn egress(context: &TcContext, control: Control) -> Option<&'static Verdict> {
    let Desk { now_ns, work } = tables::desk()?;
    let moment = Moment { hook: Hook::MeshEgress, control, now_ns };
    if !datapath::decide_in(&MeshPacket::new(context), &Outer::NONE, &moment, &Maps, work) {
        return None;
    }
    if !tunnel::encapsulate(context, &work.verdict) {
        Maps.count(counter_slot(Hook::MeshEgress, Reason::TunnelKeyRefused), context.len());
        return None;
    }
    Some(&work.verdict)
}
