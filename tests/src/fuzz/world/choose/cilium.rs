//! `CiliumNetworkPolicy` and `CiliumClusterwideNetworkPolicy`.

use serde_json::{Value, json};

use super::{
    CIDRS, GROUPS, Key, NAMES, NAMESPACES, NOBODY, OBJECT_KEYS, PORTS, SERVICES, VALUES, block, place, put,
    selector, some, subject,
};
use crate::fuzz::choices::Choices;

const KEYS: [Key; 14] = [
    ("app", &VALUES),
    ("k8s:app", &VALUES),
    ("any:app", &VALUES),
    ("tier", &VALUES),
    ("k8s:tier", &VALUES),
    ("any:pod-template-hash", &VALUES),
    ("io.kubernetes.pod.namespace", &NAMESPACES),
    ("k8s:io.kubernetes.pod.namespace", &NAMESPACES),
    ("any:io.kubernetes.pod.namespace", &NAMESPACES),
    ("io.cilium.k8s.namespace.labels.app", &VALUES),
    ("k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name", &NAMESPACES),
    ("k8s:io.cilium.k8s.policy.serviceaccount", &["robot", ""]),
    ("io.cilium.k8s.policy.cluster", &["default", "other"]),
    ("reserved:remote-node", &[""]),
];
const ENTITIES: [&str; 14] = [
    "all",
    "world",
    "world",
    "world-ipv4",
    "world-ipv6",
    "cluster",
    "cluster-mesh",
    "host",
    "remote-node",
    "kube-apiserver",
    "init",
    "health",
    "ingress",
    "none",
];
const ICMP_TYPES: [(&str, &str); 6] = [
    ("IPv4", "EchoRequest"),
    ("IPv4", "DestinationUnreachable"),
    ("IPv6", "EchoRequest"),
    ("IPv6", "EchoReply"),
    ("IPv4", "0"),
    ("IPv4", "Echo"),
];

pub(super) fn policy(choices: &mut Choices<'_>, name: &str, is_namespaced: bool) -> Value {
    let (kind, mut metadata) = if is_namespaced {
        let namespace = place(choices);
        ("CiliumNetworkPolicy", json!({"name": name, "namespace": namespace}))
    } else {
        ("CiliumClusterwideNetworkPolicy", json!({"name": name}))
    };
    metadata["labels"] = json!({"app": "1"});
    let mut object = json!({"apiVersion": "cilium.io/v2", "kind": kind, "metadata": metadata});
    let several = choices.seldom(4);
    if !several || choices.flag() {
        object["spec"] = spec(choices, is_namespaced);
    }
    if several {
        object["specs"] = some(choices, |choices| spec(choices, is_namespaced));
    }
    object
}

fn spec(choices: &mut Choices<'_>, is_namespaced: bool) -> Value {
    let is_nodes = !is_namespaced && choices.seldom(8);
    let field = if is_nodes { "nodeSelector" } else { "endpointSelector" };
    let mut spec = json!({field: subject(choices, &KEYS)});
    for (field, is_ingress, is_deny) in [
        ("ingress", true, false),
        ("ingressDeny", true, true),
        ("egress", false, false),
        ("egressDeny", false, true),
    ] {
        if choices.flag() {
            spec[field] = choices.list(3, |choices| rule(choices, is_ingress, is_deny, is_namespaced)).into();
        }
    }
    if choices.seldom(3) {
        let mut wanted = json!({});
        for direction in ["ingress", "egress"] {
            if choices.flag() {
                wanted[direction] = json!(choices.flag());
            }
        }
        spec["enableDefaultDeny"] = wanted;
    }
    spec
}

fn rule(choices: &mut Choices<'_>, is_ingress: bool, is_deny: bool, is_namespaced: bool) -> Value {
    let mut rule = json!({});
    let field = |what: &str| format!("{}{what}", if is_ingress { "from" } else { "to" });
    let mut brings_ports = false;
    match choices.below(9) {
        0..3 => put(choices, &mut rule, &field("Endpoints"), |choices| selector(choices, &KEYS)),
        3 => put(choices, &mut rule, &field("CIDR"), |choices| {
            let address = choices.one_of(&NOBODY)[0];
            json!(if choices.seldom(3) { address } else { choices.one_of(&CIDRS) })
        }),
        4 => put(choices, &mut rule, &field("CIDRSet"), cidr_set),
        5 => put(choices, &mut rule, &field("Entities"), |choices| json!(choices.one_of(&ENTITIES))),
        6 if is_ingress || choices.flag() => {
            put(choices, &mut rule, &field("Nodes"), |choices| selector(choices, &OBJECT_KEYS));
        }
        6 => {
            rule["toServices"] = some(choices, |choices| service(choices, is_namespaced));
            brings_ports = true;
        }
        7 if !is_ingress && !is_deny => {
            put(
                choices,
                &mut rule,
                "toFQDNs",
                |choices| json!({"matchPattern": choices.one_of(&["a.example", "*"])}),
            );
        }
        _ => {}
    }
    match choices.below(6) {
        0..3 if !brings_ports => put(choices, &mut rule, "toPorts", |choices| port_rule(choices, is_deny)),
        3 => rule["icmps"] = some(choices, |choices| json!({"fields": some(choices, icmp)})),
        _ => {}
    }
    rule
}

fn cidr_set(choices: &mut Choices<'_>) -> Value {
    match choices.below(4) {
        0 => json!({"cidrGroupRef": choices.one_of(&GROUPS), "except": holes(choices)}),
        1 => json!({"cidrGroupSelector": selector(choices, &OBJECT_KEYS), "except": holes(choices)}),
        _ => {
            let (cidr, holes) = block(choices);
            json!({"cidr": cidr, "except": holes})
        }
    }
}

fn holes(choices: &mut Choices<'_>) -> Vec<&'static str> {
    choices.list(2, |choices| choices.one_of(&CIDRS))
}

fn service(choices: &mut Choices<'_>, is_namespaced: bool) -> Value {
    let mut service = json!({});
    let is_named = choices.flag();
    let field = if is_named { "k8sService" } else { "k8sServiceSelector" };
    if is_named {
        service[field]["serviceName"] = json!(choices.one_of(&SERVICES));
    } else {
        service[field]["selector"] = selector(choices, &OBJECT_KEYS);
    }
    if choices.flag() || (is_named && !is_namespaced) {
        service[field]["namespace"] = json!(choices.one_of(&NAMESPACES));
    }
    service
}

fn port_rule(choices: &mut Choices<'_>, is_deny: bool) -> Value {
    let mut rule = json!({"ports": choices.list(2, port)});
    if !is_deny && choices.seldom(5) {
        let layer7 = [json!({"http": [{"method": "GET"}]}), json!({"dns": [{"matchPattern": "*"}]})];
        rule["rules"] = layer7[choices.below(2)].clone();
    }
    rule
}

fn port(choices: &mut Choices<'_>) -> Value {
    let number = choices.one_of(&PORTS).to_string();
    let mut port = match choices.below(6) {
        0 => json!({"port": "0"}),
        1 | 2 => json!({"port": number}),
        3 => json!({"port": choices.one_of(&NAMES)}),
        4 => {
            json!({"port": (1 + choices.below(80)).to_string(), "endPort": choices.one_of(&[80, 443, 65_535])})
        }
        _ => json!({"port": number, "endPort": 65_535}),
    };
    if choices.flag() {
        port["protocol"] = json!(choices.one_of(&["TCP", "UDP", "SCTP", "ANY"]));
    }
    port
}

fn icmp(choices: &mut Choices<'_>) -> Value {
    let (family, name) = choices.one_of(&ICMP_TYPES);
    match choices.below(3) {
        0 => json!({"type": 8}),
        1 => json!({"family": "IPv6", "type": 128}),
        _ => json!({"family": family, "type": name}),
    }
}
