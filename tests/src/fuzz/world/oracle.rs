//! A second reading of every policy language, from their documentation and ours: from the objects and the cluster, with
//! nothing of the policy crate.

mod cilium;
mod labels;
mod network;
mod ports;
mod tiers;

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::Value;

use super::cluster::{Cluster, Kind, Thing};

/// A flow from or to a workload.
#[derive(Clone, Copy, Debug)]
pub(super) struct Probe<'a> {
    pub(super) subject: &'a Thing,
    pub(super) ingress: bool,
    /// Who has the address.
    pub(super) remote: Option<&'a Thing>,
    pub(super) address: IpAddr,
    pub(super) protocol: u8,
    /// The destination port, or the type of ICMP.
    pub(super) port: u16,
}

impl<'a> Probe<'a> {
    const fn direction(&self) -> &'static str {
        if self.ingress { "ingress" } else { "egress" }
    }

    /// Selectors choose pods and workloads. A transit node has no labels that they could match.
    fn endpoint(&self) -> Option<&'a Thing> {
        self.remote.filter(|thing| thing.kind != Kind::Transit)
    }

    fn is_node(&self) -> bool {
        self.remote.is_some_and(|thing| thing.kind == Kind::Transit)
    }
}

/// What happens to a flow, and all that may be named as the reason.
#[derive(Debug)]
pub(super) struct Ruling {
    pub(super) allowed: bool,
    pub(super) because: BTreeSet<String>,
}

/// The first of these decides where objects of one priority disagree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Action {
    Deny,
    Pass,
    Allow,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tier {
    Admin,
    Namespaces,
    Baseline,
}

/// A rule that matches.
#[derive(Debug)]
struct Match {
    tier: Tier,
    /// Priority and place: the lowest decides.
    order: (u64, usize),
    action: Action,
    origin: String,
}

/// What all objects say to one flow.
#[derive(Debug, Default)]
struct Findings {
    matches: Vec<Match>,
    /// The objects that deny what they do not allow.
    isolating: BTreeSet<String>,
}

pub(super) fn rule(cluster: &Cluster, probe: &Probe<'_>) -> Ruling {
    let mut findings = Findings::default();
    for object in &cluster.policies {
        match text(&object["kind"]) {
            "NetworkPolicy" => network::read(cluster, object, probe, &mut findings),
            "CiliumNetworkPolicy" | "CiliumClusterwideNetworkPolicy" => {
                cilium::read(cluster, object, probe, &mut findings);
            }
            _ => tiers::read(cluster, object, probe, &mut findings),
        }
    }
    findings.decide(probe.direction())
}

impl Findings {
    fn decide(&self, direction: &str) -> Ruling {
        if let Some(ruling) = self.tier(Tier::Admin).or_else(|| self.tier(Tier::Namespaces)) {
            return ruling;
        }
        if !self.isolating.is_empty() {
            let by: Vec<&str> = self.isolating.iter().map(String::as_str).collect();
            let reason = format!("default-deny {direction} ({})", by.join(", "));
            return Ruling { allowed: false, because: BTreeSet::from([reason]) };
        }
        self.tier(Tier::Baseline).unwrap_or_else(|| {
            // What the baseline passes is allowed, also by an equal rule that says so.
            let of_tier = || self.matches.iter().filter(|found| found.tier == Tier::Baseline);
            let first = of_tier().map(|found| found.order).min();
            let equal = of_tier().filter(|found| Some(found.order) == first && found.action == Action::Allow);
            let because = equal.map(|found| found.origin.clone());
            Ruling { allowed: true, because: because.chain([format!("default-allow {direction}")]).collect() }
        })
    }

    /// What a tier says, unless it leaves the flow to the next one.
    fn tier(&self, tier: Tier) -> Option<Ruling> {
        let strength = |found: &Match| (found.order, found.action);
        let of_tier = || self.matches.iter().filter(|found| found.tier == tier);
        let strongest = of_tier().map(strength).min()?;
        let because = of_tier().filter(|found| strength(found) == strongest);
        let because = because.map(|found| found.origin.clone()).collect();
        (strongest.1 != Action::Pass).then_some(Ruling { allowed: strongest.1 == Action::Allow, because })
    }
}

fn items(list: &Value) -> &[Value] {
    list.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn inside(cidr: &str, address: IpAddr) -> bool {
    let (network, length) = cidr.split_once('/').unwrap();
    let bits = |address: IpAddr| match address {
        IpAddr::V4(v4) => (u128::from(u32::from(v4)) << 96, true),
        IpAddr::V6(v6) => (u128::from(v6), false),
    };
    let ((network, is_v4), (address, is_address_v4)) = (bits(network.parse().unwrap()), bits(address));
    let length: u32 = length.parse().unwrap();
    is_v4 == is_address_v4 && (length == 0 || (network ^ address) >> (128 - length) == 0)
}
