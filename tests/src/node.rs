//! A cluster node: a machine with pods behind routed veths, as a CNI without an overlay would leave it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Deref;

use anyhow::Result;

use crate::host::Host;
use crate::net::Underlay;

/// A cluster node.
#[derive(Clone, Debug)]
pub struct Node {
    host: Host,
    number: u8,
}

/// A pod: a machine whose only way out is its node.
#[derive(Clone, Debug)]
pub struct Pod {
    host: Host,
    node: String,
    device: String,
}

impl Deref for Node {
    type Target = Host;

    fn deref(&self) -> &Host {
        &self.host
    }
}

impl Deref for Pod {
    type Target = Host;

    fn deref(&self) -> &Host {
        &self.host
    }
}

impl Node {
    pub(crate) fn try_new(host: Host, number: u8) -> Result<Self> {
        host.namespace().sysctl("net/ipv4/ip_forward", "1")?;
        host.namespace().sysctl("net/ipv6/conf/all/forwarding", "1")?;
        Ok(Self { host, number })
    }

    /// The machine itself.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Adds a pod, the `index`th of this node (from 2).
    pub fn pod(&self, name: &str, index: u8) -> Result<Pod> {
        let node = u16::from(self.number);
        let v4 = Ipv4Addr::new(10, 100, self.number, index);
        let v6 = Ipv6Addr::new(0xfd00, 0x100, node, 0, 0, 0, 0, u16::from(index));
        let gateway = Ipv4Addr::new(10, 100, self.number, 1);
        let device = format!("pod{index}");
        let namespace = self.net().namespace(name)?;
        self.namespace().ip(&format!(
            "link add {device} type veth peer name eth0 netns {pod}\n\
             link set {device} up\n\
             addr add {gateway}/32 dev {device}\n\
             addr add fe80::1/64 dev {device} nodad\n\
             route add {v4}/32 dev {device}\n\
             route add {v6}/128 dev {device}\n",
            pod = namespace.name()
        ))?;
        namespace.ip(&format!(
            "link set eth0 up\n\
             addr add {v4}/32 dev eth0\n\
             addr add {v6}/128 dev eth0 nodad\n\
             route add {gateway}/32 dev eth0\n\
             route add default via {gateway} dev eth0\n\
             route add default via fe80::1 dev eth0\n"
        ))?;
        let host = Host::try_new(self.net().clone(), name, namespace, (v4, v6), Underlay::Dual)?;
        Ok(Pod { host, node: self.name().to_owned(), device })
    }
}

impl Pod {
    /// Its addresses.
    #[must_use]
    pub fn addresses(&self) -> [IpAddr; 2] {
        [self.v4().into(), self.v6().into()]
    }

    /// Its node's name.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node
    }

    /// The node's end of its veth.
    #[must_use]
    pub fn device(&self) -> &str {
        &self.device
    }
}
