//! Which prefixes may be routed into the mesh. Pure.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::facts::HostFacts;
use crate::inventory::{Inventory, Route};
use crate::underlay::underlay_addresses;
use crate::{inventory, observed::is_backstop};

/// A prefix that is not routed into the mesh, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("mesh prefix {prefix} {cause}")]
pub struct Refused {
    /// The prefix.
    pub prefix: IpNet,
    /// What it would do.
    pub cause: Cause,
}

/// What a refused prefix would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Cover an address that the host needs.
    Covers {
        /// What the address is.
        what: String,
        /// The address.
        address: IpAddr,
    },
    /// Cover or repeat a route that is there and not ours.
    CoversRoute {
        /// The destination of the route.
        destination: IpNet,
        /// The device of the route, if it has one.
        device: Option<String>,
    },
    /// Overlap a block that is never routed.
    Special {
        /// What the block is.
        what: &'static str,
        /// The block.
        block: IpNet,
    },
    /// Leave what the administrator of this host allows.
    NotAllowed {
        /// What is allowed.
        allowed: Vec<IpNet>,
    },
}

/// Refuses prefixes that would cut the host off or that its administrator does not allow. `device` is the mesh
/// device: routes to it do not count.
///
/// # Errors
/// Every refused prefix with its first cause.
pub fn check_prefixes<'a>(
    prefixes: impl IntoIterator<Item = &'a IpNet>,
    inventory: &Inventory,
    facts: &HostFacts,
    allowed: Option<&[IpNet]>,
    device: &str,
) -> Result<(), Vec<Refused>> {
    let needed = needed(inventory, facts, device);
    let ours = inventory.link(device).map(|link| link.index);
    let foreign: Vec<&Route> = inventory
        .routes
        .iter()
        .filter(|route| !route.is_default() && !is_backstop(route))
        .filter(|route| ours.is_none() || route.device != ours)
        .collect();
    let refused: Vec<Refused> = prefixes
        .into_iter()
        .filter_map(|prefix| {
            let cause = not_allowed(prefix, allowed)
                .or_else(|| special(prefix))
                .or_else(|| covers(prefix, &needed))
                .or_else(|| covers_route(prefix, &foreign, inventory))?;
            Some(Refused { prefix: *prefix, cause })
        })
        .collect();
    if refused.is_empty() { Ok(()) } else { Err(refused) }
}

/// Whether a prefix covers what this host reaches everything else by: a default gateway, or an address of its underlay.
/// Guarding it would cut the host off, even if no route of the host's own lost its way.
#[must_use]
pub fn covers_underlay(prefix: &IpNet, inventory: &Inventory, device: &str) -> bool {
    let gateways =
        inventory.routes.iter().filter(|route| route.is_default()).flat_map(|route| &route.gateways);
    let own = underlay_addresses(inventory, device);
    gateways.chain(&own).any(|address| prefix.contains(address))
}

/// Every address the host needs, with what it is.
fn needed(inventory: &Inventory, facts: &HostFacts, device: &str) -> Vec<(String, IpAddr)> {
    let mut needed = Vec::new();
    for route in inventory.routes.iter().filter(|route| route.is_default()) {
        needed.extend(route.gateways.iter().map(|address| ("the default gateway".to_owned(), *address)));
    }
    needed.extend(facts.nameservers.iter().map(|address| ("the nameserver".to_owned(), *address)));
    // Who works through the mesh is cut off by leaving it, not by what is routed to it.
    let mesh = inventory.link(device).map(|link| &link.addresses);
    let by_mesh = |own: &IpAddr| mesh.is_some_and(|addresses| addresses.contains_key(own));
    let clients = facts.ssh_connections.iter().filter(|(own, _)| !by_mesh(own));
    needed.extend(clients.map(|(_, client)| ("the SSH client".to_owned(), *client)));
    needed.extend(facts.protected.iter().cloned());
    for link in inventory.links.values().filter(|link| link.name != device && !link.loopback) {
        let own = |address: &IpAddr| (format!("this host's address on {}", link.name), *address);
        needed.extend(link.addresses.keys().map(own));
    }
    needed
}

fn not_allowed(prefix: &IpNet, allowed: Option<&[IpNet]>) -> Option<Cause> {
    let allowed = allowed?;
    let inside = allowed.iter().any(|block| block.contains(prefix));
    (!inside).then(|| Cause::NotAllowed { allowed: allowed.to_vec() })
}

fn special(prefix: &IpNet) -> Option<Cause> {
    const V4: [(&str, [u8; 4], u8); 4] = [
        ("this network", [0, 0, 0, 0], 8),
        ("the loopback block", [127, 0, 0, 0], 8),
        ("the link-local block", [169, 254, 0, 0], 16),
        ("multicast and reserved addresses", [224, 0, 0, 0], 3),
    ];
    const V6: [(&str, [u16; 8], u8); 3] = [
        ("the loopback and mapped addresses", [0; 8], 64),
        ("the link-local block", [0xfe80, 0, 0, 0, 0, 0, 0, 0], 10),
        ("the multicast block", [0xff00, 0, 0, 0, 0, 0, 0, 0], 8),
    ];
    let v4 = V4.iter().map(|(what, octets, length)| (*what, IpAddr::from(*octets), *length));
    let v6 = V6.iter().map(|(what, segments, length)| (*what, IpAddr::from(*segments), *length));
    v4.chain(v6).find_map(|(what, address, length)| {
        let block = IpNet::new(address, length).ok()?;
        (block.contains(prefix) || prefix.contains(&block)).then_some(Cause::Special { what, block })
    })
}

fn covers(prefix: &IpNet, needed: &[(String, IpAddr)]) -> Option<Cause> {
    let (what, address) = needed.iter().find(|(_, address)| prefix.contains(address))?;
    Some(Cause::Covers { what: what.clone(), address: *address })
}

fn covers_route(prefix: &IpNet, foreign: &[&Route], inventory: &inventory::Inventory) -> Option<Cause> {
    let route = foreign.iter().find(|route| prefix.contains(&route.destination))?;
    let device = route.device.and_then(|index| inventory.links.get(&index)).map(|link| link.name.clone());
    Some(Cause::CoversRoute { destination: route.destination, device })
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Covers { what, address } => write!(f, "would cover {what} {address}"),
            Self::CoversRoute { destination, device: Some(device) } => {
                write!(f, "would cover the existing route {destination} dev {device}")
            }
            Self::CoversRoute { destination, device: None } => {
                write!(f, "would cover the existing route {destination}")
            }
            Self::Special { what, block } => write!(f, "overlaps {what} {block}"),
            Self::NotAllowed { allowed } if allowed.is_empty() => {
                write!(f, "is not allowed: `allowedCIDRs` of this host is empty")
            }
            Self::NotAllowed { allowed } => {
                let allowed: Vec<String> = allowed.iter().map(ToString::to_string).collect();
                write!(f, "is outside `allowedCIDRs` of this host ({})", allowed.join(", "))
            }
        }
    }
}

#[cfg(test)]
mod tests;
