//! The double: a kernel in memory, with those of the real one's habits that plans depend on.

use std::io;

use ipnet::IpNet;

use crate::inventory::{Inventory, Link, LinkAddress, Route, RouteKind, Vxlan};
use crate::kernel::{ApplyError, Kernel};
use crate::mac::Mac;
use crate::plan::Operation;
use crate::{BACKSTOP_METRIC, ROUTE_PROTOCOL};

/// An inventory that operations change as the kernel would: a deleted device takes its addresses and routes along,
/// one set down its routes and IPv6 addresses; routes need a device that is up.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// What is there.
    pub inventory: Inventory,
}

/// One of our routes, to nowhere yet.
fn route(destination: IpNet) -> Route {
    const MAIN_TABLE: u32 = 254;
    Route {
        destination,
        kind: RouteKind::Unicast,
        protocol: ROUTE_PROTOCOL,
        table: MAIN_TABLE,
        device: None,
        gateways: Vec::new(),
        source: None,
        metric: 0,
    }
}

impl Kernel for Memory {
    async fn inventory(&mut self) -> io::Result<Inventory> {
        Ok(self.inventory.clone())
    }

    async fn apply(&mut self, operation: &Operation) -> Result<(), ApplyError> {
        self.change(operation).map_err(|kind| match (kind, operation) {
            (
                io::ErrorKind::AddrInUse,
                Operation::CreateDevice { port, .. } | Operation::SetUp { port, .. },
            ) => ApplyError::PortInUse { operation: operation.clone(), port: *port },
            _ => ApplyError::Refused { operation: operation.clone(), source: kind.into() },
        })
    }
}

impl Memory {
    fn change(&mut self, operation: &Operation) -> Result<(), io::ErrorKind> {
        match operation {
            Operation::AddUnreachable(prefix) => {
                self.add_route(Route {
                    kind: RouteKind::Unreachable,
                    metric: BACKSTOP_METRIC,
                    ..route(*prefix)
                })?;
            }
            Operation::RemoveUnreachable(prefix) => {
                self.inventory
                    .routes
                    .retain(|route| route.destination != *prefix || route.kind != RouteKind::Unreachable);
            }
            Operation::CreateDevice { name, port, mtu, mac } => self.create(name, *port, *mtu, *mac)?,
            Operation::DeleteDevice(name) => {
                let index = self.link(name)?.index;
                self.inventory.links.remove(&index);
                self.inventory.routes.retain(|route| route.device != Some(index));
            }
            Operation::SetMtu { device, mtu } => self.link(device)?.mtu = *mtu,
            Operation::SetMac { device, mac } => self.link(device)?.mac = Some(*mac),
            Operation::SetUp { device, port: _ } => self.link(device)?.up = true,
            Operation::SetDown(device) => {
                let link = self.link(device)?;
                link.up = false;
                link.addresses.retain(|address, _| address.is_ipv4());
                let index = link.index;
                self.inventory.routes.retain(|route| route.device != Some(index));
            }
            Operation::AddAddress { device, address } => {
                let prefix_len = if address.is_ipv4() { 32 } else { 128 };
                self.link(device)?.addresses.insert(*address, LinkAddress { prefix_len, usable: true });
            }
            Operation::RemoveAddress { device, address } => {
                self.link(device)?.addresses.remove(address);
                self.inventory.routes.retain(|route| route.source != Some(*address));
            }
            Operation::AddRoute { device, prefix, source } => {
                let link = self.link(device)?;
                if !link.up || source.is_some_and(|source| !link.addresses.contains_key(&source)) {
                    return Err(io::ErrorKind::NetworkDown);
                }
                let device = Some(link.index);
                self.add_route(Route { device, source: *source, ..route(*prefix) })?;
            }
            Operation::RemoveRoute { device, prefix } => {
                let index = self.link(device)?.index;
                self.inventory
                    .routes
                    .retain(|route| route.destination != *prefix || route.device != Some(index));
            }
        }
        Ok(())
    }

    fn create(&mut self, name: &str, port: u16, mtu: u32, mac: Option<Mac>) -> Result<(), io::ErrorKind> {
        let vxlan = Some(Vxlan { port, external: true });
        let mut links = self.inventory.links.values();
        if links.any(|link| link.name == name || link.vxlan == vxlan) {
            return Err(io::ErrorKind::AddrInUse);
        }
        let index = self.inventory.links.keys().next_back().map_or(1, |last| last + 1);
        let kind = Some("vxlan".to_owned());
        let link = Link { index, name: name.to_owned(), kind, mtu, mac, vxlan, ..Link::default() };
        self.inventory.links.insert(index, link);
        Ok(())
    }

    fn add_route(&mut self, route: Route) -> Result<(), io::ErrorKind> {
        let taken = |other: &Route| {
            other.destination == route.destination
                && other.table == route.table
                && other.metric == route.metric
        };
        if self.inventory.routes.iter().any(taken) {
            return Err(io::ErrorKind::AlreadyExists);
        }
        self.inventory.routes.push(route);
        Ok(())
    }

    fn link(&mut self, name: &str) -> Result<&mut Link, io::ErrorKind> {
        self.inventory.links.values_mut().find(|link| link.name == name).ok_or(io::ErrorKind::NotFound)
    }
}
