//! The decision of the datapath: map layouts (the ABI), packet parsing, flows, and the one ingress and egress
//! decision. Built unchanged into the BPF object, into tests and fuzzers, and into `outrigger policy trace`.
#![cfg_attr(not(test), no_std)]

pub mod abi;
mod address;
mod verdict;

pub use address::{Address, Port};
pub use verdict::{Action, Direction, Reason};
