//! Counters and the state of event sampling: per-CPU arrays with one slot per hook and reason.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::Hook;
use crate::Reason;

/// Slots of `COUNTERS` and of `SAMPLING`: 64 reasons for each of the four hooks.
pub const COUNTER_SLOTS: u32 = Hook::COUNT * REASONS_PER_HOOK;
const REASONS_PER_HOOK: u32 = 64;

/// The slot of a hook and reason in `COUNTERS` and `SAMPLING`: `hook * 64 + reason`.
#[must_use]
#[inline(always)]
#[expect(clippy::as_conversions, reason = "`From` is not const; both enums are one byte")]
pub const fn counter_slot(hook: Hook, reason: Reason) -> u32 {
    (hook as u32) * REASONS_PER_HOOK + (reason as u32)
}

/// Value of `COUNTERS` (per-CPU array, [`COUNTER_SLOTS`] slots, index [`counter_slot`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Counter {
    /// Packets.
    pub packets: u64,
    /// Their bytes from the network header on.
    pub bytes: u64,
}

/// Value of `SAMPLING` (per-CPU array, [`COUNTER_SLOTS`] slots, index [`counter_slot`]): a token bucket as the time
/// at which it will be full again. Zero is a full bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Bucket {
    /// Nanoseconds of the monotonic clock at which the bucket is full.
    pub full_at_ns: u64,
    /// Events left out since the last one that was sent.
    pub suppressed: u32,
    /// Zero.
    pub reserved: u32,
}
