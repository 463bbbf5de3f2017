//! `ClusterNetworkPolicy`, `AdminNetworkPolicy`, `BaselineAdminNetworkPolicy`.

use serde_json::{Value, json};

use super::{CIDRS, NAMES, NAMESPACE_KEYS, OBJECT_KEYS, POD_KEYS, PORTS, selector, some, subject};
use crate::fuzz::choices::Choices;
use crate::fuzz::world::cluster::PROTOCOLS;

const PRIORITIES: [u16; 6] = [0, 5, 5, 5, 10, 1000];

/// What the kinds differ in.
#[derive(Clone, Copy)]
struct Language {
    actions: &'static [&'static str],
    is_old: bool,
}

pub(super) fn cluster(choices: &mut Choices<'_>, name: &str) -> Value {
    let language = Language { actions: &["Accept", "Deny", "Pass"], is_old: false };
    let mut spec = spec(choices, language);
    spec["tier"] = json!(choices.one_of(&["Admin", "Baseline"]));
    spec["priority"] = json!(choices.one_of(&PRIORITIES));
    object("v1alpha2", "ClusterNetworkPolicy", name, &spec)
}

pub(super) fn admin(choices: &mut Choices<'_>, name: &str) -> Value {
    let language = Language { actions: &["Allow", "Deny", "Pass"], is_old: true };
    let mut spec = spec(choices, language);
    spec["priority"] = json!(choices.one_of(&PRIORITIES));
    object("v1alpha1", "AdminNetworkPolicy", name, &spec)
}

/// A cluster has one at most.
pub(super) fn baseline(choices: &mut Choices<'_>) -> Value {
    let language = Language { actions: &["Allow", "Deny"], is_old: true };
    object("v1alpha1", "BaselineAdminNetworkPolicy", "default", &spec(choices, language))
}

fn object(version: &str, kind: &str, name: &str, spec: &Value) -> Value {
    let version = format!("policy.networking.k8s.io/{version}");
    json!({"apiVersion": version, "kind": kind, "metadata": {"name": name}, "spec": spec})
}

fn spec(choices: &mut Choices<'_>, language: Language) -> Value {
    let mut spec = json!({"subject": governed(choices)});
    for (field, peers) in [("ingress", "from"), ("egress", "to")] {
        if !choices.seldom(4) {
            spec[field] = choices
                .list(3, |choices| {
                    let action = choices.one_of(language.actions);
                    let mut rule = json!({"action": action});
                    let accepts = matches!(action, "Accept" | "Allow");
                    rule[peers] = some(choices, |choices| peer(choices, field == "egress", accepts));
                    if choices.flag() {
                        let ports = if language.is_old { "ports" } else { "protocols" };
                        rule[ports] = some(choices, if language.is_old { old_port } else { protocol });
                    }
                    if choices.seldom(3) {
                        rule["name"] = json!("same");
                    }
                    rule
                })
                .into();
        }
    }
    spec
}

fn governed(choices: &mut Choices<'_>) -> Value {
    let namespaces = subject(choices, &NAMESPACE_KEYS);
    if choices.flag() {
        return json!({"namespaces": namespaces});
    }
    json!({"pods": {"namespaceSelector": namespaces, "podSelector": subject(choices, &POD_KEYS)}})
}

fn pods(choices: &mut Choices<'_>) -> Value {
    let namespaces = selector(choices, &NAMESPACE_KEYS);
    if choices.flag() {
        return json!({"namespaces": namespaces});
    }
    json!({"pods": {"namespaceSelector": namespaces, "podSelector": selector(choices, &POD_KEYS)}})
}

fn peer(choices: &mut Choices<'_>, is_egress: bool, accepts: bool) -> Value {
    match choices.below(8) {
        0 | 1 if is_egress => json!({"networks": some(choices, |choices| json!(choices.one_of(&CIDRS)))}),
        2 if is_egress => json!({"nodes": selector(choices, &OBJECT_KEYS)}),
        3 if is_egress && accepts => json!({"domainNames": ["*.example.com"]}),
        _ => pods(choices),
    }
}

fn range(choices: &mut Choices<'_>) -> (usize, u16) {
    (1 + choices.below(52), choices.one_of(&[53, 80, 443, 65_535]))
}

fn protocol(choices: &mut Choices<'_>) -> Value {
    if choices.seldom(4) {
        return json!({"destinationNamedPort": choices.one_of(&NAMES)});
    }
    let port = if choices.flag() {
        json!({"number": choices.one_of(&PORTS)})
    } else {
        let (start, end) = range(choices);
        json!({"range": {"start": start, "end": end}})
    };
    json!({choices.one_of(&PROTOCOLS).0.to_lowercase(): {"destinationPort": port}})
}

fn old_port(choices: &mut Choices<'_>) -> Value {
    if choices.seldom(4) {
        return json!({"namedPort": choices.one_of(&NAMES)});
    }
    let (field, mut port) = if choices.flag() {
        ("portNumber", json!({"port": choices.one_of(&PORTS)}))
    } else {
        let (start, end) = range(choices);
        ("portRange", json!({"start": start, "end": end}))
    };
    if choices.flag() {
        port["protocol"] = json!(choices.one_of(&PROTOCOLS).0);
    }
    json!({field: port})
}
