//! `NetworkPolicy`, by the documentation of `networking.k8s.io/v1`.

use serde_json::Value;

use super::labels::{Selected, of_endpoint, of_namespace, selects, selects_peer, subject};
use super::{Action, Findings, Match, Probe, Tier, inside, items, ports, text};
use crate::fuzz::world::cluster::Cluster;

pub(super) fn read(cluster: &Cluster, object: &Value, probe: &Probe<'_>, findings: &mut Findings) {
    let (namespace, spec) = (&object["metadata"]["namespace"], &object["spec"]);
    let selected = subject(&spec["podSelector"], |key| of_endpoint(cluster, probe.subject, key));
    if *namespace != *probe.subject.namespace || selected == Selected::No || !isolates(spec, probe.ingress) {
        return;
    }
    let origin = format!("NetworkPolicy/{}/{}", text(namespace), text(&object["metadata"]["name"]));
    let (field, peers) = if probe.ingress { ("ingress", "from") } else { ("egress", "to") };
    for (index, rule) in items(&spec[field]).iter().enumerate() {
        let (peers, ports) = (items(&rule[peers]), items(&rule["ports"]));
        if selected == Selected::Yes
            && (peers.is_empty() || peers.iter().any(|peer| is_peer(cluster, namespace, peer, probe)))
            && (ports.is_empty() || ports.iter().any(|port| is_port(cluster, port, probe)))
        {
            findings.matches.push(Match {
                tier: Tier::Namespaces,
                order: (0, 0),
                action: Action::Allow,
                origin: format!("{origin}#{field}[{index}]"),
            });
        }
    }
    findings.isolating.insert(origin);
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

fn is_peer(cluster: &Cluster, own: &Value, peer: &Value, probe: &Probe<'_>) -> bool {
    if let Some(block) = peer.get("ipBlock") {
        let within = |cidr: &Value| inside(text(cidr), probe.address);
        return within(&block["cidr"]) && !items(&block["except"]).iter().any(within);
    }
    let Some(remote) = probe.endpoint() else { return false };
    let namespace = match peer.get("namespaceSelector") {
        Some(selector) => selects(selector, false, |key| of_namespace(cluster, remote.namespace, key)),
        None => *own == *remote.namespace,
    };
    let is_pod = |selector| selects_peer(selector, false, |key| key, |key| of_endpoint(cluster, remote, key));
    namespace && peer.get("podSelector").is_none_or(is_pod)
}

fn is_port(cluster: &Cluster, port: &Value, probe: &Probe<'_>) -> bool {
    if ports::number(port.get("protocol").map_or("TCP", text)) != probe.protocol {
        return false;
    }
    match port.get("port") {
        None => true,
        Some(Value::String(name)) => ports::is_named(cluster, probe, name, false),
        Some(number) => {
            let last = port.get("endPort").unwrap_or(number).as_u64().unwrap();
            (number.as_u64().unwrap()..=last).contains(&u64::from(probe.port))
        }
    }
}
