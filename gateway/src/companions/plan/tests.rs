//! What is planned for single policies, and the law behind it.

use policy::networkpolicy;
use serde_json::{Value, json};

use super::*;

mod law;

pub(super) fn group(labels: &[(&str, &str)], ports: &[(&str, u16)]) -> Group {
    let text = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    let port = |(name, number): &(&str, u16)| policy::facts::NamedPort {
        name: (*name).to_owned(),
        protocol: 6,
        number: *number,
    };
    Group {
        labels: labels.iter().map(text).collect(),
        service_account: "default".to_owned(),
        ports: ports.iter().map(port).collect(),
        mode: policy::state::Mode::Enforce,
        scope: policy::state::Scope::Mesh,
        nic_mode: policy::state::Mode::Audit,
        probes: Vec::new(),
        zone: None,
    }
}

/// A group of a namespace, whose label `team` is as given.
fn members((namespace, team): (&str, &str), app: &str, ports: &[(&str, u16)], addresses: &[&str]) -> Members {
    let group = group(&[("app", app)], ports);
    let namespace_labels = [("team".to_owned(), team.to_owned())].into();
    let placement = policy::labels::Placement {
        namespace,
        namespace_labels: &namespace_labels,
        service_account: "default",
        cluster: "default",
    };
    Members {
        labels: Labels::of_workload(&group.labels, placement),
        group: Arc::new(group),
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
    }
}

fn cast() -> Vec<Members> {
    vec![
        members(("shop", "shop"), "db", &[("sql", 5432)], &["10.9.0.1", "fd09::1"]),
        members(("shop", "shop"), "old-db", &[("sql", 1521)], &["10.9.0.2"]),
        members(("lab", "lab"), "db", &[], &["10.9.0.3"]),
    ]
}

pub(super) fn parsed(spec: &Value) -> PolicyObject {
    let raw = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "p", "namespace": "shop"}, "spec": spec});
    networkpolicy::parse(&raw).unwrap()
}

pub(super) fn plan_of(spec: &Value, members: &[Members], most: usize) -> Plan {
    let selector = spec.get("podSelector").cloned().unwrap_or_else(|| json!({}));
    plan(&parsed(spec), &serde_json::from_value(selector).unwrap(), members, most)
}

/// What the companion says; null: there is none.
fn companion_of(spec: &Value) -> Value {
    match plan_of(spec, &cast(), 10) {
        Plan::Nothing => Value::Null,
        Plan::Companion(spec) => serde_json::to_value(spec).unwrap(),
        Plan::TooLarge(blocks) => panic!("{blocks} blocks"),
    }
}

fn blocks(cidrs: &[&str]) -> Value {
    cidrs.iter().map(|cidr| json!({"ipBlock": {"cidr": cidr}})).collect()
}

/// The blocks that a single peer becomes, of a rule toward the pods.
fn of_peer(peer: &Value) -> Vec<String> {
    let spec = json!({"podSelector": {}, "ingress": [{"from": [peer]}]});
    let found = companion_of(&spec);
    let all = found.pointer("/ingress/0/from").and_then(Value::as_array).cloned().unwrap_or_default();
    all.iter().map(|peer| peer["ipBlock"]["cidr"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_companion_has_the_selector_the_direction_and_the_ports_of_each_rule() {
    let selector =
        json!({"matchLabels": {"app": "api"}, "matchExpressions": [{"key": "x", "operator": "Exists"}]});
    let spec = json!({"podSelector": selector, "policyTypes": ["Ingress", "Egress"],
        "ingress": [
            {"from": [{"podSelector": {"matchLabels": {"app": "web"}}}]},
            {"from": [{"podSelector": {"matchLabels": {"app": "db"}}}, {"ipBlock": {"cidr": "192.0.2.0/24"}}],
             "ports": [{"port": 80}, {"port": 8000, "endPort": 8010, "protocol": "UDP"}, {"port": "http"}, {"protocol": "SCTP"}]},
            {"from": [{"podSelector": {"matchLabels": {"app": "old-db"}}}]}],
        "egress": [{"to": [{"podSelector": {"matchLabels": {"app": "web"}}}]}]});
    let ports = json!([
        {"protocol": "TCP", "port": 80},
        {"protocol": "UDP", "port": 8000, "endPort": 8010},
        {"protocol": "SCTP"},
        {"protocol": "TCP", "port": "http"},
    ]);
    let expected = json!({"podSelector": selector, "policyTypes": ["Ingress"], "ingress": [
        {"from": blocks(&["10.9.0.1/32", "fd09::1/128"]), "ports": ports},
        {"from": blocks(&["10.9.0.2/32"])}]});
    assert_eq!(companion_of(&spec), expected);
}

#[test]
fn peers_select_as_they_do_in_the_mesh() {
    let db = json!({"matchLabels": {"app": "db"}});
    assert_eq!(of_peer(&json!({"podSelector": db})), ["10.9.0.1/32", "fd09::1/128"]);
    assert_eq!(of_peer(&json!({"podSelector": {}})), ["10.9.0.1/32", "10.9.0.2/32", "fd09::1/128"]);
    assert_eq!(of_peer(&json!({"namespaceSelector": {"matchLabels": {"team": "lab"}}})), ["10.9.0.3/32"]);
    let named = json!({"matchLabels": {"kubernetes.io/metadata.name": "shop"}});
    assert_eq!(
        of_peer(&json!({"namespaceSelector": named, "podSelector": db})),
        ["10.9.0.1/32", "fd09::1/128"]
    );
    assert_eq!(of_peer(&json!({"namespaceSelector": {}, "podSelector": db})).len(), 3);
    let of = |operator: &str, values: &Value| {
        let mut expression = json!({"key": "app", "operator": operator});
        if !values.is_null() {
            expression["values"] = values.clone();
        }
        of_peer(&json!({"podSelector": {"matchExpressions": [expression]}}))
    };
    assert_eq!(of("In", &json!(["old-db", "x"])), ["10.9.0.2/32"]);
    assert_eq!(of("NotIn", &json!(["db"])), ["10.9.0.2/32"]);
    assert_eq!(of("Exists", &Value::Null).len(), 3);
    assert_eq!(of("DoesNotExist", &Value::Null), [""; 0]);
    assert_eq!(of_peer(&json!({"ipBlock": {"cidr": "10.9.0.0/24"}})), [""; 0]);
}

#[test]
fn nobody_is_never_everybody() {
    let nobody = json!({"podSelector": {"matchLabels": {"app": "none"}}});
    let db = json!({"podSelector": {"matchLabels": {"app": "db"}}});
    for spec in [
        json!({"podSelector": {}}),
        json!({"podSelector": {}, "ingress": [], "policyTypes": ["Ingress"]}),
        json!({"podSelector": {}, "ingress": [{}]}),
        json!({"podSelector": {}, "ingress": [{"from": []}], "egress": [{"to": [], "ports": [{"port": 1}]}]}),
        json!({"podSelector": {}, "ingress": [{"from": [nobody]}], "egress": [{"to": [nobody]}]}),
        // Nobody of those has such a port.
        json!({"podSelector": {}, "egress": [{"to": [db], "ports": [{"port": "http"}]}]}),
        json!({"podSelector": {}, "egress": [{"to": [db], "ports": [{"port": "sql", "protocol": "UDP"}]}]}),
    ] {
        assert_eq!(companion_of(&spec), Value::Null, "{spec}");
    }
}

#[test]
fn a_direction_that_is_open_stays_open() {
    let db = json!([{"podSelector": {"matchLabels": {"app": "db"}}}]);
    let both = |types: Value| json!({"podSelector": {}, "policyTypes": types, "ingress": [{"from": db}], "egress": [{"to": db}]});
    let directions = |spec: &Value| {
        let found = companion_of(spec);
        let has = |key| found.get(key).is_some();
        (found["policyTypes"].clone(), has("ingress"), has("egress"))
    };
    assert_eq!(directions(&both(json!(["Ingress"]))), (json!(["Ingress"]), true, false));
    assert_eq!(directions(&both(json!(["Egress"]))), (json!(["Egress"]), false, true));
    assert_eq!(directions(&both(json!([]))), (json!(["Ingress", "Egress"]), true, true));
    let egress = json!({"podSelector": {}, "egress": [{"to": db}]});
    assert_eq!(directions(&egress), (json!(["Egress"]), false, true));
}

#[test]
fn a_port_by_name_is_the_workloads_own_on_the_way_to_it() {
    let to = json!([{"podSelector": {}}]);
    let spec = json!({"podSelector": {}, "egress": [{"to": to, "ports": [{"port": "sql"}, {"port": 53, "protocol": "UDP"}]}]});
    let dns = json!({"protocol": "UDP", "port": 53});
    let expected = json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [
        {"to": blocks(&["10.9.0.2/32"]), "ports": [{"protocol": "TCP", "port": 1521}, dns]},
        {"to": blocks(&["10.9.0.1/32", "fd09::1/128"]), "ports": [{"protocol": "TCP", "port": 5432}, dns]}]});
    assert_eq!(companion_of(&spec), expected);
    let everywhere = json!({"podSelector": {}, "egress": [
        {"to": [{"namespaceSelector": {}}], "ports": [{"port": "sql"}]}]});
    assert!(!companion_of(&everywhere).to_string().contains("10.9.0.3"), "who has no such port is left out");
    // Also where a rule means addresses: nobody else knows whose name that is.
    let ports = json!([{"port": "sql"}, {"port": 53}]);
    let block = json!([{"ipBlock": {"cidr": "10.9.0.0/31"}}]);
    let spec = json!({"podSelector": {}, "egress": [{"to": block, "ports": ports}]});
    let expected = json!([{"to": blocks(&["10.9.0.1/32"]), "ports": [{"protocol": "TCP", "port": 5432}]}]);
    assert_eq!(companion_of(&spec)["egress"], expected);
    let spec = json!({"podSelector": {}, "egress": [{"ports": ports}]});
    assert_eq!(companion_of(&spec)["egress"].as_array().map(Vec::len), Some(2));
}

#[test]
fn one_that_is_too_large_is_none() {
    let from = json!({"from": [{"podSelector": {}}]});
    let spec = json!({"podSelector": {}, "ingress": [from, from]});
    assert_eq!(plan_of(&spec, &cast(), 5), Plan::TooLarge(6));
    assert!(matches!(plan_of(&spec, &cast(), 6), Plan::Companion(_)));
}
