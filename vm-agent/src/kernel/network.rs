//! The network half of kernel state: what is desired of it, and the hooks on its devices.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use datapath::abi::Hook;
use hostnet::{
    Desired, Device, HostFacts, Inventory, Kernel as _, Netlink, Observed, UnderlayMtu, apply,
    check_prefixes, guarded, mesh_mtu, plan, underlay_addresses, underlay_mtu,
};
use ipnet::IpNet;
use policy::state::{NodeSettings, Role};

use super::error::KernelError;
use super::hooks::{HookedDevice, Hooks, Outcome};
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
    /// What became of each wanted hook at the last look.
    hooked: BTreeMap<(String, Hook), Result<(), String>>,
    /// Whether the hooks were in place before, so that attaching one means that someone took it off.
    known: BTreeSet<(Hook, u32)>,
    reattached: u64,
}

/// Addresses that no mesh prefix may cover, with what they are.
pub(super) struct Protected(Vec<(String, IpAddr)>);

impl Network {
    pub(super) fn new(config: KernelConfig, netlink: Netlink, hooks: Hooks) -> Self {
        Self { config, netlink, hooks, hooked: BTreeMap::new(), known: BTreeSet::new(), reattached: 0 }
    }

    pub(super) async fn inventory(&mut self) -> Result<Inventory, KernelError> {
        let dump = self.netlink.inventory().await;
        dump.map_err(|source| KernelError::Netlink { operation: "read links, addresses and routes", source })
    }

    /// Refuses prefixes that would cut this host off.
    pub(super) fn check(
        &self,
        settings: &NodeSettings,
        protected: &Protected,
        inventory: &Inventory,
    ) -> Result<(), KernelError> {
        let mut facts = gather()?;
        facts.protected.clone_from(&protected.0);
        let KernelConfig { allowed_cidrs, device, .. } = &self.config;
        check_prefixes(&settings.prefixes, inventory, &facts, allowed_cidrs.as_deref(), device)
            .map_err(KernelError::Unsafe)
    }

    /// What the settings of a node ask of its network, of IPv6 only where the host has it: without, there is no way
    /// that mesh traffic could take.
    pub(super) fn desired(&self, settings: &NodeSettings, inventory: &Inventory) -> Desired {
        let has_ipv6 = has_ipv6();
        let addresses = settings.addresses.iter().copied().filter(|address| has_ipv6 || address.is_ipv4());
        let source = |v4: bool| addresses.clone().find(|address| address.is_ipv4() == v4);
        let prefixes = settings.prefixes.iter().map(IpNet::trunc);
        let prefixes = prefixes.filter(|prefix| has_ipv6 || prefix.addr().is_ipv4());
        let mtu = underlay_mtu(inventory, &self.underlay(inventory)).unwrap_or(NO_UNDERLAY);
        Desired {
            device: Some(Device {
                name: self.config.device.clone(),
                port: settings.tunnel_port,
                mtu: mesh_mtu(mtu, self.config.mtu),
                up: true,
                addresses: addresses.clone().collect(),
                routes: prefixes.clone().map(|prefix| (prefix, source(prefix.addr().is_ipv4()))).collect(),
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
    pub(super) async fn raise(&mut self, desired: &Desired) -> Result<(), KernelError> {
        let observed = Observed::of(&self.inventory().await?, &self.config.device);
        let was_up = observed.device.as_ref().is_some_and(|device| device.up);
        if !was_up {
            let operations = plan(&observed, &lowered(desired))?;
            apply(&mut self.netlink, &operations.before).await?;
        }
        let hooked = self.rehook().await;
        if hooked.is_err() && was_up {
            tracing::error!(device = %self.config.device, "the mesh device has no program and is taken down");
            let operations = plan(&observed, &lowered(desired))?;
            apply(&mut self.netlink, &operations.before).await?;
        }
        hooked
    }

    /// What netlink adds before a publication.
    pub(super) async fn add(&mut self, desired: &Desired) -> Result<(), KernelError> {
        let observed = Observed::of(&self.inventory().await?, &self.config.device);
        let operations = plan(&observed, desired)?;
        let recreated = operations
            .before
            .iter()
            .any(|operation| matches!(operation, hostnet::Operation::CreateDevice { .. }));
        if recreated {
            // Another port: the new device gets its hooks before it is up.
            let down = plan(&observed, &lowered(desired))?;
            apply(&mut self.netlink, &down.before).await?;
            self.rehook().await?;
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
    pub(super) async fn rehook(&mut self) -> Result<(), KernelError> {
        let inventory = self.inventory().await?;
        let wanted = wanted_hooks(&inventory, &self.config.device);
        self.hooks.keep_only(&wanted.iter().map(|(hook, device)| (*hook, device.ifindex)).collect())?;
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
        if settings.role == Role::Transit {
            let off = SWITCHES.into_iter().filter(|(_, path, _)| switch(path).is_some_and(|on| !on));
            shortcomings.extend(off.map(|(family, _, name)| {
                format!("this transit node does not forward {family}: set the sysctl {name} to 1")
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
fn wanted_hooks(inventory: &Inventory, device: &str) -> Vec<(Hook, HookedDevice)> {
    let of = |link: &hostnet::Link| HookedDevice { name: link.name.clone(), ifindex: link.index };
    let is_mesh = |link: &&hostnet::Link| link.vxlan.is_some_and(|vxlan| vxlan.external);
    let mesh = inventory.link(device).filter(is_mesh).map(of);
    let mesh =
        mesh.into_iter().flat_map(|device| [(Hook::MeshIngress, device.clone()), (Hook::MeshEgress, device)]);
    mesh.chain(guarded(inventory, device).into_iter().map(|link| (Hook::GuardIngress, of(link)))).collect()
}

fn gather() -> Result<HostFacts, KernelError> {
    let ssh = std::env::var("SSH_CONNECTION").ok();
    HostFacts::gather(ssh.as_deref())
        .map_err(|source| KernelError::Netlink { operation: "read what must stay reachable", source })
}
