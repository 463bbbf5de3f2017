//! Links, addresses and routes of a mesh node as data: what is there ([`Inventory`]), what shall be there
//! ([`Desired`]), what leads from one to the other ([`plan`]), and the kernel that does it ([`Kernel`]).
//!
//! Knows the mesh device, its addresses, its routes and the `unreachable` routes behind them, and touches nothing
//! else of the host. Knows nothing of BPF, policy or the gateway.

mod changes;
mod desired;
mod facts;
mod inventory;
mod kernel;
mod mac;
mod memory;
mod netlink;
mod observed;
mod plan;
mod safety;
mod underlay;

pub use changes::Changes;
pub use desired::{Desired, Device};
pub use facts::HostFacts;
pub use inventory::{Inventory, Link, LinkAddress, Route, RouteKind, Vxlan};
pub use kernel::{ApplyError, Kernel, apply};
pub use mac::Mac;
pub use memory::Memory;
pub use netlink::{Classifier, Netlink};
pub use observed::{Observed, ObservedDevice};
pub use plan::{Conflict, Operation, Plan, plan};
pub use safety::{Cause, Refused, check_prefixes, covers_underlay};
pub use underlay::{
    UnderlayMtu, guarded, guarded_on_transit, mesh_mtu, nics, underlay_addresses, underlay_mtu,
};

/// The routing protocol number that marks routes as ours.
pub const ROUTE_PROTOCOL: u8 = 157;

/// The metric of the `unreachable` routes: every other route is better.
pub const BACKSTOP_METRIC: u32 = u32::MAX;
