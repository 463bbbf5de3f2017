//! Tunnel keys: the outer facts of a packet that came, and where one goes.
#![expect(unsafe_code, reason = "helpers read and write raw memory")]

use core::mem::offset_of;

use aya_ebpf::{
    bindings::{
        __sk_buff, BPF_F_DONT_FRAGMENT, BPF_F_TUNINFO_IPV6, BPF_F_ZERO_CSUM_TX, bpf_tunnel_key,
        bpf_tunnel_key__bindgen_ty_1, bpf_tunnel_key__bindgen_ty_2, bpf_tunnel_key__bindgen_ty_3,
    },
    helpers::{bpf_skb_change_type, bpf_skb_get_tunnel_key, bpf_skb_set_tunnel_key},
    programs::TcContext,
};
use datapath::{Address, Outer, Verdict};

/// The whole key. The kernel copies a shorter one to the stack and back, byte by byte.
#[expect(clippy::as_conversions, clippy::cast_possible_truncation, reason = "44; `From` is not const")]
const KEY_SIZE: u32 = size_of::<bpf_tunnel_key>() as u32;
/// Without the local address, which kernels before 5.19 do not know: they refuse a longer key at once.
#[expect(clippy::as_conversions, clippy::cast_possible_truncation, reason = "28; `From` is not const")]
const OLD_KEY_SIZE: u32 = offset_of!(bpf_tunnel_key, __bindgen_anon_3) as u32;
const INVALID: i64 = -22;
const TTL: u8 = 64;
const PACKET_HOST: u32 = 0;

/// The outer facts of a packet; [`Outer::NONE`] if it did not come through a tunnel.
#[inline(always)]
pub(crate) fn outer(context: &TcContext, key: &mut bpf_tunnel_key) -> Outer {
    if get(context.skb.skb, key, 0) {
        // SAFETY: plain integers; the kernel writes the address of an IPv4 tunnel in the machine's order.
        let address = unsafe { key.__bindgen_anon_1.remote_ipv4 };
        return Outer { source: Address::from_v4(address.to_be_bytes()), vni: key.tunnel_id };
    }
    if get(context.skb.skb, key, BPF_F_TUNINFO_IPV6) {
        // SAFETY: plain integers; the kernel writes the address of an IPv6 tunnel in network order.
        let words = unsafe { key.__bindgen_anon_1.remote_ipv6 };
        return Outer { source: Address(zerocopy::transmute!(words)), vni: key.tunnel_id };
    }
    Outer::NONE
}

#[inline(always)]
fn get(context: *mut __sk_buff, key: &mut bpf_tunnel_key, flags: u32) -> bool {
    // SAFETY: the helper writes as many bytes of the key as it is told.
    unsafe {
        let result = bpf_skb_get_tunnel_key(context, key, KEY_SIZE, u64::from(flags));
        let result = if result == INVALID {
            bpf_skb_get_tunnel_key(context, key, OLD_KEY_SIZE, u64::from(flags))
        } else {
            result
        };
        result == 0
    }
}

/// Lets the stack accept a packet whose destination MAC is another host's.
#[inline(always)]
pub(crate) fn deliver(context: &TcContext) -> bool {
    // SAFETY: the helper changes only the packet's type.
    unsafe { bpf_skb_change_type(context.skb.skb, PACKET_HOST) == 0 }
}

/// Sends a packet into the tunnel that a verdict names.
#[inline(always)]
pub(crate) fn encapsulate(context: &TcContext, key: &mut bpf_tunnel_key, verdict: &Verdict) -> bool {
    *key = empty_key();
    key.tunnel_id = verdict.mark;
    key.tunnel_ttl = TTL;
    let flags = if verdict.tunnel.is_v4() {
        key.__bindgen_anon_1.remote_ipv4 = u32::from_be_bytes(verdict.tunnel.v4_octets());
        BPF_F_ZERO_CSUM_TX | BPF_F_DONT_FRAGMENT
    } else {
        key.__bindgen_anon_1.remote_ipv6 = zerocopy::transmute!(verdict.tunnel.0);
        BPF_F_TUNINFO_IPV6 | BPF_F_DONT_FRAGMENT
    };
    // SAFETY: the helper reads as many bytes of the key as it is told.
    unsafe {
        let flags = u64::from(flags);
        bpf_skb_set_tunnel_key(context.skb.skb, key, KEY_SIZE, flags) == 0
            || bpf_skb_set_tunnel_key(context.skb.skb, key, OLD_KEY_SIZE, flags) == 0
    }
}

#[inline(always)]
const fn empty_key() -> bpf_tunnel_key {
    bpf_tunnel_key {
        tunnel_id: 0,
        __bindgen_anon_1: bpf_tunnel_key__bindgen_ty_1 { remote_ipv6: [0; 4] },
        tunnel_tos: 0,
        tunnel_ttl: 0,
        __bindgen_anon_2: bpf_tunnel_key__bindgen_ty_2 { tunnel_ext: 0 },
        tunnel_label: 0,
        __bindgen_anon_3: bpf_tunnel_key__bindgen_ty_3 { local_ipv6: [0; 4] },
    }
}
