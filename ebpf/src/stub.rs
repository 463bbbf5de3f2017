//! The stubs on the hooks: read the control word once, hand it on, call the program of the set it names.
#![expect(unsafe_code, reason = "a tail call leaves this program, and the context is a raw pointer")]

use aya_ebpf::{
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC},
    macros::classifier,
    programs::TcContext,
};
use datapath::{
    Reason, Tables as _,
    abi::{Control, Hook, counter_slot},
};

use crate::{
    maps::PROGRAMS,
    tables::{self, Maps},
};

/// Attached to the ingress of the mesh device.
#[classifier]
pub(crate) fn stub_mesh_ingress(context: TcContext) -> i32 {
    call(&context, Hook::MeshIngress);
    TC_ACT_SHOT
}

/// Attached to the egress of the mesh device.
#[classifier]
pub(crate) fn stub_mesh_egress(context: TcContext) -> i32 {
    call(&context, Hook::MeshEgress);
    TC_ACT_SHOT
}

/// Attached to the ingress of every other device. A host is never locked out: without a program packets pass.
#[classifier]
pub(crate) fn stub_guard_ingress(context: TcContext) -> i32 {
    call(&context, Hook::GuardIngress);
    TC_ACT_UNSPEC
}

/// Attached to the egress of every other device.
#[classifier]
pub(crate) fn stub_guard_egress(context: TcContext) -> i32 {
    call(&context, Hook::GuardEgress);
    TC_ACT_UNSPEC
}

/// Returns only if there is no program to call.
#[inline(always)]
fn call(context: &TcContext, hook: Hook) {
    let control = tables::control();
    hand_over(context, control);
    // SAFETY: the programs of this array expect this context and the word handed over.
    unsafe { PROGRAMS.tail_call(context, hook.program_index(control.program_set())) };
    Maps.count(counter_slot(hook, Reason::MissedTailCall), length(context));
}

#[inline(always)]
fn length(context: &TcContext) -> u32 {
    context.len()
}

#[inline(always)]
fn hand_over(context: &TcContext, control: Control) {
    // SAFETY: the kernel passes a valid context, and the control buffer is this program's to write.
    unsafe { (*context.skb.skb).cb[0] = control.0 }
}

/// The word the stub handed over.
#[inline(always)]
pub(crate) fn handed_over(context: &TcContext) -> Control {
    let [word, ..] = control_buffer(context);
    Control(word)
}

/// The control buffer.
#[inline(always)]
pub(crate) fn control_buffer(context: &TcContext) -> [u32; 5] {
    // SAFETY: the kernel passes a valid context.
    unsafe {
        let skb = &*context.skb.skb;
        [skb.cb[0], skb.cb[1], skb.cb[2], skb.cb[3], skb.cb[4]]
    }
}

/// Writes the control buffer.
#[inline(always)]
pub(crate) fn set_control_buffer(context: &TcContext, words: [u32; 5]) {
    // SAFETY: as in `hand_over`.
    unsafe {
        let skb = &mut *context.skb.skb;
        skb.cb[0] = words[0];
        skb.cb[1] = words[1];
        skb.cb[2] = words[2];
        skb.cb[3] = words[3];
        skb.cb[4] = words[4];
    }
}
