//! The programs of every other device.

use aya_ebpf::{
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC},
    macros::classifier,
    programs::TcContext,
};
use datapath::{
    Moment,
    abi::{Control, Hook},
};

use crate::{
    skb::AnyPacket,
    stub,
    tables::{self, Desk, Maps},
};

/// Bare packets that arrive.
#[classifier]
pub(crate) fn guard_ingress(context: TcContext) -> i32 {
    guard(&context, Hook::GuardIngress, stub::handed_over(&context))
}

/// Packets that leave.
#[classifier]
pub(crate) fn guard_egress(context: TcContext) -> i32 {
    guard(&context, Hook::GuardEgress, stub::handed_over(&context))
}

#[inline(always)]
fn guard(context: &TcContext, hook: Hook, control: Control) -> i32 {
    let Some(Desk { now_ns, work, .. }) = tables::desk() else { return TC_ACT_UNSPEC };
    let moment = Moment { hook, control, now_ns };
    if datapath::guard_in(&AnyPacket::new(context), &moment, &Maps, work) {
        TC_ACT_UNSPEC
    } else {
        TC_ACT_SHOT
    }
}
