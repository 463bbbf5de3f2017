//! Which devices carry the tunnel, which need the guard, and how large packets may be. Pure.

use std::net::IpAddr;

use crate::inventory::{Inventory, Link, LinkAddress};

/// Bytes that VXLAN adds over IPv4: outer IPv4, UDP, VXLAN and the inner Ethernet header.
const OVERHEAD_V4: u32 = 50;
/// Bytes that VXLAN adds over IPv6.
const OVERHEAD_V6: u32 = 70;
/// What every path can be expected to carry unless an administrator knows more.
const ASSUMED_PATH_MTU: u32 = 1500;

/// What carries the tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnderlayMtu {
    /// The smallest MTU of the devices that have underlay addresses.
    pub mtu: u32,
    /// Whether a tunnel may run over IPv6.
    pub v6: bool,
}

/// Kinds of device whose addresses are reached through something else.
const OVERLAYS: [&str; 12] = [
    "vxlan",
    "geneve",
    "gre",
    "gretap",
    "ip6gre",
    "ip6gretap",
    "erspan",
    "ip6erspan",
    "ipip",
    "sit",
    "ip6tnl",
    "wireguard",
];
/// Names that container networks give to devices on the host.
const CONTAINER_NAMES: [&str; 9] =
    ["docker", "cni", "cilium_", "lxc", "cali", "flannel", "kube-", "nodelocaldns", "podman"];

/// The usable global unicast addresses of this host's underlay, those of devices with a default route first.
#[must_use]
pub fn underlay_addresses(inventory: &Inventory, device: &str) -> Vec<IpAddr> {
    let mut found: Vec<(bool, u32, IpAddr)> = Vec::new();
    for link in inventory.links.values().filter(|link| carries_tunnels(inventory, link, device)) {
        let usable = link.addresses.iter().filter(|(address, known)| known.usable && is_global(**address));
        let preferred = inventory.has_default_route(link.index);
        found.extend(usable.map(|(address, _)| (!preferred, link.index, *address)));
    }
    found.sort_unstable();
    found.into_iter().map(|(_, _, address)| address).collect()
}

/// The MTU of the devices that have these addresses; `None` when none has.
#[must_use]
pub fn underlay_mtu(inventory: &Inventory, underlay: &[IpAddr]) -> Option<UnderlayMtu> {
    let has = |link: &&Link| underlay.iter().any(|address| link.addresses.contains_key(address));
    let mtu = inventory.links.values().filter(has).map(|link| link.mtu).min()?;
    Some(UnderlayMtu { mtu, v6: underlay.iter().any(IpAddr::is_ipv6) })
}

/// The MTU of the mesh device. `path` is what an administrator says that every path carries.
#[must_use]
pub fn mesh_mtu(underlay: UnderlayMtu, path: Option<u32>) -> u32 {
    let overhead = if underlay.v6 { OVERHEAD_V6 } else { OVERHEAD_V4 };
    underlay.mtu.min(path.unwrap_or(ASSUMED_PATH_MTU)).saturating_sub(overhead)
}

/// The devices that need the guard: every other device that hands packets to the network layer, except loopback and
/// the bridges of containers. On any of them a bare packet to the mesh address would be accepted (weak host model),
/// whether or not the device has an address of its own. A port without one hands packets to its bridge or bond.
#[must_use]
pub fn guarded<'a>(inventory: &'a Inventory, device: &str) -> Vec<&'a Link> {
    let hands_up = |link: &Link| !link.addresses.is_empty() || (link.up && link.controller.is_none());
    inventory
        .links
        .values()
        .filter(|link| link.name != device && !link.loopback && hands_up(link))
        .filter(|link| !is_container_bridge(inventory, link))
        .collect()
}

/// The same with the bridges of containers, behind which a transit node has pods: none of them may speak as a member
/// of the mesh that it is not, least of all as the node.
#[must_use]
pub fn guarded_on_transit<'a>(inventory: &'a Inventory, device: &str) -> Vec<&'a Link> {
    let bridges = inventory.links.values().filter(|link| is_container_bridge(inventory, link));
    let bridges = bridges.filter(|link| link.name != device && (link.up || !link.addresses.is_empty()));
    guarded(inventory, device).into_iter().chain(bridges).collect()
}

/// The devices by which the host itself is connected: NICs and what stands for them (bonds, VLANs, bridges of the host's
/// own), not what leads to containers or through something else.
#[must_use]
pub fn nics<'a>(inventory: &'a Inventory, device: &str) -> Vec<&'a Link> {
    guarded(inventory, device).into_iter().filter(|link| leads_out(inventory, link)).collect()
}

fn leads_out(inventory: &Inventory, link: &Link) -> bool {
    !link.kind.as_ref().is_some_and(|kind| OVERLAYS.contains(&kind.as_str()))
        && !CONTAINER_NAMES.iter().any(|prefix| link.name.starts_with(prefix))
        && !is_container_bridge(inventory, link)
        && !is_container_link(inventory, link)
}

fn carries_tunnels(inventory: &Inventory, link: &Link, device: &str) -> bool {
    link.up && !link.loopback && link.name != device && leads_out(inventory, link)
}

/// A veth whose addresses stand alone, without a network around them and without a default route, leads to one
/// container: so does the `ptp` plugin, whose gateway address is the same on every such device.
fn is_container_link(inventory: &Inventory, link: &Link) -> bool {
    let stands_alone = |(address, known): (&IpAddr, &LinkAddress)| {
        known.prefix_len == if address.is_ipv4() { 32 } else { 128 }
    };
    link.kind.as_deref() == Some("veth")
        && link.addresses.iter().filter(|(address, _)| is_global(**address)).all(stands_alone)
        && !inventory.has_default_route(link.index)
}

/// A bridge is the host's own when it carries a default route or has a port that leads out of the host; otherwise
/// it connects containers or virtual machines.
fn is_container_bridge(inventory: &Inventory, link: &Link) -> bool {
    const OUTWARD: [&str; 4] = ["bond", "team", "vlan", "macvlan"];
    if link.kind.as_deref() != Some("bridge") {
        return false;
    }
    let leads_out = |port: &Link| port.kind.as_deref().is_none_or(|kind| OUTWARD.contains(&kind));
    let mut ports = inventory.links.values().filter(|port| port.controller == Some(link.index));
    !inventory.has_default_route(link.index) && !ports.any(leads_out)
}

fn is_global(address: IpAddr) -> bool {
    let special = address.is_loopback() || address.is_multicast() || address.is_unspecified();
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !special && !link_local
}

#[cfg(test)]
mod tests;
