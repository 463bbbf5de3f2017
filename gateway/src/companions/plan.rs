//! What the companion of one policy says. Pure. A companion extends the rules of its policy by addresses, rule by rule: it has
//! no rule without an address, since one without peers would be for everybody, and no direction without a rule, since
//! naming one isolates.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort,
    NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use policy::labels::Labels;
use policy::rules::{Peer, PeerSpec, PolicyObject, PortMatch, PortSpec, RuleSpec, Section};
use policy::state::PortRange;

use crate::manifest::Group;

/// The hosts of a group, which have one identity.
#[derive(Clone, Debug)]
pub(super) struct Members {
    pub(super) labels: Labels,
    pub(super) group: Arc<Group>,
    pub(super) addresses: BTreeSet<IpAddr>,
}

/// What follows for one policy.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Plan {
    /// It selects no external workload: no companion.
    Nothing,
    /// Its companion says this.
    Companion(Box<NetworkPolicySpec>),
    /// There would be so many blocks.
    TooLarge(usize),
}

/// Addresses with the ports that one rule has for them; `None`: every port.
type Rules = Vec<(Option<Vec<PortMatch>>, BTreeSet<IpAddr>)>;

/// What the companion of a policy says. `most`: how many blocks it may have.
pub(super) fn plan(
    policy: &PolicyObject,
    selector: &LabelSelector,
    members: &[Members],
    most: usize,
) -> Plan {
    // A direction that the policy does not isolate is open, and a companion would close it.
    let rules = |section: &Option<Section>, of: fn(&RuleSpec, &[Members]) -> Rules| -> Rules {
        let rules = section.iter().flat_map(|section| &section.rules);
        rules.flat_map(|rule| of(rule, members)).collect()
    };
    let ingress = rules(&policy.ingress, ingress);
    let egress = rules(&policy.egress, egress);
    let blocks = ingress.iter().chain(&egress).map(|(_, addresses)| addresses.len()).sum();
    if blocks == 0 {
        return Plan::Nothing;
    }
    if blocks > most {
        return Plan::TooLarge(blocks);
    }
    let types = [("Ingress", !ingress.is_empty()), ("Egress", !egress.is_empty())];
    let types = types.into_iter().filter(|(_, has)| *has).map(|(name, _)| name.to_owned()).collect();
    let ingress: Vec<_> = ingress
        .into_iter()
        .map(|(own, peers)| NetworkPolicyIngressRule { from: Some(blocks_of(peers)), ports: ports(own) })
        .collect();
    let egress: Vec<_> = egress
        .into_iter()
        .map(|(own, peers)| NetworkPolicyEgressRule { to: Some(blocks_of(peers)), ports: ports(own) })
        .collect();
    Plan::Companion(Box::new(NetworkPolicySpec {
        pod_selector: Some(selector.clone()),
        policy_types: Some(types),
        ingress: (!ingress.is_empty()).then_some(ingress),
        egress: (!egress.is_empty()).then_some(egress),
    }))
}

/// Whether a rule selects who has these labels. One for every peer lets them in already.
fn selects(rule: &RuleSpec, labels: &Labels) -> bool {
    let is = |peer: &Peer| matches!(peer, Peer::Endpoints(selector) if selector.matches(labels));
    matches!(&rule.peers, PeerSpec::Only(peers) if peers.iter().any(is))
}

/// Whether a rule means an address, whoever has it.
fn covers(rule: &RuleSpec, address: IpAddr) -> bool {
    match &rule.peers {
        PeerSpec::Any => true,
        PeerSpec::Only(peers) => {
            peers.iter().any(|peer| matches!(peer, Peer::Block(block) if block.contains(address)))
        }
    }
}

/// A port by name is the pod's own, and stays a name.
fn ingress(rule: &RuleSpec, members: &[Members]) -> Rules {
    let selected = members.iter().filter(|members| selects(rule, &members.labels));
    let addresses: BTreeSet<IpAddr> =
        selected.flat_map(|members| members.addresses.iter().copied()).collect();
    let ports = match &rule.ports {
        PortSpec::Any => None,
        PortSpec::Only(ports) => {
            Some(ports.iter().filter(|port| protocol(port).is_some()).cloned().collect())
        }
    };
    if addresses.is_empty() || is_nothing(ports.as_ref()) { Vec::new() } else { vec![(ports, addresses)] }
}

/// A port by name is that of the workload: an address says nothing of names, so it becomes a number, of each group its own.
/// Also where the rule means the address itself, since nobody else can tell the number.
fn egress(rule: &RuleSpec, members: &[Members]) -> Rules {
    let mut rules: BTreeMap<Option<Vec<PortMatch>>, BTreeSet<IpAddr>> = BTreeMap::new();
    for members in members {
        let is_selected = selects(rule, &members.labels);
        let ports = match &rule.ports {
            PortSpec::Any => None,
            PortSpec::Only(ports) => {
                let meant = ports.iter().filter(|port| {
                    protocol(port).is_some() && (is_selected || matches!(port, PortMatch::Named { .. }))
                });
                let distinct: BTreeSet<_> = meant.flat_map(|port| numbered(port, &members.group)).collect();
                Some(distinct.into_iter().collect())
            }
        };
        let is_meant = |address: &&IpAddr| is_selected || (ports.is_some() && covers(rule, **address));
        let addresses: BTreeSet<IpAddr> = members.addresses.iter().filter(is_meant).copied().collect();
        if !addresses.is_empty() && !is_nothing(ports.as_ref()) {
            rules.entry(ports).or_default().extend(addresses);
        }
    }
    rules.into_iter().collect()
}

/// Whether these are no ports at all, which would be read as all.
fn is_nothing(ports: Option<&Vec<PortMatch>>) -> bool {
    ports.is_some_and(Vec::is_empty)
}

fn numbered(port: &PortMatch, group: &Group) -> Vec<PortMatch> {
    match port {
        PortMatch::Range(_) => vec![port.clone()],
        PortMatch::Named { name, protocol } => {
            let own = group.ports.iter().filter(|own| own.name == *name && own.protocol == *protocol);
            let number = |number| PortRange { protocol: *protocol, first: number, last: number };
            own.map(|own| PortMatch::Range(number(own.number))).collect()
        }
    }
}

fn blocks_of(addresses: BTreeSet<IpAddr>) -> Vec<NetworkPolicyPeer> {
    let block = |address| IPBlock { cidr: IpNet::from(address).to_string(), except: None };
    let peer = |address| NetworkPolicyPeer { ip_block: Some(block(address)), ..NetworkPolicyPeer::default() };
    addresses.into_iter().map(peer).collect()
}

fn ports(ports: Option<Vec<PortMatch>>) -> Option<Vec<NetworkPolicyPort>> {
    Some(ports?.into_iter().filter_map(port).collect())
}

fn port(port: PortMatch) -> Option<NetworkPolicyPort> {
    let protocol = protocol(&port).map(str::to_owned);
    let (port, end_port) = match port {
        PortMatch::Named { name, .. } => (Some(IntOrString::String(name)), None),
        PortMatch::Range(PortRange { first: 0, last: u16::MAX, .. }) => (None, None),
        PortMatch::Range(PortRange { first, last, .. }) => {
            let end = (last != first).then(|| i32::from(last));
            (Some(IntOrString::Int(i32::from(first))), end)
        }
    };
    Some(NetworkPolicyPort { protocol: Some(protocol?), port, end_port })
}

/// The name of a port's protocol; a `NetworkPolicy` has no others than these.
const fn protocol(port: &PortMatch) -> Option<&'static str> {
    let (PortMatch::Named { protocol, .. } | PortMatch::Range(PortRange { protocol, .. })) = port;
    match *protocol {
        6 => Some("TCP"),
        17 => Some("UDP"),
        132 => Some("SCTP"),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
