//! The BPF programs of Outrigger: maps, and shims from the kernel's contexts to the `datapath` crate, which decides.
//!
//! Stubs stay attached to the hooks for good. Each reads the control word and tail-calls the program of its hook in
//! the set that the word names, so that one store switches tables and programs on all hooks together.
//!
//! What crosses the boundary of a function that is not inlined is a scalar or a reference: the verifier refuses a
//! function that leaves a pointer to its caller's stack in the register of its result, which one that returns a
//! struct or nothing may do.
#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(asm_experimental_arch))]
#![cfg_attr(target_arch = "bpf", expect(unstable_features, reason = "`aya-ebpf` needs the same one"))]
#![expect(clippy::needless_pass_by_value, reason = "programs take their context by value")]
#![expect(clippy::inline_always, reason = "the verifier follows calls at a price; what is small has none")]

mod guard;
mod maps;
mod mesh;
mod relay;
mod skb;
mod stub;
mod tables;
mod test;
mod tunnel;

/// The kernel checks this against the helpers that are used.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
#[expect(unsafe_code, reason = "the loader finds the license by section and symbol")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// Nothing here panics; the verifier would refuse a program that could get here.
#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// On a host the programs are only checked.
#[cfg(not(target_arch = "bpf"))]
fn main() {}
