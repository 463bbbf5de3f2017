//! The network that traffic is measured in: a sender and two receivers, one with a policy and one without, which reach
//! each other by the mesh, by a plain VXLAN device of the kernel at the same MTU, and directly.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::cluster::{Cluster, Member};
use crate::host::Host;
use crate::process::Process;
use crate::traffic::load::{self, ServeReport};
use crate::wait::wait_for;

/// A way from the sender to a receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// The mesh.
    Ours,
    /// A device as ours, without programs, and a route that encapsulates.
    Plain,
    /// The network below both.
    Direct,
}

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// A receiver and its servers.
pub(super) struct Receiver {
    member: Member,
    number: u8,
    servers: Process,
}

/// The network.
pub(super) struct Bed {
    _cluster: Cluster,
    pub(super) sender: Member,
    /// A policy selects it and lets the sender reach the ports of the servers.
    pub(super) governed: Receiver,
    /// No policy selects it.
    pub(super) open: Receiver,
}

/// The sender's number among the plain tunnel's addresses.
const SENDER: u8 = 1;

/// Selects one receiver. One port of its servers stays closed.
const POLICY: &str = "\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: shop, name: bench}
spec:
  podSelector: {matchLabels: {app: db}}
  policyTypes: [Ingress]
  ingress:
    - from: [{podSelector: {matchLabels: {app: api}}}]
      ports:
        - {protocol: TCP, port: 9002, endPort: 9005}
        - {protocol: UDP, port: 9002, endPort: 9005}
";

impl Bed {
    pub(super) fn try_new() -> Result<Self> {
        let cluster = Cluster::try_new()?;
        for group in ["db", "api", "batch"] {
            cluster.group(group)?;
        }
        cluster.gateway.apply("bench.yaml", POLICY)?;
        let sender = cluster.member("api", "sender")?;
        let governed = Receiver::try_new(cluster.member("db", "governed")?, 2)?;
        let open = Receiver::try_new(cluster.member("batch", "open")?, 3)?;
        cluster.settle()?;
        let mtu = mtu(&sender.host)?;
        plain_device(&sender.host, SENDER, mtu)?;
        for receiver in [&governed, &open] {
            let host = &receiver.member.host;
            plain_device(host, receiver.number, mtu)?;
            plain_route(&sender.host, receiver.number, host)?;
            plain_route(host, SENDER, &sender.host)?;
        }
        Ok(Self { _cluster: cluster, sender, governed, open })
    }
}

impl Receiver {
    fn try_new(member: Member, number: u8) -> Result<Self> {
        let servers = member.host.traffic("servers", "load-serve")?;
        wait_for("the servers", Duration::from_secs(5), || {
            servers.report::<ServeReport>().is_ok_and(|report| report.listening)
        })?;
        Ok(Self { member, number, servers })
    }

    /// Where the sender finds it.
    pub(super) fn address(&self, way: Way, family: Family) -> Result<IpAddr> {
        let [mesh4, mesh6] = self.member.addresses()?;
        Ok(match (way, family) {
            (Way::Ours, Family::V4) => mesh4,
            (Way::Ours, Family::V6) => mesh6,
            (Way::Plain, Family::V4) => plain_v4(self.number).into(),
            (Way::Plain, Family::V6) => plain_v6(self.number).into(),
            (Way::Direct, Family::V4) => self.member.host.v4().into(),
            (Way::Direct, Family::V6) => self.member.host.v6().into(),
        })
    }

    /// Datagrams that arrived at the open and at the closed port so far, once no more come.
    pub(super) fn datagrams(&self) -> Result<[u64; 2]> {
        let counts = || self.servers.report::<ServeReport>().map(|report| [report.datagrams, report.closed]);
        let mut last = counts()?;
        let mut since = 0;
        // A report is written every 20 ms if it changed: unchanged for five polls of 10 ms means at rest.
        wait_for("datagrams to be counted", Duration::from_secs(5), || {
            let now = counts().unwrap_or(last);
            since = if now == last { since + 1 } else { 0 };
            last = now;
            since >= 5
        })?;
        Ok(last)
    }

    /// Fails if anything came to the port that the policy closes.
    pub(super) fn check_closed(&self, sender: &Member) -> Result<()> {
        let [_, before] = self.datagrams()?;
        for family in [Family::V4, Family::V6] {
            let to = std::net::SocketAddr::new(self.address(Way::Ours, family)?, load::CLOSED);
            let words = ["traffic", "udp-flood", "--to", &to.to_string(), "--ms", "50"];
            sender.host.run(&words)?.ok()?;
        }
        let [_, after] = self.datagrams()?;
        ensure!(before == after, "{} datagrams came to a port that the policy closes", after - before);
        Ok(())
    }
}

fn plain_v4(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, number)
}

fn plain_v6(number: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, u16::from(number))
}

fn mac(number: u8) -> String {
    format!("02:00:00:00:00:{number:02x}")
}

/// The MTU of the mesh device.
fn mtu(host: &Host) -> Result<u64> {
    let devices = host.devices()?;
    let device = devices.as_array().into_iter().flatten().find(|device| device["ifname"] == "ogr0");
    device.and_then(|device| device["mtu"].as_u64()).context("the mesh device has no MTU")
}

fn plain_device(host: &Host, number: u8, mtu: u64) -> Result<()> {
    let (v4, v6, mac) = (plain_v4(number), plain_v6(number), mac(number));
    host.namespace().ip(&format!(
        "link add plain0 address {mac} type vxlan external dstport 4789\n\
         link set plain0 mtu {mtu} up\n\
         addr add {v4}/32 dev plain0\n\
         addr add {v6}/128 dev plain0 nodad"
    ))
}

fn plain_route(host: &Host, number: u8, to: &Host) -> Result<()> {
    let (v4, v6, mac, underlay) = (plain_v4(number), plain_v6(number), mac(number), to.v4());
    host.namespace().ip(&format!(
        "route add {v4}/32 encap ip id 77 dst {underlay} dev plain0\n\
         neigh add {v4} lladdr {mac} dev plain0\n\
         route add {v6}/128 encap ip id 77 dst {underlay} dev plain0\n\
         neigh add {v6} lladdr {mac} dev plain0"
    ))
}
