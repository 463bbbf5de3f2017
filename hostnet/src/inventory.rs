//! What is there: a dump of links, addresses and routes.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::mac::Mac;

/// The links and routes of one network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// The links by index.
    pub links: BTreeMap<u32, Link>,
    /// The routes of every table except `local`.
    pub routes: Vec<Route>,
}

/// A network device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// The kind of a virtual device ("veth", "bridge", "vxlan"); `None` for hardware.
    pub kind: Option<String>,
    /// Whether an administrator set it up.
    pub up: bool,
    /// Whether it is the loopback device.
    pub loopback: bool,
    /// Its MTU.
    pub mtu: u32,
    /// Its MAC; `None` where it has none, or one that is not Ethernet's.
    pub mac: Option<Mac>,
    /// The bridge or bond it is a port of.
    pub controller: Option<u32>,
    /// Its addresses.
    pub addresses: BTreeMap<IpAddr, LinkAddress>,
    /// What is particular to VXLAN devices.
    pub vxlan: Option<Vxlan>,
}

/// What is known about an address of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkAddress {
    /// The length of its prefix.
    pub prefix_len: u8,
    /// Whether it can be used as a source: neither tentative, nor deprecated, nor a duplicate, nor temporary.
    pub usable: bool,
}

/// What is particular to a VXLAN device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vxlan {
    /// Its UDP port.
    pub port: u16,
    /// Whether programs and routes say where packets go (`external`, also called collect-metadata).
    pub external: bool,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The destination; length 0 is a default route.
    pub destination: IpNet,
    /// What happens to packets that match.
    pub kind: RouteKind,
    /// The number of the routing protocol that installed it.
    pub protocol: u8,
    /// The table.
    pub table: u32,
    /// The device; `None` for several and for `unreachable`.
    pub device: Option<u32>,
    /// The next hops' addresses.
    pub gateways: Vec<IpAddr>,
    /// The source that local packets get.
    pub source: Option<IpAddr>,
    /// The metric.
    pub metric: u32,
}

/// What happens to packets that match a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteKind {
    /// They are sent on.
    Unicast,
    /// They are refused with an ICMP error.
    Unreachable,
    /// Anything else.
    Other,
}

impl Inventory {
    /// The link of that name.
    #[must_use]
    pub fn link(&self, name: &str) -> Option<&Link> {
        self.links.values().find(|link| link.name == name)
    }

    /// Whether a default route leads over the link.
    #[must_use]
    pub fn has_default_route(&self, index: u32) -> bool {
        self.routes.iter().any(|route| route.is_default() && route.device == Some(index))
    }
}

impl Route {
    /// Whether this is a default route.
    #[must_use]
    pub fn is_default(&self) -> bool {
        self.destination.prefix_len() == 0
    }
}
