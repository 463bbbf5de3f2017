//! The programs of the mesh device.

use aya_ebpf::{
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC},
    macros::classifier,
    programs::TcContext,
};
use datapath::{
    Moment, Outer, Reason, Tables as _, Verdict,
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
    let Some(desk) = tables::desk() else { return TC_ACT_SHOT };
    let outer = tunnel::outer(&context, desk.tunnel_key);
    ingress(&context, desk, stub::handed_over(&context), &outer)
}

/// Packets into the tunnel.
#[classifier]
pub(crate) fn mesh_egress(context: TcContext) -> i32 {
    egress(&context, stub::handed_over(&context)).map_or(TC_ACT_SHOT, |_| TC_ACT_UNSPEC)
}

#[inline(always)]
pub(crate) fn ingress(context: &TcContext, desk: Desk, control: Control, outer: &Outer) -> i32 {
    let Desk { now_ns, work, tunnel_key: _ } = desk;
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
pub(crate) fn egress(context: &TcContext, control: Control) -> Option<&'static Verdict> {
    let Desk { now_ns, work, tunnel_key } = tables::desk()?;
    let moment = Moment { hook: Hook::MeshEgress, control, now_ns };
    if !datapath::decide_in(&MeshPacket::new(context), &Outer::NONE, &moment, &Maps, work) {
        return None;
    }
    if !tunnel::encapsulate(context, tunnel_key, &work.verdict) {
        Maps.count(counter_slot(Hook::MeshEgress, Reason::TunnelKeyRefused), context.len());
        return None;
    }
    Some(&work.verdict)
}
