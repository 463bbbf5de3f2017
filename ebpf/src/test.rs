//! Programs for tests and measurements. Never attached.

use aya_ebpf::{
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC},
    macros::classifier,
    programs::TcContext,
};
use datapath::{
    Address, Direction, FlowTable, Outer, Reason, Tables as _, Verdict,
    parse::{self, Parsed},
};

use crate::{
    mesh::{egress, ingress},
    skb::MeshPacket,
    stub,
    tables::{self, Maps},
    tunnel,
};

mod rotation;

/// [`mesh_ingress`] with the outer facts from the control buffer (words 0–3 the outer source in network order, word
/// 4 the VNI): the kernel has no tunnel key for packets of a test run.
#[classifier]
pub(crate) fn test_mesh_ingress(context: TcContext) -> i32 {
    let [a, b, c, d, vni] = stub::control_buffer(&context);
    let words: [u32; 4] = [a, b, c, d];
    let Some(desk) = tables::desk() else { return TC_ACT_SHOT };
    ingress(&context, desk, tables::control(), &Outer { source: Address(zerocopy::transmute!(words)), vni })
}

/// [`mesh_egress`] that reports the tunnel and the mark it uses in the control buffer, in the same places.
#[classifier]
pub(crate) fn test_mesh_egress(context: TcContext) -> i32 {
    let Some(verdict) = egress(&context, tables::control()) else { return TC_ACT_SHOT };
    let [a, b, c, d]: [u32; 4] = zerocopy::transmute!(verdict.tunnel.0);
    stub::set_control_buffer(&context, [a, b, c, d, verdict.mark]);
    TC_ACT_UNSPEC
}

/// Only sends into the tunnel that the control buffer names: what the kernel's own part of egress costs.
#[classifier]
pub(crate) fn test_encapsulate(context: TcContext) -> i32 {
    let [a, b, c, d, mark] = stub::control_buffer(&context);
    let words: [u32; 4] = [a, b, c, d];
    let verdict =
        Verdict { mark, tunnel: Address(zerocopy::transmute!(words)), ..Verdict::drop(Reason::Forwarded) };
    let Some(desk) = tables::desk() else { return TC_ACT_SHOT };
    if tunnel::encapsulate(&context, desk.tunnel_key, &verdict) { TC_ACT_UNSPEC } else { TC_ACT_SHOT }
}

/// Does nothing: what a test run costs by itself.
#[classifier]
pub(crate) fn test_empty(_: TcContext) -> i32 {
    TC_ACT_UNSPEC
}

/// Parses the packet and looks up its flow, which is there.
#[classifier]
pub(crate) fn test_lookup(context: TcContext) -> i32 {
    look_up(&context, false)
}

/// As [`test_lookup`], and compares the outer facts of the control buffer with those of the flow.
#[classifier]
pub(crate) fn test_lookup_facts(context: TcContext) -> i32 {
    look_up(&context, true)
}

/// Does nothing but rotate: what that costs by itself.
#[classifier]
pub(crate) fn test_rotating_empty(context: TcContext) -> i32 {
    if rotation::turn(&context).is_some() { TC_ACT_UNSPEC } else { TC_ACT_SHOT }
}

/// [`test_mesh_ingress`] with another packet each time.
#[classifier]
pub(crate) fn test_rotating_ingress(context: TcContext) -> i32 {
    let (Some(outer), Some(desk)) = (rotation::turn(&context), tables::desk()) else { return TC_ACT_SHOT };
    ingress(&context, desk, tables::control(), &outer)
}

/// [`test_mesh_egress`] with another packet each time.
#[classifier]
pub(crate) fn test_rotating_egress(context: TcContext) -> i32 {
    if rotation::turn(&context).is_none() {
        return TC_ACT_SHOT;
    }
    egress(&context, tables::control()).map_or(TC_ACT_SHOT, |_| TC_ACT_UNSPEC)
}

#[inline(always)]
fn look_up(context: &TcContext, compares: bool) -> i32 {
    let [a, b, c, d, vni] = stub::control_buffer(context);
    let words: [u32; 4] = [a, b, c, d];
    let outer = Outer { source: Address(zerocopy::transmute!(words)), vni };
    let Some(desk) = tables::desk() else { return TC_ACT_SHOT };
    desk.work.parsed = Parsed::new(Direction::Ingress);
    let parsed = &mut desk.work.parsed;
    if parse::parse(&MeshPacket::new(context), parsed).is_err() {
        return TC_ACT_SHOT;
    }
    let Some(slot) = Maps.flow(FlowTable::Confirmed, &parsed.key) else { return TC_ACT_SHOT };
    if !compares || Maps.load(slot).came_from(&outer) { TC_ACT_UNSPEC } else { TC_ACT_SHOT }
}
