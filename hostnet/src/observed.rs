//! The part of an inventory that is ours.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::inventory::{Inventory, Link, Route, RouteKind};
use crate::mac::Mac;
use crate::{BACKSTOP_METRIC, ROUTE_PROTOCOL};

/// The part of a host's network that is ours, as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// The device that has the mesh device's name, whatever it is.
    pub device: Option<ObservedDevice>,
    /// The `unreachable` routes of every mesh of this host.
    pub unreachable: BTreeSet<IpNet>,
    /// The prefixes that other meshes of this host route to their devices.
    pub others: BTreeSet<IpNet>,
    /// Other external VXLAN devices, by port: two cannot share one.
    pub external_ports: BTreeMap<u16, String>,
}

/// The device that has the mesh device's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedDevice {
    /// Its name.
    pub name: String,
    /// Its index.
    pub index: u32,
    /// The port of the tunnel, if it is an external VXLAN device; `None` = it is something else.
    pub port: Option<u16>,
    /// Its MTU.
    pub mtu: u32,
    /// Its MAC.
    pub mac: Option<Mac>,
    /// Whether it is up.
    pub up: bool,
    /// Its addresses.
    pub addresses: BTreeSet<IpAddr>,
    /// Our routes to it, each with its source.
    pub routes: BTreeMap<IpNet, Option<IpAddr>>,
}

impl Observed {
    /// Picks what is ours: the device of that name, routes of our protocol number.
    #[must_use]
    pub fn of(inventory: &Inventory, device: &str) -> Self {
        let external = |link: &Link| link.vxlan.filter(|vxlan| vxlan.external).map(|vxlan| vxlan.port);
        let ours = || inventory.routes.iter().filter(|route| route.protocol == ROUTE_PROTOCOL);
        let index = inventory.link(device).map(|link| link.index);
        Self {
            device: inventory.link(device).map(|link| ObservedDevice {
                name: link.name.clone(),
                index: link.index,
                port: external(link),
                mtu: link.mtu,
                mac: link.mac,
                up: link.up,
                addresses: link.addresses.keys().copied().collect(),
                routes: ours()
                    .filter(|route| route.kind == RouteKind::Unicast && route.device == Some(link.index))
                    .map(|route| (route.destination, route.source))
                    .collect(),
            }),
            unreachable: ours().filter(|route| is_backstop(route)).map(|route| route.destination).collect(),
            others: ours()
                .filter(|route| {
                    route.kind == RouteKind::Unicast && (index.is_none() || route.device != index)
                })
                .map(|route| route.destination)
                .collect(),
            external_ports: inventory
                .links
                .values()
                .filter(|link| link.name != device)
                .filter_map(|link| Some((external(link)?, link.name.clone())))
                .collect(),
        }
    }
}

/// Whether this is an `unreachable` route behind the routes of a mesh. It names no device, so not whose.
pub(crate) fn is_backstop(route: &Route) -> bool {
    route.protocol == ROUTE_PROTOCOL
        && route.kind == RouteKind::Unreachable
        && route.metric == BACKSTOP_METRIC
}
