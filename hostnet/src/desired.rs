//! What shall be there.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

/// The part of a host's network that is ours, as it shall be. The default is nothing, which is what `leave` wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// The mesh device.
    pub device: Option<Device>,
    /// Prefixes with an `unreachable` route of worst metric, so that nothing for the mesh ever leaves by another
    /// route when the device is down or gone.
    pub unreachable: BTreeSet<IpNet>,
}

/// The mesh device: a VXLAN device that takes tunnel facts from programs (`external`), without ARP and without
/// generated addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// The UDP port of the tunnel.
    pub port: u16,
    /// Its MTU.
    pub mtu: u32,
    /// Whether it is up. It is created down, and raised when its programs are attached. While it is down nothing
    /// is said about addresses and routes: the kernel keeps some of them and drops others.
    pub up: bool,
    /// The mesh addresses, each at full length.
    pub addresses: BTreeSet<IpAddr>,
    /// The prefixes routed to it, each with the source that local packets get.
    pub routes: BTreeMap<IpNet, Option<IpAddr>>,
}
