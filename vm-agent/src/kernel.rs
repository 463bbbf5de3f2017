//! The owner of kernel state: programs, maps, hooks, the mesh device and its routes.
//!
//! One [`Reconcile`] task changes the kernel; [`Kernel`] is the handle to it. What is wanted comes in by a
//! latest-value channel, what runs goes out by another. Nothing here knows the gateway, certificates or files.
//! Dropping both leaves everything in the kernel as it is: forwarding and enforcement go on without the agent.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use datapath::{Direction, Reason};
use ipnet::IpNet;
use policy::state::NodeState;

/// What the owner of kernel state is told once, at start.
#[derive(Clone, Debug)]
pub struct KernelConfig {
    /// The name of the mesh; the folder of its pins.
    pub mesh: String,
    /// The name of the mesh device.
    pub device: String,
    /// The folder of Outrigger's pins, on a bpffs.
    pub bpffs: PathBuf,
    /// The MTU of the mesh device, instead of the one derived from the underlay.
    pub mtu: Option<u32>,
    /// What any gateway may have routed into the mesh; `None` = whatever passes the safety checks.
    pub allowed_cidrs: Option<Vec<IpNet>>,
    /// The underlay addresses, instead of the discovered ones; empty = discover.
    pub underlay_addresses: Vec<IpAddr>,
    /// Entries the tables have room for.
    pub sizes: TableSizes,
    /// How often hooks are verified when no netlink notification says that something changed.
    pub verify_every: Duration,
}

/// Entries a table has room for, per bank where it has banks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableSizes {
    /// Addresses.
    pub endpoints: u32,
    /// Members of sets of tunnel endpoints.
    pub tunnels: u32,
    /// Blocks that policy names, flattened.
    pub cidrs: u32,
    /// Identities that policy names.
    pub classes: u32,
    /// Policy entries.
    pub policy: u32,
    /// Flows that are established.
    pub flows: u32,
    /// Flows that are not yet.
    pub half_open: u32,
}

/// What the kernel shall run.
#[derive(Clone, Debug)]
pub struct Target {
    /// Comes back in [`Applied`]; opaque here.
    pub tag: Tag,
    /// The state.
    pub state: Arc<NodeState>,
    /// Addresses that no mesh prefix may cover, with what they are ("gateway gw.example:7443").
    pub protected: Vec<(String, IpAddr)>,
}

/// Names a [`Target`]; the session puts the generation in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag {
    /// The gateway's incarnation.
    pub incarnation: u64,
    /// The generation within it.
    pub counter: u64,
}

/// What became of the targets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// The target that the kernel runs; `None` = none since the start of this process.
    pub tag: Option<Tag>,
    /// The epoch of its publication; 0 = nothing was ever published.
    pub epoch: u32,
    /// The newest target, if it was refused: the one of `tag` stays in force.
    pub refused: Option<Refusal>,
}

/// Why a target is not in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The refused target.
    pub tag: Tag,
    /// What was attempted and why it failed, one sentence.
    pub reason: String,
    /// Whether the reconciler tries again by itself (a device in the way, a netlink error), as opposed to a
    /// target that cannot be applied (a prefix that would cut the host off, a full table).
    pub retrying: bool,
}

/// Names the rules of the running and the previous publication: id → origin.
pub type RuleNames = Arc<BTreeMap<u32, Arc<str>>>;

/// What the kernel looks like, for `status` and metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelStatus {
    /// What became of the targets.
    pub applied: Applied,
    /// The mesh device, if it exists.
    pub device: Option<DeviceStatus>,
    /// Every hook that should be in place.
    pub hooks: Vec<HookStatus>,
    /// Hooks that someone removed and that were put back, since start.
    pub reattached: u64,
    /// Publications since start.
    pub publications: u64,
    /// Entries in the active bank, per table.
    pub entries: BTreeMap<&'static str, usize>,
    /// The underlay addresses of this host, in order of preference.
    pub underlay: Vec<IpAddr>,
    /// What an administrator should know (forwarding off on a transit node, a hook that cannot be attached…).
    pub warnings: Vec<String>,
}

/// The mesh device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceStatus {
    /// Its name.
    pub name: String,
    /// Whether it is up.
    pub up: bool,
    /// Its MTU.
    pub mtu: u32,
    /// The tunnel's UDP port.
    pub port: u16,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// The prefixes routed to it.
    pub routes: Vec<IpNet>,
}

/// One hook on one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookStatus {
    /// The device.
    pub device: String,
    /// `mesh_ingress`, `mesh_egress`, `guard_ingress` or `guard_egress`.
    pub hook: &'static str,
    /// How it is attached; `None` = it is not.
    pub attached: Option<AttachedBy>,
}

/// How a hook is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachedBy {
    /// A pinned tc link (Linux 6.6).
    Link,
    /// A classifier of the `clsact` queueing discipline.
    Classifier,
}

/// The sum over all CPUs of one counter of the programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counter {
    /// Direction of the packets.
    pub direction: Direction,
    /// Why they passed or were dropped.
    pub reason: Reason,
    /// How many.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Kernel memory of one map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapMemory {
    /// The map's name.
    pub map: String,
    /// What the kernel accounts for it.
    pub bytes: u64,
}

// The handle, being built (signatures are fixed):
//
// impl Kernel {                                   // Clone
//     /// Checks preconditions, loads or adopts programs and maps; changes no device yet. Needs a tokio runtime.
//     pub async fn start(config: KernelConfig, targets: watch::Receiver<Option<Arc<Target>>>)
//         -> Result<(Kernel, Reconcile), KernelError>;
//     pub fn applied(&self) -> watch::Receiver<Applied>;
//     pub fn status(&self) -> watch::Receiver<KernelStatus>;
//     pub fn rules(&self) -> watch::Receiver<RuleNames>;
//     pub fn counters(&self) -> Result<Vec<Counter>, KernelError>;
//     pub fn memory(&self) -> Vec<MapMemory>;
//     /// One reader at a time: records go to whoever reads first.
//     pub fn events(&self) -> Result<Events, KernelError>;        // impl Stream<Item = datapath::abi::Event> + Unpin
//     /// What the active bank says to the first packet of a flow. Reads the tables out of the kernel.
//     pub fn trace(&self, query: &TraceQuery) -> Result<Trace, KernelError>;
//     /// Removes devices, routes, hooks and pins; returns a line for each thing removed. Reconcile::run then ends.
//     pub async fn leave(&self) -> Result<Vec<String>, KernelError>;
// }
// impl Reconcile { pub async fn run(self); }      // ends when `targets`' sender is gone or after leave; abort-safe
// pub fn preflight(config: &KernelConfig) -> Vec<Precondition>;    // for `join` and `status`, without changing anything
// hostnet::underlay_addresses().await / hostnet::Facts::gather().await + hostnet::check_prefixes(...) for `join`.
