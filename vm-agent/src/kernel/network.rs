//! The network half of kernel state: what is desired of it, and the hooks on its devices.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};

use datapath::abi::Hook;
use hostnet::{
    ApplyError, Desired, Device, HostFacts, Inventory, Kernel as _, Netlink, Observed, Operation,
    UnderlayMtu, apply, guarded, guarded_on_transit, mesh_mtu, plan, underlay_addresses, underlay_mtu,
};
use ipnet::IpNet;
use policy::state::{NodeSettings, Role};
use tokio::task::spawn_blocking;

use super::error::KernelError;
use super::fit::{Fit, Surroundings};
use super::hooks::{HookedDevice, Hooks, Outcome};
use super::nic::{self, NicImage};
use super::sshd;
use super::{DeviceStatus, HookStatus, KernelConfig, Target};

/// Before an underlay is up, the MTU of Ethernet is assumed, and IPv4.
const NO_UNDERLAY: UnderlayMtu = UnderlayMtu { mtu: 1500, v6: false };
/// RFC 8200 §5: a link with a smaller MTU has no IPv6.
const SMALLEST_V6_MTU: u32 = 1280;

/// The network half of kernel state.
pub(super) struct Network {
    config: KernelConfig,
    netlink: Netlink,
    hooks: Hooks,
    /// Whether what leaves by the NICs is looked at.
    governs_nics: bool,
    /// The part of this node. Before it is known, no hook that an earlier process left is taken off.
    role: Option<Role>,
    /// What became of each wanted hook at the last look.
    hooked: BTreeMap<(String, Hook), Result<(), String>>,
    /// Whether the hooks were in place before, so that attaching one means that someone took it off.
    known: BTreeSet<(Hook, u32)>,
    reattached: u64,
    /// What was found on the host last.
    last_facts: Mutex<HostFacts>,
}

/// Addresses that no mesh prefix may cover, with what they are.
pub(super) struct Protected(Vec<(String, IpAddr)>);

impl Network {
    pub(super) fn new(config: KernelConfig, netlink: Netlink, hooks: Hooks) -> Self {
        let (hooked, known) = (BTreeMap::new(), BTreeSet::new());
        let last_facts = Mutex::default();
        Self {
            config,
            netlink,
            hooks,
            governs_nics: false,
            role: None,
            hooked,
            known,
            reattached: 0,
            last_facts,
        }
    }

    pub(super) async fn inventory(&mut self) -> Result<Inventory, KernelError> {
        let dump = self.netlink.inventory().await;
        dump.map_err(|source| KernelError::Netlink { operation: "read links, addresses and routes", source })
    }

    /// The part of the settings that this host takes; of prefixes in force, which may stay, those of `held`.
    pub(super) async fn fit(
        &self,
        settings: &NodeSettings,
        protected: &Protected,
        held: &[IpNet],
        inventory: &Inventory,
    ) -> Result<Fit, KernelError> {
        let gathered = gather().await;
        let mut facts = match &gathered {
            Ok(facts) => facts.clone(),
            // What policy on the NICs leaves open does not close because a file cannot be read.
            Err(_unreadable) => self.last_facts.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        };
        self.last_facts.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&facts);
        facts.protected.clone_from(&protected.0);
        let nic = self.nic(settings, &facts, inventory).await?;
        let silent = Arc::clone(&self.config.silent.borrow());
        match gathered {
            // What cannot be known holds back what is new, not what is in force.
            Err(error) if settings.prefixes.iter().all(|prefix| held.contains(prefix)) => {
                let doubtful = vec![error.to_string()];
                let prefixes = settings.prefixes.clone();
                return Ok(Fit { prefixes, missing: Vec::new(), doubtful, nic, silent });
            }
            gathered => drop(gathered?),
        }
        let KernelConfig { allowed_cidrs, device, .. } = &self.config;
        let surroundings =
            Surroundings { inventory, facts: &facts, allowed: allowed_cidrs.as_deref(), device, held };
        Ok(Fit { nic, silent, ..surroundings.fit(settings)? })
    }

    /// What governs the NICs.
    async fn nic(
        &self,
        settings: &NodeSettings,
        facts: &HostFacts,
        inventory: &Inventory,
    ) -> Result<Option<NicImage>, KernelError> {
        if settings.nic.is_none() {
            return Ok(None);
        }
        let ssh = spawn_blocking(sshd::ports).await.map_err(|_cut_off| KernelError::Stopped)?;
        Ok(nic::Surroundings { config: &self.config, inventory, facts, ssh: &ssh }.image(settings))
    }

    /// Whether policy governs NICs, from the next look at the hooks on.
    pub(super) fn governs_nics(&mut self, governs: bool) {
        self.governs_nics = governs;
    }

    /// What the settings of a node ask of its network, of IPv6 only where the host has it: without, there is no way
    /// that mesh traffic could take. Where only the underlay is too small for it, IPv6 stays unreachable.
    pub(super) fn desired(
        &self,
        settings: &NodeSettings,
        prefixes: &[IpNet],
        inventory: &Inventory,
    ) -> Desired {
        let mtu = underlay_mtu(inventory, &self.underlay(inventory)).unwrap_or(NO_UNDERLAY);
        let mtu = mesh_mtu(mtu, self.config.mtu);
        let has_ipv6 = has_ipv6();
        let carries_ipv6 = has_ipv6 && mtu >= SMALLEST_V6_MTU;
        let addresses = settings.addresses.iter().copied();
        let addresses = addresses.filter(|address| carries_ipv6 || address.is_ipv4());
        let source = |v4: bool| addresses.clone().find(|address| address.is_ipv4() == v4);
        let prefixes = prefixes.iter().map(IpNet::trunc);
        let prefixes = prefixes.filter(|prefix| has_ipv6 || prefix.addr().is_ipv4());
        let routed = prefixes.clone().filter(|prefix| carries_ipv6 || prefix.addr().is_ipv4());
        Desired {
            device: Some(Device {
                name: self.config.device.clone(),
                port: settings.tunnel_port,
                mtu,
                up: true,
                addresses: addresses.clone().collect(),
                routes: routed.map(|prefix| (prefix, source(prefix.addr().is_ipv4()))).collect(),
            }),
            unreachable: prefixes.collect(),
        }
    }

    /// The underlay addresses, in order of preference.
    pub(super) fn underlay(&self, inventory: &Inventory) -> Vec<IpAddr> {
        if self.config.underlay_addresses.is_empty() {
            underlay_addresses(inventory, &self.config.device)
        } else {
            self.config.underlay_addresses.clone()
        }
    }

    /// Backstops, then the device with its hooks; it stays down, or is taken down, while a hook is missing.
    pub(super) async fn raise(&mut self, desired: &Desired, role: Role) -> Result<(), KernelError> {
        self.role = Some(role);
        let observed = Observed::of(&self.inventory().await?, &self.config.device);
        let was_up = observed.device.as_ref().is_some_and(|device| device.up);
        if !was_up {
            let operations = plan(&observed, &lowered(desired))?;
            apply(&mut self.netlink, &operations.before).await?;
        }
        self.secure().await
    }

    /// Puts every hook in its place, and takes a mesh device down that lacks one.
    pub(super) async fn secure(&mut self) -> Result<(), KernelError> {
        let hooked = self.rehook().await;
        if hooked.is_err() {
            let observed = Observed::of(&self.inventory().await?, &self.config.device);
            if let Some(device) = observed.device.filter(|device| device.up && device.port.is_some()) {
                tracing::error!(device = %device.name, "the mesh device has no program and is taken down");
                apply(&mut self.netlink, &[Operation::SetDown(device.name)]).await?;
            }
        }
        hooked
    }

    /// The same for a mesh device that is on its way out: nothing else gets a hook any more.
    pub(super) async fn secure_device(&mut self) -> Result<(), KernelError> {
        let is_there = Observed::of(&self.inventory().await?, &self.config.device).device.is_some();
        if is_there { self.secure().await } else { Ok(()) }
    }

    /// What netlink adds before a publication.
    pub(super) async fn add(&mut self, desired: &Desired) -> Result<(), KernelError> {
        let observed = Observed::of(&self.inventory().await?, &self.config.device);
        let operations = plan(&observed, desired)?;
        let recreated =
            operations.before.iter().find(|operation| matches!(operation, Operation::CreateDevice { .. }));
        if let Some(creation) = recreated {
            // Another port: the device that works is not given up for one that cannot, and the new one gets its hooks
            // before it is up.
            require_port(creation)?;
            let down = plan(&observed, &lowered(desired))?;
            apply(&mut self.netlink, &down.before).await?;
            self.secure().await?;
            let observed = Observed::of(&self.inventory().await?, &self.config.device);
            apply(&mut self.netlink, &plan(&observed, desired)?.before).await?;
        } else {
            apply(&mut self.netlink, &operations.before).await?;
        }
        Ok(())
    }

    /// What netlink removes after a publication.
    pub(super) async fn remove(&mut self, desired: &Desired) -> Result<(), KernelError> {
        let observed = Observed::of(&self.inventory().await?, &self.config.device);
        let operations = plan(&observed, desired)?;
        Ok(apply(&mut self.netlink, &operations.after).await?)
    }

    /// Puts every hook in its place. An error means that the mesh device lacks one; a guard that is missing is
    /// reported, tried again, and keeps nobody off the network.
    async fn rehook(&mut self) -> Result<(), KernelError> {
        let inventory = self.inventory().await?;
        let mut wanted = wanted_hooks(&inventory, &self.config.device, self.role);
        if self.governs_nics {
            let of = |link: &hostnet::Link| HookedDevice { name: link.name.clone(), ifindex: link.index };
            let nics = hostnet::nics(&inventory, &self.config.device);
            wanted.extend(nics.into_iter().map(|link| (Hook::GuardEgress, of(link))));
        }
        let gone: Vec<u32> = self.left(Hook::GuardEgress, &wanted);
        for link in inventory.links.values().filter(|link| gone.contains(&link.index)) {
            let device = HookedDevice { name: link.name.clone(), ifindex: link.index };
            self.hooks.release(&self.netlink, Hook::GuardEgress, &device).await?;
            self.known.remove(&(Hook::GuardEgress, link.index));
        }
        if self.role.is_some() {
            let places = wanted.iter().map(|(hook, device)| (*hook, device.ifindex)).collect();
            self.hooks.keep_only(&places, |ifindex| inventory.links.contains_key(&ifindex))?;
        }
        self.hooked.clear();
        self.known.retain(|(_, ifindex)| inventory.links.contains_key(ifindex));
        let mut result = Ok(());
        for (hook, device) in wanted {
            let place = (hook, device.ifindex);
            let done = self.hooks.ensure(&self.netlink, hook, &device).await;
            match &done {
                Ok(Outcome::Attached) if !self.known.insert(place) => {
                    self.reattached += 1;
                    tracing::warn!(device = %device.name, hook = hook.program(), "a hook was gone and was put back");
                }
                Ok(Outcome::Attached | Outcome::InPlace) => drop(self.known.insert(place)),
                Err(error) => tracing::warn!(%error, "a hook is missing"),
            }
            let report = done.as_ref().map(drop).map_err(ToString::to_string);
            self.hooked.insert((device.name, hook), report);
            if matches!(hook, Hook::MeshIngress | Hook::MeshEgress) {
                result = result.and(done.map(drop));
            }
        }
        result
    }

    /// The devices that had a hook and shall have it no more.
    fn left(&self, hook: Hook, wanted: &[(Hook, HookedDevice)]) -> Vec<u32> {
        let had = self.known.iter().filter(|(of, _)| *of == hook).map(|(_, ifindex)| *ifindex);
        had.filter(|ifindex| !wanted.iter().any(|(of, device)| *of == hook && device.ifindex == *ifindex))
            .collect()
    }

    /// Hooks that someone had removed, since the last call.
    pub(super) fn take_reattached(&mut self) -> u64 {
        std::mem::take(&mut self.reattached)
    }

    pub(super) fn hook_status(&self) -> Vec<HookStatus> {
        let by = self.hooks.by();
        let status = |((device, hook), done): (&(String, Hook), &Result<(), String>)| HookStatus {
            device: device.clone(),
            hook: hook.program(),
            attached: done.is_ok().then_some(by),
        };
        self.hooked.iter().map(status).collect()
    }

    pub(super) fn device_status(&self, inventory: &Inventory) -> Option<DeviceStatus> {
        let device = Observed::of(inventory, &self.config.device).device?;
        Some(DeviceStatus {
            name: device.name,
            index: device.index,
            up: device.up,
            mtu: device.mtu,
            port: device.port?,
            addresses: device.addresses.into_iter().collect(),
            routes: device.routes.into_keys().collect(),
        })
    }

    /// What is wrong with the network, short of an error.
    pub(super) fn warnings(&self, inventory: &Inventory) -> Vec<String> {
        let missing = self.hooked.values().filter_map(|done| done.as_ref().err().cloned());
        let mut warnings: Vec<String> = missing.collect();
        if let Some(device) = self.device_status(inventory)
            && device.mtu < SMALLEST_V6_MTU
        {
            warnings.push(format!(
                "the MTU of {} is {}, too small for IPv6 ({SMALLEST_V6_MTU}): the underlay carries too little",
                device.name, device.mtu
            ));
        }
        if self.underlay(inventory).is_empty() {
            warnings.push("no usable global address for tunnels; set `underlayAddresses`".to_owned());
        }
        warnings
    }

    /// What this host lacks for its part in the mesh. Whether it gets it is the administrator's decision.
    pub(super) fn shortcomings(&self, settings: &NodeSettings) -> Vec<String> {
        const SWITCHES: [(&str, &str, &str); 2] = [
            ("IPv4", "/proc/sys/net/ipv4/ip_forward", "net.ipv4.ip_forward"),
            ("IPv6", "/proc/sys/net/ipv6/conf/all/forwarding", "net.ipv6.conf.all.forwarding"),
        ];
        let mut shortcomings = Vec::new();
        if !has_ipv6() && settings.prefixes.iter().any(|prefix| prefix.addr().is_ipv6()) {
            shortcomings.push(format!("IPv6 is off on this host: {} has IPv4 only", self.config.device));
        }
        if settings.role.is_cluster_node() {
            let off = SWITCHES.into_iter().filter(|(_, path, _)| switch(path).is_some_and(|on| !on));
            shortcomings.extend(off.map(|(family, _, name)| {
                format!("this node does not forward {family}: set the sysctl {name} to 1")
            }));
        }
        shortcomings
    }
}

impl Protected {
    /// Of a target: what its sender named, and every tunnel endpoint.
    pub(super) fn of(target: &Target) -> Self {
        let endpoints = target.state.endpoints.values();
        let tunnels: BTreeSet<IpAddr> =
            endpoints.flat_map(|endpoint| endpoint.tunnels.iter().copied()).collect();
        let tunnels = tunnels.into_iter().map(|address| ("the tunnel endpoint".to_owned(), address));
        Self(target.protected.iter().cloned().chain(tunnels).collect())
    }
}

/// Whether a sysctl is on; `None` where the kernel does not have it.
fn switch(path: &str) -> Option<bool> {
    let value = std::fs::read_to_string(path).ok()?;
    Some(value.trim() != "0")
}

/// Whether new devices have IPv6.
fn has_ipv6() -> bool {
    const DISABLED: [&str; 2] =
        ["/proc/sys/net/ipv6/conf/all/disable_ipv6", "/proc/sys/net/ipv6/conf/default/disable_ipv6"];
    DISABLED.into_iter().all(|path| switch(path) == Some(false))
}

/// The same with the device down.
fn lowered(desired: &Desired) -> Desired {
    let device = desired.device.clone().map(|device| Device { up: false, ..device });
    Desired { device, unreachable: desired.unreachable.clone() }
}

/// The mesh device carries both mesh programs, every other device that needs it the guard.
fn wanted_hooks(inventory: &Inventory, device: &str, role: Option<Role>) -> Vec<(Hook, HookedDevice)> {
    let of = |link: &hostnet::Link| HookedDevice { name: link.name.clone(), ifindex: link.index };
    let is_mesh = |link: &&hostnet::Link| link.vxlan.is_some_and(|vxlan| vxlan.external);
    let mesh = inventory.link(device).filter(is_mesh).map(of);
    let mesh =
        mesh.into_iter().flat_map(|device| [(Hook::MeshIngress, device.clone()), (Hook::MeshEgress, device)]);
    let guarded = match role {
        Some(Role::Transit | Role::Node) => guarded_on_transit(inventory, device),
        Some(Role::Host) | None => guarded(inventory, device),
    };
    mesh.chain(guarded.into_iter().map(|link| (Hook::GuardIngress, of(link)))).collect()
}

/// Whether a tunnel could have the port: the device asks for it only when it is raised.
fn require_port(creation: &Operation) -> Result<(), ApplyError> {
    let Operation::CreateDevice { port, .. } = creation else { return Ok(()) };
    let taken = |address: IpAddr| {
        let bound = UdpSocket::bind((address, *port));
        bound.is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
    };
    if taken(IpAddr::from(Ipv4Addr::UNSPECIFIED)) || taken(IpAddr::from(Ipv6Addr::UNSPECIFIED)) {
        return Err(ApplyError::PortInUse { operation: creation.clone(), port: *port });
    }
    Ok(())
}

/// What this host must reach. On a thread of its own: a file system may let its reader wait.
pub(super) async fn gather() -> Result<HostFacts, KernelError> {
    let read = || HostFacts::gather(std::env::var("SSH_CONNECTION").ok().as_deref());
    let gathered = spawn_blocking(read).await.map_err(|_cut_off| KernelError::Stopped)?;
    gathered.map_err(|source| KernelError::Netlink { operation: "read what must stay reachable", source })
}
