//! The BPF programs in the kernel against the host build.

use std::cell::RefCell;
use std::convert::Infallible;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _, TryRng};

use crate::prog_test::batch::batch;
use crate::prog_test::kernel::Kernel;

/// How many packets an input stands for: no more than the events that a full bucket of the sampling holds.
const PACKETS: u32 = 96;

thread_local! {
    static KERNEL: RefCell<Option<Kernel>> = const { RefCell::new(None) };
}

/// Whatever the tables and the frames: `BPF_PROG_TEST_RUN` of the programs and the host build let the same packets
/// pass, by the same route, and write the same events, counters, flows and fragments. Needs root and the BPF object.
///
/// # Panics
///
/// If that is not so.
pub fn kernel(data: &[u8]) {
    KERNEL.with_borrow_mut(|kernel| {
        let kernel = kernel.get_or_insert_with(|| Kernel::load().unwrap());
        if let Err(difference) = batch(kernel, &mut Numbers::of(data), PACKETS) {
            panic!("{difference:#}");
        }
    });
}

/// The input as random numbers; what follows after its end depends on it too.
struct Numbers<'a> {
    rest: &'a [u8],
    more: StdRng,
}

impl<'a> Numbers<'a> {
    fn of(data: &'a [u8]) -> Self {
        // FNV-1a.
        let hash = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        Self { rest: data, more: StdRng::seed_from_u64(data.iter().fold(0xcbf2_9ce4_8422_2325, hash)) }
    }
}

impl TryRng for Numbers<'_> {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let Some((number, rest)) = self.rest.split_first_chunk() else { return Ok(self.more.next_u32()) };
        self.rest = rest;
        Ok(u32::from_le_bytes(*number))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(u64::from(self.try_next_u32()?) << 32 | u64::from(self.try_next_u32()?))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for byte in bytes {
            [*byte, ..] = self.try_next_u32()?.to_le_bytes();
        }
        Ok(())
    }
}
