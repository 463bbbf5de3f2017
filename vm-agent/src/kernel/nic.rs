//! What governs the NICs of this host now: which devices, whose addresses, which policy, and what it never closes. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use hostnet::{HostFacts, Inventory, nics};
use ipnet::{IpNet, Ipv4Net};
use policy::identity::Identity;
use policy::state::{
    Block, DirectionPolicy, Mode, NodeSettings, Peers, Policy, PortRange, Ports, Reach, Rule, RuleAction,
};
use tokio::sync::watch;

use super::KernelConfig;
use crate::failsafe::{Failsafe, Failsafes};
use crate::nic::Digest;

#[cfg(test)]
mod tests;

/// What is in force about the policy of NICs, as whoever watches over it says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NicOrders {
    /// The policy that is known not to cut the host off.
    pub confirmed: Option<(Digest, Arc<Policy>)>,
    /// The one that is being tried, and the tick of the monotonic clock after which it only reports.
    pub trial: Option<(Digest, u32)>,
    /// Whether an administrator has policy only reported here.
    pub audit: bool,
}

/// What the kernel's owner is told about NICs.
#[derive(Clone, Debug)]
pub struct NicConfig {
    /// What is in force, as it changes.
    pub orders: watch::Receiver<Arc<NicOrders>>,
    /// What policy never closes.
    pub failsafes: Failsafes,
}

impl NicConfig {
    /// Nobody watches: nothing is ever enforced on a NIC.
    #[must_use]
    pub fn unwatched() -> Self {
        Self { orders: watch::channel(Arc::default()).1, failsafes: Failsafes::default() }
    }
}

/// What governs the NICs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NicImage {
    /// The policy with what it never closes.
    pub(super) policy: Arc<Policy>,
    /// Whether it is only reported.
    pub(super) audit: bool,
    /// The tick after which it only reports; 0 = it is confirmed.
    pub(super) deadline: u32,
    /// Where it holds, by index.
    pub(super) devices: BTreeMap<u32, String>,
    /// The addresses of this host, broadcast ones too.
    pub(super) own: BTreeSet<IpAddr>,
    /// The port of tunnels, which stays open to nodes; 0 = it does not.
    pub(super) tunnel_port: u16,
    /// What stays open, for people.
    pub(super) open: Vec<String>,
}

/// What runs on the NICs, for `status`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NicStatus {
    /// The policy with what it never closes.
    pub policy: Arc<Policy>,
    /// The devices.
    pub devices: Vec<String>,
    /// Whether what policy denies is only reported.
    pub audit: bool,
    /// The tick after which it is; 0 = never.
    pub deadline: u32,
    /// What policy never closes.
    pub open: Vec<String>,
}

/// What an image is made of.
pub(super) struct Surroundings<'a> {
    pub(super) config: &'a KernelConfig,
    pub(super) inventory: &'a Inventory,
    pub(super) facts: &'a HostFacts,
    /// Ports of sshd.
    pub(super) ssh: &'a BTreeSet<u16>,
}

/// Which policy, whether it only reports, and until when it is enforced.
pub(super) fn choose(settings: &NodeSettings, orders: &NicOrders) -> Option<(Arc<Policy>, bool, u32)> {
    let nic = settings.nic.as_ref()?;
    let only_reported = (Arc::clone(&nic.policy), true, 0);
    if orders.audit || nic.mode == Mode::Audit || settings.mode == Mode::Audit {
        return Some(only_reported);
    }
    let digest = Digest::of(&nic.policy);
    match (&orders.confirmed, orders.trial) {
        (_, Some((trial, deadline))) if trial == digest => Some((Arc::clone(&nic.policy), false, deadline)),
        // This one, or the last one that did no harm.
        (Some((_, confirmed)), _) => Some((Arc::clone(confirmed), false, 0)),
        (None, _) => Some(only_reported),
    }
}

impl Surroundings<'_> {
    /// What governs the NICs; `None` = nothing does.
    pub(super) fn image(&self, settings: &NodeSettings) -> Option<NicImage> {
        let nic = &self.config.nic;
        let orders = Arc::clone(&nic.orders.borrow());
        let (policy, audit, deadline) = choose(settings, &orders)?;
        let links = nics(self.inventory, &self.config.device);
        let addresses = self.inventory.links.values().filter(|link| link.name != self.config.device);
        let own = addresses.flat_map(|link| &link.addresses).flat_map(|(address, known)| {
            [Some(*address), broadcast(*address, known.prefix_len)].into_iter().flatten()
        });
        let is_tunnel_open = nic.failsafes.has(Failsafe::Tunnel);
        let rules = self.rules(&nic.failsafes);
        Some(NicImage {
            policy: Arc::new(with(&policy, &rules)),
            audit,
            deadline,
            devices: links.into_iter().map(|link| (link.index, link.name.clone())).collect(),
            own: own.collect(),
            tunnel_port: if is_tunnel_open { settings.tunnel_port } else { 0 },
            open: describe(&rules, is_tunnel_open.then_some(settings.tunnel_port)),
        })
    }

    /// What policy never closes, as rules that come before all others.
    fn rules(&self, failsafes: &Failsafes) -> [Vec<Rule>; 2] {
        let (mut ingress, mut egress) = (Vec::new(), Vec::new());
        let sources =
            failsafes.sources.as_ref().map_or(Peers::Any, |sources| blocks(sources.iter().copied()));
        let mut ports: BTreeSet<u16> = failsafes.ports.iter().copied().collect();
        if failsafes.has(Failsafe::Ssh) {
            ports.extend(self.ssh);
        }
        if !ports.is_empty() {
            ingress.push(rule("ssh", sources, ports.into_iter().map(|port| of(TCP, port)).collect()));
        }
        if failsafes.has(Failsafe::Gateway) {
            let gateways = self.facts.protected.iter().filter(|(what, _)| what.starts_with("gateway "));
            let gateways = blocks(gateways.map(|(_, address)| IpNet::from(*address)));
            egress.push(rule("gateway", gateways, vec![every(TCP)]));
        }
        if failsafes.has(Failsafe::Dhcp) {
            ingress.push(rule("dhcp", Peers::Any, vec![of(UDP, 68), of(UDP, 546)]));
            egress.push(rule("dhcp", Peers::Any, vec![of(UDP, 67), of(UDP, 547)]));
        }
        if failsafes.has(Failsafe::Ntp) {
            egress.push(rule("ntp", Peers::Any, vec![of(UDP, 123)]));
        }
        if failsafes.has(Failsafe::Dns) {
            let resolvers = blocks(self.facts.nameservers.iter().map(|address| IpNet::from(*address)));
            egress.push(rule("dns", resolvers, vec![of(UDP, 53), of(TCP, 53)]));
        }
        [ingress, egress]
    }
}

const TCP: u8 = 6;
const UDP: u8 = 17;

const fn of(protocol: u8, port: u16) -> PortRange {
    PortRange { protocol, first: port, last: port }
}

const fn every(protocol: u8) -> PortRange {
    PortRange { protocol, first: 0, last: u16::MAX }
}

fn blocks(addresses: impl Iterator<Item = IpNet>) -> Peers {
    let block = |cidr| Block { cidr, except: Vec::new(), reach: Reach::Everyone };
    let blocks: BTreeSet<Block> = addresses.map(block).collect();
    Peers::Only { identities: Arc::new(BTreeSet::<Identity>::new()), blocks: blocks.into_iter().collect() }
}

fn rule(name: &str, peers: Peers, ports: Vec<PortRange>) -> Rule {
    Rule {
        origin: format!("failsafe/{name}").into(),
        peers,
        ports: Ports::Only(ports),
        action: RuleAction::Allow,
        precedence: policy::rules::precedence::FAILSAFE,
    }
}

fn with(policy: &Policy, [ingress, egress]: &[Vec<Rule>; 2]) -> Policy {
    let add = |direction: &DirectionPolicy, rules: &[Rule]| DirectionPolicy {
        default: direction.default.clone(),
        rules: [direction.rules.as_slice(), rules].concat(),
    };
    Policy { ingress: add(&policy.ingress, ingress), egress: add(&policy.egress, egress) }
}

/// What stays open, one line for each.
fn describe([ingress, egress]: &[Vec<Rule>; 2], tunnel: Option<u16>) -> Vec<String> {
    let line = |way: &str, rule: &Rule| {
        let Ports::Only(ports) = &rule.ports else { return rule.origin.to_string() };
        let ports: Vec<String> = ports.iter().copied().map(port).collect();
        let peers = match &rule.peers {
            Peers::Any => "anybody".to_owned(),
            Peers::Only { blocks, .. } => {
                let blocks: Vec<String> = blocks.iter().map(|block| block.cidr.to_string()).collect();
                if blocks.is_empty() { "nobody".to_owned() } else { blocks.join(", ") }
            }
        };
        let name = rule.origin.strip_prefix("failsafe/").unwrap_or(&rule.origin);
        format!("{name}: {} {way} {peers}", ports.join(", "))
    };
    let mut lines: Vec<String> = ingress.iter().map(|rule| line("from", rule)).collect();
    lines.extend(egress.iter().map(|rule| line("to", rule)));
    lines.extend(tunnel.map(|port| format!("tunnel: udp/{port} from and to nodes of the mesh")));
    lines
}

fn port(range: PortRange) -> String {
    let name = if range.protocol == TCP { "tcp" } else { "udp" };
    if range.first == range.last { format!("{name}/{}", range.first) } else { name.to_owned() }
}

/// What reaches everybody in the network of an address.
fn broadcast(address: IpAddr, prefix_len: u8) -> Option<IpAddr> {
    let IpAddr::V4(v4) = address else { return None };
    let network = Ipv4Net::new(v4, prefix_len).ok()?;
    let broadcast: Ipv4Addr = network.broadcast();
    (prefix_len < 31).then_some(IpAddr::V4(broadcast))
}
