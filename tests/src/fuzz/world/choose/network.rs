//! `NetworkPolicy`.

use serde_json::{Value, json};

use super::{NAMES, NAMESPACE_KEYS, POD_KEYS, PORTS, block, place, put, selector, subject};
use crate::fuzz::choices::Choices;
use crate::fuzz::world::cluster::PROTOCOLS;

pub(super) fn policy(choices: &mut Choices<'_>, name: &str) -> Value {
    let mut spec = json!({"podSelector": subject(choices, &POD_KEYS)});
    match choices.below(5) {
        0 => {}
        1 => spec["policyTypes"] = json!([]),
        2 => spec["policyTypes"] = json!(["Ingress"]),
        3 => spec["policyTypes"] = json!(["Egress"]),
        _ => spec["policyTypes"] = json!(["Ingress", "Egress"]),
    }
    rules(choices, &mut spec, "ingress", "from");
    rules(choices, &mut spec, "egress", "to");
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "spec": spec,
        "metadata": {"name": name, "namespace": place(choices)},
    })
}

fn rules(choices: &mut Choices<'_>, spec: &mut Value, field: &str, peers: &str) {
    put(choices, spec, field, |choices| {
        let mut rule = json!({});
        put(choices, &mut rule, peers, peer);
        put(choices, &mut rule, "ports", port);
        rule
    });
}

fn peer(choices: &mut Choices<'_>) -> Value {
    let namespaces = |choices: &mut Choices<'_>| selector(choices, &NAMESPACE_KEYS);
    match choices.below(4) {
        0 => json!({"podSelector": selector(choices, &POD_KEYS)}),
        1 => json!({"namespaceSelector": namespaces(choices)}),
        2 => json!({"podSelector": selector(choices, &POD_KEYS), "namespaceSelector": namespaces(choices)}),
        _ => {
            let (cidr, holes) = block(choices);
            json!({"ipBlock": {"cidr": cidr, "except": holes}})
        }
    }
}

fn port(choices: &mut Choices<'_>) -> Value {
    let mut port = match choices.below(5) {
        0 => json!({}),
        1 => json!({"port": choices.one_of(&PORTS)}),
        2 => json!({"port": choices.one_of(&NAMES)}),
        3 => json!({"port": 1 + choices.below(80), "endPort": choices.one_of(&[80, 443, 65_535])}),
        _ => json!({"port": choices.one_of(&PORTS), "endPort": 65_535}),
    };
    if choices.flag() {
        port["protocol"] = json!(choices.one_of(&PROTOCOLS).0);
    }
    port
}
