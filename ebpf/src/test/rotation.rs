//! Another packet for each repetition of a test run: a run on one packet alone finds all it reads in the cache.
//!
//! `skb->mark` counts the repetitions, the control buffer and `skb->priority` say what varies:
//!
//! | place | meaning |
//! |---|---|
//! | `cb[0]` | lower half: offset in the frame of a port (or of a fragment's identification); upper half: mask of its number |
//! | `cb[1]` | offset in the frame of the last four bytes of the peer's address |
//! | `cb[2]` | mask of the number of the peer |
//! | `cb[3]` | the outer source, IPv4 in network order |
//! | `cb[4]` | the identity of the first peer, which is also the VNI |
//! | `priority` | mask of the number of the identity |
#![expect(unsafe_code, reason = "the context is a raw pointer, and helpers read raw memory")]

use aya_ebpf::{helpers::bpf_skb_store_bytes, programs::TcContext};
use datapath::{Address, Outer};

use crate::stub;

/// Spreads consecutive packets over the peers; odd, so that it leaves none out.
const STRIDE: u32 = 40_503;

/// Makes the packet the next one, and returns the outer facts that go with it.
#[inline(always)]
pub(super) fn turn(context: &TcContext) -> Option<Outer> {
    let [port_site, peer_site, peers, source, identity] = stub::control_buffer(context);
    // SAFETY: the kernel passes a valid context; the mark is this program's to write.
    let (number, identities) = unsafe {
        let skb = &mut *context.skb.skb;
        let number = skb.mark;
        skb.mark = number.wrapping_add(1);
        (number & (port_site >> 16), skb.priority)
    };
    let peer = number.wrapping_mul(STRIDE) & peers;
    let [_, _, high, low] = number.to_be_bytes();
    let is_written = store(context, port_site & 0xffff, &[high, low])
        && store(context, peer_site, &(peer | BASE).to_be_bytes());
    is_written.then(|| Outer {
        source: Address::from_v4(source.to_ne_bytes()),
        vni: identity + (peer & identities),
    })
}

/// The last four bytes of the first peer's address: `10.64.0.0`.
const BASE: u32 = 0x0a40_0000;

#[inline(always)]
fn store<const N: usize>(context: &TcContext, offset: u32, bytes: &[u8; N]) -> bool {
    #[expect(
        clippy::as_conversions,
        clippy::cast_possible_truncation,
        reason = "2 or 4; `From` is not const"
    )]
    let length = const { N as u32 };
    // SAFETY: the helper reads as many bytes as there are.
    unsafe { bpf_skb_store_bytes(context.skb.skb.cast(), offset, bytes.as_ptr().cast(), length, 0) == 0 }
}
