//! A second reading of `NetworkPolicy`, from the API's documentation: from the objects and the pods, with nothing of the
//! policy crate.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::Value;

use super::cluster::{Cluster, Thing};

/// A flow from or to a workload.
#[derive(Clone, Copy, Debug)]
pub(super) struct Probe<'a> {
    pub(super) subject: &'a Thing,
    pub(super) ingress: bool,
    pub(super) remote: Option<&'a Thing>,
    pub(super) address: IpAddr,
    pub(super) protocol: &'a str,
    pub(super) port: u16,
}

type Labels = BTreeMap<&'static str, &'static str>;

pub(super) fn allows(cluster: &Cluster, probe: &Probe<'_>) -> bool {
    let (field, peers) = if probe.ingress { ("ingress", "from") } else { ("egress", "to") };
    let concerns = |policy: &&Value| {
        policy["metadata"]["namespace"] == *probe.subject.namespace
            && selects(&policy["spec"]["podSelector"], &probe.subject.labels)
            && isolates(&policy["spec"], probe.ingress)
    };
    let mut selecting = cluster.policies.iter().filter(concerns).peekable();
    if selecting.peek().is_none() {
        return true;
    }
    selecting.any(|policy| {
        items(&policy["spec"][field]).iter().any(|rule| {
            let (peers, ports) = (items(&rule[peers]), items(&rule["ports"]));
            (peers.is_empty() || peers.iter().any(|peer| is_peer(cluster, policy, peer, probe)))
                && (ports.is_empty() || ports.iter().any(|port| is_port(port, probe)))
        })
    })
}

fn items(list: &Value) -> &[Value] {
    list.as_array().map_or(&[], Vec::as_slice)
}

/// Without types: ingress always, egress where there are rules for it.
fn isolates(spec: &Value, ingress: bool) -> bool {
    let types = items(&spec["policyTypes"]);
    match (types.is_empty(), ingress) {
        (true, true) => true,
        (true, false) => !items(&spec["egress"]).is_empty(),
        (false, true) => types.iter().any(|kind| kind == "Ingress"),
        (false, false) => types.iter().any(|kind| kind == "Egress"),
    }
}

fn selects(selector: &Value, labels: &Labels) -> bool {
    let mut exact = selector["matchLabels"].as_object().into_iter().flatten();
    exact.all(|(key, value)| labels.get(key.as_str()).is_some_and(|found| value == found))
        && items(&selector["matchExpressions"]).iter().all(|expression| {
            let found = labels.get(expression["key"].as_str().unwrap());
            let listed =
                found.is_some_and(|found| items(&expression["values"]).iter().any(|value| value == found));
            match expression["operator"].as_str().unwrap() {
                "In" => listed,
                "NotIn" => !listed,
                "Exists" => found.is_some(),
                _ => found.is_none(),
            }
        })
}

fn is_peer(cluster: &Cluster, policy: &Value, peer: &Value, probe: &Probe<'_>) -> bool {
    if let Some(block) = peer.get("ipBlock") {
        let within = |cidr: &Value| inside(cidr.as_str().unwrap(), probe.address);
        return within(&block["cidr"]) && !items(&block["except"]).iter().any(within);
    }
    let Some(remote) = probe.remote else { return false };
    let namespace = match peer.get("namespaceSelector") {
        Some(selector) => selects(selector, &cluster.namespace_labels(remote.namespace)),
        None => policy["metadata"]["namespace"] == *remote.namespace,
    };
    namespace && peer.get("podSelector").is_none_or(|selector| selects(selector, &remote.labels))
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

fn is_port(port: &Value, probe: &Probe<'_>) -> bool {
    let protocol = port.get("protocol").map_or("TCP", |protocol| protocol.as_str().unwrap());
    if protocol != probe.protocol {
        return false;
    }
    let receiver = if probe.ingress { Some(probe.subject) } else { probe.remote };
    match port.get("port") {
        None => true,
        Some(Value::String(name)) => receiver.is_some_and(|receiver| {
            receiver.ports.iter().any(|(known, protocol, number)| {
                known == name && *protocol == probe.protocol && *number == probe.port
            })
        }),
        Some(number) => {
            let last = port.get("endPort").unwrap_or(number).as_u64().unwrap();
            (number.as_u64().unwrap()..=last).contains(&u64::from(probe.port))
        }
    }
}
