//! What leads from the observed to the desired. Pure.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::desired::{Desired, Device};
use crate::mac::Mac;
use crate::observed::{Observed, ObservedDevice};

/// Operations in the order in which they must be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// What is done before the tables are published: additions and changes.
    pub before: Vec<Operation>,
    /// What is done after: removals.
    pub after: Vec<Operation>,
}

/// One change of the kernel's network state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Add an `unreachable` route of worst metric.
    AddUnreachable(IpNet),
    /// Remove one.
    RemoveUnreachable(IpNet),
    /// Create the mesh device, down and without addresses.
    CreateDevice {
        /// Its name.
        name: String,
        /// The UDP port of the tunnel.
        port: u16,
        /// Its MTU.
        mtu: u32,
        /// Its MAC; `None` = whatever the kernel chooses.
        mac: Option<Mac>,
    },
    /// Delete the mesh device, and with it its addresses and routes.
    DeleteDevice(String),
    /// Change the MTU.
    SetMtu {
        /// The device.
        device: String,
        /// The new MTU.
        mtu: u32,
    },
    /// Change the MAC, which a device that is up takes as well.
    SetMac {
        /// The device.
        device: String,
        /// The new MAC.
        mac: Mac,
    },
    /// Raise the device.
    SetUp {
        /// The device.
        device: String,
        /// Its UDP port, which is opened now.
        port: u16,
    },
    /// Take the device down.
    SetDown(String),
    /// Add an address at full length.
    AddAddress {
        /// The device.
        device: String,
        /// The address.
        address: IpAddr,
    },
    /// Remove an address.
    RemoveAddress {
        /// The device.
        device: String,
        /// The address.
        address: IpAddr,
    },
    /// Route a prefix to the device.
    AddRoute {
        /// The device.
        device: String,
        /// The prefix.
        prefix: IpNet,
        /// The source that local packets get.
        source: Option<IpAddr>,
    },
    /// Remove our route of a prefix.
    RemoveRoute {
        /// The device.
        device: String,
        /// The prefix.
        prefix: IpNet,
    },
}

/// Something that is not ours is in the way.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// The name is taken.
    #[error(
        "the device name {0} is taken by a device that is no external VXLAN device; remove it or set `device` to \
         another name"
    )]
    NameTaken(String),
    /// The port is taken.
    #[error(
        "UDP port {port} is taken by {other}, another external VXLAN device in this network namespace; the mesh \
         needs a tunnel port of its own (`tunnelPort` of the gateway)"
    )]
    PortTaken {
        /// The port.
        port: u16,
        /// The device that has it.
        other: String,
    },
}

/// Plans what leads from `observed` to `desired`; empty when nothing has to change.
///
/// # Errors
/// [`Conflict`] when something that is not ours is in the way; nothing is planned then.
pub fn plan(observed: &Observed, desired: &Desired) -> Result<Plan, Conflict> {
    let mut plan = Plan::default();
    let missing = desired.unreachable.difference(&observed.unreachable);
    plan.before.extend(missing.copied().map(Operation::AddUnreachable));
    match (&observed.device, &desired.device) {
        (Some(there), None) if there.port.is_some() => {
            plan.after.push(Operation::DeleteDevice(there.name.clone()));
        }
        (_, None) => {}
        (there, Some(wanted)) => {
            let kept = keep_device(observed, there.as_ref(), wanted, &mut plan)?;
            converge_device(kept, wanted, &mut plan);
        }
    }
    // Only leaving removes backstops: nothing for what once was the mesh goes out in clear, and those of another mesh,
    // whose routes go with its device, are not taken for stale.
    if *desired == Desired::default() {
        let stale = observed.unreachable.difference(&observed.others);
        plan.after.extend(stale.copied().map(Operation::RemoveUnreachable));
    }
    Ok(plan)
}

/// Decides between keeping the device, replacing it, creating it. Returns it if it is kept.
fn keep_device<'a>(
    observed: &Observed,
    there: Option<&'a ObservedDevice>,
    wanted: &Device,
    plan: &mut Plan,
) -> Result<Option<&'a ObservedDevice>, Conflict> {
    match there {
        Some(device) if device.port.is_none() => return Err(Conflict::NameTaken(device.name.clone())),
        Some(device) if device.port == Some(wanted.port) => return Ok(Some(device)),
        Some(_) | None => {}
    }
    if let Some(other) = observed.external_ports.get(&wanted.port) {
        return Err(Conflict::PortTaken { port: wanted.port, other: other.clone() });
    }
    if let Some(device) = there {
        plan.before.push(Operation::DeleteDevice(device.name.clone()));
    }
    plan.before.push(Operation::CreateDevice {
        name: wanted.name.clone(),
        port: wanted.port,
        mtu: wanted.mtu,
        mac: Mac::of(&wanted.addresses),
    });
    Ok(None)
}

fn converge_device(there: Option<&ObservedDevice>, wanted: &Device, plan: &mut Plan) {
    let device = &wanted.name;
    if let Some(there) = there
        && there.mtu != wanted.mtu
    {
        plan.before.push(Operation::SetMtu { device: device.clone(), mtu: wanted.mtu });
    }
    if let (Some(there), Some(mac)) = (there, Mac::of(&wanted.addresses))
        && there.mac != Some(mac)
    {
        plan.before.push(Operation::SetMac { device: device.clone(), mac });
    }
    let was_up = there.is_some_and(|there| there.up);
    if !wanted.up {
        if was_up {
            plan.before.push(Operation::SetDown(device.clone()));
        }
        return;
    }
    if !was_up {
        plan.before.push(Operation::SetUp { device: device.clone(), port: wanted.port });
    }
    // Raising and lowering a device moves routes and IPv6 addresses under our feet: what was seen while it was
    // down is still true for addresses, and no route can be there.
    for address in &wanted.addresses {
        if !there.is_some_and(|there| there.addresses.contains(address)) {
            plan.before.push(Operation::AddAddress { device: device.clone(), address: *address });
        }
    }
    for (prefix, source) in &wanted.routes {
        match there.and_then(|there| there.routes.get(prefix)) {
            Some(current) if current == source => continue,
            Some(_) => {
                plan.before.push(Operation::RemoveRoute { device: device.clone(), prefix: *prefix });
            }
            None => {}
        }
        plan.before.push(Operation::AddRoute { device: device.clone(), prefix: *prefix, source: *source });
    }
    let Some(there) = there else { return };
    for prefix in there.routes.keys().filter(|prefix| !wanted.routes.contains_key(prefix)) {
        plan.after.push(Operation::RemoveRoute { device: device.clone(), prefix: *prefix });
    }
    for address in there.addresses.difference(&wanted.addresses) {
        plan.after.push(Operation::RemoveAddress { device: device.clone(), address: *address });
    }
}

impl Plan {
    /// Whether nothing has to change.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.before.is_empty() && self.after.is_empty()
    }

    /// All operations in order.
    pub fn operations(&self) -> impl Iterator<Item = &Operation> {
        self.before.iter().chain(&self.after)
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddUnreachable(prefix) => write!(f, "add route unreachable {prefix}"),
            Self::RemoveUnreachable(prefix) => write!(f, "remove route unreachable {prefix}"),
            Self::CreateDevice { name, port, mtu, mac: _ } => {
                write!(f, "create VXLAN device {name} (UDP port {port}, MTU {mtu})")
            }
            Self::DeleteDevice(name) => write!(f, "delete device {name}"),
            Self::SetMtu { device, mtu } => write!(f, "set MTU of {device} to {mtu}"),
            Self::SetMac { device, mac } => write!(f, "set MAC of {device} to {mac}"),
            Self::SetUp { device, port } => write!(f, "set {device} up (UDP port {port})"),
            Self::SetDown(device) => write!(f, "set {device} down"),
            Self::AddAddress { device, address } => write!(f, "add address {address} to {device}"),
            Self::RemoveAddress { device, address } => write!(f, "remove address {address} from {device}"),
            Self::AddRoute { device, prefix, source: Some(source) } => {
                write!(f, "add route {prefix} to {device} with source {source}")
            }
            Self::AddRoute { device, prefix, source: None } => write!(f, "add route {prefix} to {device}"),
            Self::RemoveRoute { device, prefix } => write!(f, "remove route {prefix} to {device}"),
        }
    }
}

#[cfg(test)]
mod tests;
