//! The decision of the datapath: map layouts (the ABI), packet parsing, flows, and the one ingress and egress
//! decision. Built unchanged into the BPF object, into tests and fuzzers, and into `outrigger policy trace`.
#![cfg_attr(not(test), no_std)]
#![expect(clippy::inline_always, reason = "the verifier follows calls at a price; what is small has none")]

pub mod abi;
mod address;
mod decide;
pub mod ethertype;
mod flow;
mod fragment;
mod guard;
mod host;
#[cfg(any(test, feature = "model"))]
pub mod model;
mod nic;
mod packet;
pub mod parse;
pub mod policy;
mod record;
mod related;
mod source;
mod tables;
#[cfg(test)]
mod testing;
mod transit;
mod verdict;
mod view;

pub use address::{Address, Port};
pub use decide::{Work, decide, decide_in};
pub use guard::{guard, guard_in};
pub use packet::{Moment, Outer, Packet, ticks};
pub use tables::{FlowTable, Tables};
pub use verdict::{Action, Direction, Reason, Verdict};
