//! Socket buffers as the `Packet` of the datapath.
#![expect(unsafe_code, reason = "the context is a raw pointer, and helpers write to raw memory")]

use core::mem::MaybeUninit;

use aya_ebpf::{
    bindings::{__sk_buff, bpf_hdr_start_off::BPF_HDR_START_NET},
    helpers::{bpf_skb_load_bytes, bpf_skb_load_bytes_relative},
    programs::TcContext,
};
use datapath::Packet;
use zerocopy::FromBytes;

/// Bytes of an Ethernet header.
const ETHERNET: u32 = 14;

/// A packet of the mesh device, which has Ethernet headers.
pub(crate) struct MeshPacket {
    context: *mut __sk_buff,
}

/// A packet of any device, with or without a header below the network's. Its length is that of the whole frame.
pub(crate) struct AnyPacket {
    context: *mut __sk_buff,
}

impl MeshPacket {
    /// The packet of a context.
    #[inline(always)]
    pub(crate) fn new(context: &TcContext) -> Self {
        Self { context: context.skb.skb }
    }
}

impl AnyPacket {
    /// The packet of a context.
    #[inline(always)]
    pub(crate) fn new(context: &TcContext) -> Self {
        Self { context: context.skb.skb }
    }
}

impl Packet for MeshPacket {
    #[inline(always)]
    fn ethertype(&self) -> u16 {
        ethertype(self.context)
    }

    #[inline(always)]
    fn length(&self) -> u32 {
        length(self.context).wrapping_sub(ETHERNET)
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        ifindex(self.context)
    }

    #[inline(always)]
    fn load<T: FromBytes>(&self, offset: u32) -> Option<T> {
        let mut bytes = MaybeUninit::<T>::uninit();
        let size = const { size::<T>() };
        // SAFETY: the helper writes exactly the size of `T` to the buffer, or nothing and fails.
        let result = unsafe {
            bpf_skb_load_bytes(self.context.cast(), ETHERNET + offset, bytes.as_mut_ptr().cast(), size)
        };
        // SAFETY: the helper initialised it, and any bytes are a `T`.
        (result == 0).then(|| unsafe { bytes.assume_init() })
    }
}

impl Packet for AnyPacket {
    #[inline(always)]
    fn ethertype(&self) -> u16 {
        // A VLAN device has its own guard; what a tag hides is not delivered by this one.
        ethertype(self.context)
    }

    #[inline(always)]
    fn length(&self) -> u32 {
        length(self.context)
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        ifindex(self.context)
    }

    #[inline(always)]
    fn load<T: FromBytes>(&self, offset: u32) -> Option<T> {
        let mut bytes = MaybeUninit::<T>::uninit();
        let (size, start) = (const { size::<T>() }, BPF_HDR_START_NET);
        // SAFETY: the helper writes exactly the size of `T` to the buffer, or nothing and fails.
        let result = unsafe {
            bpf_skb_load_bytes_relative(self.context.cast(), offset, bytes.as_mut_ptr().cast(), size, start)
        };
        // SAFETY: the helper initialised it, and any bytes are a `T`.
        (result == 0).then(|| unsafe { bytes.assume_init() })
    }
}

#[expect(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    reason = "header sizes; `From` is not const"
)]
const fn size<T>() -> u32 {
    size_of::<T>() as u32
}

#[inline(always)]
fn ethertype(context: *mut __sk_buff) -> u16 {
    // SAFETY: the kernel passes a valid context.
    let (protocol, has_vlan) = unsafe { ((*context).protocol, (*context).vlan_present) };
    if has_vlan != 0 {
        return 0;
    }
    let [first, second, ..] = protocol.to_ne_bytes();
    u16::from_be_bytes([first, second])
}

#[inline(always)]
fn length(context: *mut __sk_buff) -> u32 {
    // SAFETY: the kernel passes a valid context.
    unsafe { (*context).len }
}

#[inline(always)]
fn ifindex(context: *mut __sk_buff) -> u32 {
    // SAFETY: the kernel passes a valid context.
    unsafe { (*context).ifindex }
}
