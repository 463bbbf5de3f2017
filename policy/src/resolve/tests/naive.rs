//! A second reading of NetworkPolicy: decides from the manifests and the pods themselves, with nothing of this crate.

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

pub(super) fn allows(cluster: &Cluster, probe: &Probe<'_>) -> bool {
    let (kind, field, peers) =
        if probe.ingress { ("Ingress", "ingress", "from") } else { ("Egress", "egress", "to") };
    let selecting: Vec<&Value> = cluster
        .policies
        .iter()
        .filter(|policy| policy["metadata"]["namespace"] == *probe.subject.namespace)
        .filter(|policy| selects(&policy["spec"]["podSelector"], &probe.subject.labels))
        .filter(|policy| types(&policy["spec"]).contains(&kind))
        .collect();
    selecting.is_empty()
        || selecting.iter().any(|policy| {
            items(&policy["spec"][field]).iter().any(|rule| {
                let (peers, ports) = (items(&rule[peers]), items(&rule["ports"]));
                (peers.is_empty() || peers.iter().any(|peer| is_peer(cluster, policy, peer, probe)))
                    && (ports.is_empty() || ports.iter().any(|port| is_port(port, probe)))
            })
        })
}

fn items(list: &Value) -> Vec<Value> {
    list.as_array().cloned().unwrap_or_default()
}

fn types(spec: &Value) -> Vec<&str> {
    let given: Vec<&str> =
        spec["policyTypes"].as_array().into_iter().flatten().map(|t| t.as_str().unwrap()).collect();
    match (given.is_empty(), items(&spec["egress"]).is_empty()) {
        (false, _) => given,
        (true, true) => vec!["Ingress"],
        (true, false) => vec!["Ingress", "Egress"],
    }
}

fn selects(selector: &Value, labels: &[(String, String)]) -> bool {
    let value = |key: &Value| labels.iter().find(|(k, _)| key == k).map(|(_, v)| v.clone());
    let exact = selector["matchLabels"].as_object().into_iter().flatten();
    let mut exact = exact.map(|(k, v)| value(&Value::from(k.as_str())).is_some_and(|found| *v == found));
    exact.all(|fits| fits)
        && items(&selector["matchExpressions"]).iter().all(|e| {
            let listed = |found: &String| items(&e["values"]).iter().any(|v| v == found);
            match (e["operator"].as_str().unwrap(), value(&e["key"])) {
                ("In", found) => found.as_ref().is_some_and(listed),
                ("NotIn", found) => !found.as_ref().is_some_and(listed),
                ("Exists", found) => found.is_some(),
                (_, found) => found.is_none(),
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
        Some(selector) => selects(selector, &cluster.namespace_labels(&remote.namespace)),
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
    let ((a, v4), (b, other_v4)) = (bits(network.parse().unwrap()), bits(address));
    let length: u32 = length.parse().unwrap();
    v4 == other_v4 && (length == 0 || (a ^ b) >> (128 - length) == 0)
}

fn is_port(port: &Value, probe: &Probe<'_>) -> bool {
    if port.get("protocol").map_or("TCP", |protocol| protocol.as_str().unwrap()) != probe.protocol {
        return false;
    }
    let receiver = if probe.ingress { Some(probe.subject) } else { probe.remote };
    match port.get("port") {
        None => true,
        Some(Value::String(name)) => {
            let wanted = (name.clone(), probe.protocol.to_owned(), probe.port);
            receiver.is_some_and(|receiver| receiver.ports.contains(&wanted))
        }
        Some(number) => {
            let end = port.get("endPort").unwrap_or(number).as_u64().unwrap();
            (number.as_u64().unwrap()..=end).contains(&u64::from(probe.port))
        }
    }
}
