//! The languages of administrators, by the documentation of `policy.networking.k8s.io`.

use serde_json::Value;

use super::labels::{Selected, of_endpoint, of_namespace, requirements, selects, selects_peer, subject};
use super::{Action, Findings, Match, Probe, Tier, inside, items, ports, text};
use crate::fuzz::world::cluster::{Cluster, Thing};

/// Behind every priority that objects can have.
const LAST: u64 = 1001;

pub(super) fn read(cluster: &Cluster, object: &Value, probe: &Probe<'_>, findings: &mut Findings) {
    let (kind, spec) = (text(&object["kind"]), &object["spec"]);
    let selected = is_subject(cluster, &spec["subject"], probe.subject);
    if selected == Selected::No {
        return;
    }
    let tier = match (kind, spec["tier"].as_str()) {
        ("AdminNetworkPolicy", _) | (_, Some("Admin")) => Tier::Admin,
        _ => Tier::Baseline,
    };
    let priority = spec["priority"].as_u64().unwrap_or(LAST);
    let (field, peers) = if probe.ingress { ("ingress", "from") } else { ("egress", "to") };
    let name = format!("{kind}/{}", text(&object["metadata"]["name"]));
    // Who may be selected is isolated.
    if selected == Selected::Maybe && !items(&spec[field]).is_empty() {
        findings.isolating.insert(name.clone());
    }
    for (index, rule) in items(&spec[field]).iter().enumerate() {
        let action = match text(&rule["action"]) {
            "Deny" => Action::Deny,
            "Pass" => Action::Pass,
            _ => Action::Allow,
        };
        if (selected == Selected::Yes || action == Action::Deny)
            && items(&rule[peers]).iter().any(|peer| is_peer(cluster, peer, probe, action))
            && is_port(cluster, rule, probe, action)
        {
            let own = rule.get("name").map(|own| format!(" ({})", text(own))).unwrap_or_default();
            let origin = format!("{name}#{field}[{index}]{own}");
            findings.matches.push(Match { tier, order: (priority, index), action, origin });
        }
    }
}

fn is_subject(cluster: &Cluster, wanted: &Value, thing: &Thing) -> Selected {
    let within = |selector| subject(selector, |key| of_namespace(cluster, thing.namespace, key));
    if let Some(namespaces) = wanted.get("namespaces") {
        return within(namespaces);
    }
    let pods = &wanted["pods"];
    let is_pod = subject(&pods["podSelector"], |key| of_endpoint(cluster, thing, key));
    match (within(&pods["namespaceSelector"]), is_pod) {
        (Selected::No, _) | (_, Selected::No) => Selected::No,
        (Selected::Yes, Selected::Yes) => Selected::Yes,
        _ => Selected::Maybe,
    }
}

fn is_peer(cluster: &Cluster, peer: &Value, probe: &Probe<'_>, action: Action) -> bool {
    let denies = action == Action::Deny;
    if let Some(networks) = peer.get("networks") {
        return items(networks).iter().any(|network| inside(text(network), probe.address));
    }
    if let Some(nodes) = peer.get("nodes") {
        return probe.is_node() && (denies || requirements(nodes).next().is_none());
    }
    let Some(remote) = probe.endpoint() else { return false };
    let within = |selector| selects(selector, denies, |key| of_namespace(cluster, remote.namespace, key));
    match (peer.get("namespaces"), peer.get("pods")) {
        (Some(namespaces), _) => within(namespaces),
        (_, Some(pods)) => {
            let label = |key: &str| of_endpoint(cluster, remote, key);
            within(&pods["namespaceSelector"]) && selects_peer(&pods["podSelector"], denies, |key| key, label)
        }
        // Names of domains.
        _ => false,
    }
}

fn is_port(cluster: &Cluster, rule: &Value, probe: &Probe<'_>, action: Action) -> bool {
    let is_named = |name| ports::is_named(cluster, probe, text(name), action == Action::Deny);
    let is_number = |number: &Value| *number == probe.port;
    let is_within = |range: &Value| {
        let edge = |name: &str| range[name].as_u64().unwrap();
        (edge("start")..=edge("end")).contains(&u64::from(probe.port))
    };
    let (old, new) = (rule.get("ports"), rule.get("protocols"));
    if let Some(items) = new.and_then(Value::as_array) {
        return items.iter().any(|item| {
            let transport = ports::protocol(probe).and_then(|name| item.get(name.to_lowercase()));
            let port = transport.map(|transport| &transport["destinationPort"]);
            item.get("destinationNamedPort").is_some_and(is_named)
                || port.and_then(|port| port.get("number")).is_some_and(is_number)
                || port.and_then(|port| port.get("range")).is_some_and(is_within)
        });
    }
    let Some(items) = old.and_then(Value::as_array) else { return true };
    items.iter().any(|item| {
        let of_protocol =
            |port: &&Value| ports::number(port.get("protocol").map_or("TCP", text)) == probe.protocol;
        item.get("namedPort").is_some_and(is_named)
            || item.get("portNumber").filter(of_protocol).is_some_and(|port| is_number(&port["port"]))
            || item.get("portRange").filter(of_protocol).is_some_and(is_within)
    })
}
