//! The owner of kernel state: programs, maps, hooks, the mesh device and its routes.
//!
//! One [`Reconcile`] task changes the kernel; [`Kernel`] is the handle to it. What is wanted comes in by a
//! latest-value channel, what runs goes out by another. Nothing here knows the gateway, certificates or files.
//! Dropping both leaves everything in the kernel as it is: forwarding and enforcement go on without the agent.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use datapath::abi::Hook;
use datapath::{Direction, Reason};
use hostnet::{Changes, Netlink};
use ipnet::IpNet;
use policy::state::NodeState;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::spawn_blocking;

mod backstop;
mod counters;
mod error;
mod events;
mod fit;
mod grace;
mod hooks;
mod lower;
mod memlock;
mod memory;
mod network;
mod nic;
mod pins;
mod plan;
mod precondition;
mod programs;
mod publish;
mod reconcile;
mod removal;
mod report;
mod sshd;
mod tables;
mod trace;
mod twin;

pub use backstop::backstop;
pub use error::KernelError;
pub use events::Events;
pub use nic::{NicConfig, NicOrders, NicStatus};
pub use precondition::{Precondition, preflight};
pub use reconcile::Reconcile;
pub use removal::remove;
pub use tables::TableError;
pub use trace::{Trace, TraceQuery, default_port};
pub use twin::{Reading, Tables, TwinKernel};

use hooks::Hooks;
use pins::Pins;
use programs::Loaded;
use publish::Publisher;
use reconcile::Command;
use report::{Receivers, Report};

/// What the owner of kernel state is told once, at start.
#[derive(Clone, Debug)]
pub struct KernelConfig {
    /// The name of the mesh; the folder of its pins.
    pub mesh: String,
    /// The name of the mesh device.
    pub device: String,
    /// The folder of Outrigger's pins, on a bpffs.
    pub bpffs: PathBuf,
    /// What every path of the underlay carries, if an administrator knows; `None` = 1500. The MTU of the mesh device is
    /// this or the underlay's, whichever is less, without the bytes of the tunnel.
    pub mtu: Option<u32>,
    /// What any gateway may have routed into the mesh; `None` = whatever passes the safety checks.
    pub allowed_cidrs: Option<Vec<IpNet>>,
    /// The underlay addresses, instead of the discovered ones; empty = discover.
    pub underlay_addresses: Vec<IpAddr>,
    /// Entries the tables have room for.
    pub sizes: TableSizes,
    /// How often hooks are verified when no netlink notification says that something changed.
    pub verify_every: Duration,
    /// Policy on the NICs.
    pub nic: NicConfig,
    /// Which transit nodes do not answer, as it changes.
    pub silent: watch::Receiver<Silent>,
}

/// The tunnel endpoints of transit nodes that do not answer.
pub type Silent = Arc<BTreeSet<IpAddr>>;

/// Transit nodes by their mesh addresses, with their tunnel endpoints.
pub type TransitNodes = Arc<BTreeMap<IpAddr, Arc<Vec<IpAddr>>>>;

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
    /// Comes back in [`Applied`]; opaque here. `None`: no generation, but what holds where nothing else does; it is not
    /// taken while anything is in force.
    pub tag: Option<Tag>,
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
    /// What the gateway says of where the number comes from; only it knows what that means.
    pub origin: u64,
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
    /// What the host's network lacks of the target that runs, and why; tried again by itself. Policy does not wait for
    /// it.
    pub trouble: Option<String>,
}

/// Why a target is not in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The refused target.
    pub tag: Tag,
    /// What was attempted and why it failed, one sentence.
    pub reason: String,
    /// Whether the reconciler tries again by itself (a device in the way, a prefix that would cut the host off as
    /// its network is now), as opposed to a target that can never be applied (a full table).
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
    /// How often the kernel was compared with what it should be, since start.
    pub looks: u64,
    /// How long that took in all.
    pub looking: Duration,
    /// Entries in the active bank, per table.
    pub entries: BTreeMap<&'static str, usize>,
    /// The underlay addresses of this host, in order of preference.
    pub underlay: Vec<IpAddr>,
    /// What an administrator should know (forwarding off on a transit node, a hook that cannot be attached…).
    pub warnings: Vec<String>,
    /// What governs the NICs; `None` = nothing does.
    pub nic: Option<NicStatus>,
}

/// The mesh device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceStatus {
    /// Its name.
    pub name: String,
    /// Its index; another one means that it was made anew.
    pub index: u32,
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
    /// The hook that counted.
    pub hook: Hook,
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

/// The handle to the owner of kernel state.
#[derive(Clone)]
pub struct Kernel {
    pins: Pins,
    receivers: Receivers,
    commands: mpsc::Sender<Command>,
}

impl Kernel {
    /// Checks preconditions, then loads programs and adopts or makes maps. Changes no device and drops no packet:
    /// that begins with [`Reconcile::run`], which has to be spawned.
    ///
    /// Everything happens in the network namespace and with the mounts of the calling thread, which have to be those
    /// of every thread of the runtime.
    ///
    /// # Errors
    /// [`KernelError`] names what is missing or in the way.
    pub async fn start(
        config: KernelConfig,
        targets: watch::Receiver<Option<Arc<Target>>>,
    ) -> Result<(Self, Reconcile), KernelError> {
        precondition::require(&config)?;
        memlock::lift();
        let pins = Pins::new(&config.bpffs, &config.mesh);
        let netlink = |operation| move |source| KernelError::Netlink { operation, source };
        let connection = Netlink::connect().map_err(netlink("connect"))?;
        let changes = Changes::subscribe().map_err(netlink("subscribe to changes"))?;
        let (folder, sizes) = (pins.clone(), config.sizes);
        let load = move || {
            let lock = folder.lock()?;
            let Loaded { programs, stubs, store, is_adopted } = programs::load(&folder, sizes)?;
            tracing::info!(is_adopted, "programs are in the kernel");
            let publisher = Publisher::adopt(store)?;
            Ok::<_, KernelError>((lock, programs, Hooks::new(folder, stubs), publisher))
        };
        let loaded = spawn_blocking(load).await.map_err(stopped)??;
        let epoch = loaded.3.control().epoch();
        let (report, receivers) = Report::new(epoch);
        let (commands, inbox) = mpsc::channel(1);
        let reconcile = Reconcile::new(config, targets, inbox, (connection, changes), loaded, report);
        Ok((Self { pins, receivers, commands }, reconcile))
    }

    /// What became of the targets.
    #[must_use]
    pub fn applied(&self) -> watch::Receiver<Applied> {
        self.receivers.applied.clone()
    }

    /// What the kernel looks like.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<KernelStatus> {
        self.receivers.status.clone()
    }

    /// The names of rules in events.
    #[must_use]
    pub fn rules(&self) -> watch::Receiver<RuleNames> {
        self.receivers.rules.clone()
    }

    /// The transit nodes that this node chooses among, so that somebody has to know whether they are there.
    #[must_use]
    pub fn transit_nodes(&self) -> watch::Receiver<TransitNodes> {
        self.receivers.transit_nodes.clone()
    }

    /// A state as this host enforces it: with what its policy does not close besides.
    #[must_use]
    pub fn in_force(&self, state: &Arc<NodeState>) -> Arc<NodeState> {
        let choices = self.receivers.transit_nodes.borrow();
        lower::watched(state, &choices)
    }

    /// The counters that are not zero.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn counters(&self) -> Result<Vec<Counter>, KernelError> {
        counters::read(&self.pins)
    }

    /// What the kernel accounts for each map.
    ///
    /// # Errors
    /// When a map cannot be opened.
    pub fn memory(&self) -> Result<Vec<MapMemory>, KernelError> {
        memory::read(&self.pins)
    }

    /// Events as they happen. One reader at a time: a record goes to whoever reads it first.
    ///
    /// # Errors
    /// When the ring buffer cannot be opened.
    pub fn events(&self) -> Result<Events, KernelError> {
        Events::open(&self.pins)
    }

    /// What the active tables say to the first packet of a flow, decided by the code that runs in the kernel.
    ///
    /// # Errors
    /// When the tables cannot be read.
    pub fn trace(&self, query: &TraceQuery) -> Result<Trace, KernelError> {
        trace::trace(&self.pins, query)
    }

    /// Removes devices, routes, hooks and pins, and lists what was removed. [`Reconcile::run`] ends with it.
    ///
    /// # Errors
    /// The first thing that could not be removed.
    pub async fn leave(&self) -> Result<Vec<String>, KernelError> {
        let (answer, removed) = oneshot::channel();
        self.commands.send(Command::Leave(answer)).await.map_err(stopped)?;
        removed.await.map_err(stopped)?
    }
}

/// The other end is gone, which is all there is to say.
fn stopped<E>(_gone: E) -> KernelError {
    KernelError::Stopped
}

impl Default for TableSizes {
    /// For a mesh of 100,000 endpoints.
    fn default() -> Self {
        Self {
            endpoints: 131_072,
            tunnels: 8192,
            cidrs: 16_384,
            classes: 65_536,
            policy: 65_536,
            flows: 262_144,
            half_open: 65_536,
        }
    }
}
