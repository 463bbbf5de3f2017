//! Socket buffers as the `Packet` of the datapath.
#![expect(unsafe_code, reason = "the context is a raw pointer, and helpers write to raw memory")]

use core::mem::MaybeUninit;

use aya_ebpf::{
    bindings::{__sk_buff, bpf_hdr_start_off::BPF_HDR_START_NET},
    helpers::{bpf_skb_load_bytes, bpf_skb_load_bytes_relative},
    programs::TcContext,
};
use datapath::{Packet, ethertype};
use zerocopy::{FromBytes, IntoBytes as _};

/// Bytes of an Ethernet header.
const ETHERNET: u32 = 14;
/// Where headers stand, from the Ethernet header on: the network's, and the transport's behind a plain one.
const NETWORK: usize = 14;
const BEHIND_IPV4: usize = NETWORK + 20;
const BEHIND_IPV6: usize = NETWORK + 40;

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
    fn arrived_by(&self) -> u32 {
        // SAFETY: the kernel passes a valid context.
        unsafe { (*self.context).ingress_ifindex }
    }

    #[inline(always)]
    fn segment_size(&self) -> u32 {
        // SAFETY: the kernel passes a valid context.
        unsafe { (*self.context).gso_size }
    }

    #[inline(always)]
    fn load<T: FromBytes>(&self, offset: u32) -> Option<T> {
        // Where headers stand but for options, the bytes are read in place: a helper costs more than all of them.
        let direct = match offset {
            0 => self.load_at::<NETWORK, T>(),
            20 => self.load_at::<BEHIND_IPV4, T>(),
            40 => self.load_at::<BEHIND_IPV6, T>(),
            _ => None,
        };
        if direct.is_some() { direct } else { self.load_copied(offset) }
    }
}

impl MeshPacket {
    /// Copies by a helper, which also reaches what is not in the linear part of the packet.
    #[inline(always)]
    fn load_copied<T: FromBytes>(&self, offset: u32) -> Option<T> {
        let mut bytes = MaybeUninit::<T>::uninit();
        let size = const { size::<T>() };
        // SAFETY: the helper writes exactly the size of `T` to the buffer, or nothing and fails.
        let result = unsafe {
            bpf_skb_load_bytes(self.context.cast(), ETHERNET + offset, bytes.as_mut_ptr().cast(), size)
        };
        // SAFETY: the helper initialised it, and any bytes are a `T`.
        (result == 0).then(|| unsafe { bytes.assume_init() })
    }

    /// Reads whole words in place, from the Ethernet header on; `None` for anything else, and if the linear part ends
    /// before.
    #[inline(always)]
    fn load_at<const AT: usize, T: FromBytes>(&self) -> Option<T> {
        if const { !size_of::<T>().is_multiple_of(4) || size_of::<T>() > HEADER_WORDS * 4 } {
            return None;
        }
        // SAFETY: the kernel passes a valid context.
        let (start, end) = unsafe { ((*self.context).data, (*self.context).data_end) };
        let (start, end) = (address(start), address(end));
        if start + AT + size_of::<T>() > end {
            return None;
        }
        let mut words = [0_u32; HEADER_WORDS];
        for (number, word) in words.iter_mut().take(const { size_of::<T>() / 4 }).enumerate() {
            // SAFETY: the comparison above covers it, and proves it to the verifier.
            *word = unsafe { packet_word(start + AT + number * 4) };
        }
        T::read_from_prefix(words.as_bytes()).ok().map(|(value, _)| value)
    }
}

/// The largest header, of IPv6, in words.
const HEADER_WORDS: usize = 10;

/// Reads a word of the packet, which has no alignment: the kernels that run this read any address.
///
/// # Safety
/// The address is within the packet.
#[inline(always)]
#[cfg(target_arch = "bpf")]
unsafe fn packet_word(address: usize) -> u32 {
    let word: u64;
    // SAFETY: a load, of what the caller vouches for; the upper half of the register is zero.
    unsafe {
        core::arch::asm!("{word} = *(u32 *)({address} + 0)", word = out(reg) word, address = in(reg) address,
            options(readonly, nostack, preserves_flags));
    }
    let [low, _]: [u32; 2] = zerocopy::transmute!(word);
    low
}

/// As above, for checks on a host.
///
/// # Safety
/// The address is within the packet.
#[inline(always)]
#[cfg(not(target_arch = "bpf"))]
unsafe fn packet_word(address: usize) -> u32 {
    // SAFETY: as above.
    unsafe { core::ptr::with_exposed_provenance::<u32>(address).read_unaligned() }
}

#[expect(clippy::as_conversions, reason = "the context holds addresses in fields of 32 bits")]
#[inline(always)]
const fn address(field: u32) -> usize {
    field as usize
}

impl Packet for AnyPacket {
    #[inline(always)]
    fn arrived_by(&self) -> u32 {
        // SAFETY: the kernel passes a valid context.
        unsafe { (*self.context).ingress_ifindex }
    }

    #[inline(always)]
    fn ethertype(&self) -> u16 {
        // SAFETY: the kernel passes a valid context.
        let (has_tag, tag) = unsafe { ((*self.context).vlan_present, (*self.context).vlan_tci) };
        // Tags of VLAN 0 carry a priority only; what is below is delivered to this device.
        if has_tag != 0 && tag & ethertype::VLAN_ID != 0 { 0 } else { protocol(self.context) }
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
    let has_tag = unsafe { (*context).vlan_present };
    if has_tag == 0 { protocol(context) } else { 0 }
}

#[inline(always)]
fn protocol(context: *mut __sk_buff) -> u16 {
    // SAFETY: the kernel passes a valid context.
    let [first, second, ..] = unsafe { (*context).protocol }.to_ne_bytes();
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
