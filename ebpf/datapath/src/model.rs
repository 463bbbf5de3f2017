//! The maps and packets on a host without a kernel: what tests, fuzzers and oracles decide with.
//!
//! Capacity is part of the meaning: maps that evict do so here, strictly by the time of use, where the kernel's
//! choice is only close to that. Banked tables are plain `BTreeMap`s to fill.

extern crate alloc;

mod frame;
mod lru;
mod tables;

pub use frame::Frame;
pub use lru::Lru;
pub use tables::{Capacity, Model};
