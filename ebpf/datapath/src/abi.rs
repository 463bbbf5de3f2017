//! The layouts of every map: the binary contract between the BPF programs and userspace.
//!
//! Addresses are 16 bytes, IPv4 as v4-mapped IPv6 ([RFC 4291 §2.5.5.2]); ports are two bytes in network order;
//! every other integer is in the machine's order. All structs are `repr(C)` without implicit padding; a change to
//! any of them, other than giving meaning to reserved bytes, needs a new [`VERSION`].
//!
//! [RFC 4291 §2.5.5.2]: https://www.rfc-editor.org/rfc/rfc4291#section-2.5.5.2

mod control;
mod counter;
mod event;
mod flow;
mod table;

pub use control::{Bank, Control, Hook, PROGRAM_SETS, Place};
pub use counter::{Bucket, COUNTER_SLOTS, Counter, counter_slot};
pub use event::{Event, EventKind};
pub use flow::{Flow, FlowKey, FragmentEntry, FragmentKey};
pub use table::{
    CidrEntry, CidrKey, ClassEntry, ClassKey, EndpointEntry, EndpointKey, PolicyEntry, PolicyKey,
    PrefixEntry, PrefixKey, Rank, Settings, TunnelEntry, TunnelKey, endpoint_flag, settings_flag,
};

/// Version of the layouts of the banked tables; part of the path they are pinned under.
pub const VERSION: u32 = 1;
