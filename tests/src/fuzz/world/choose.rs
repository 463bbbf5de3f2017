//! What clusters and policies are made of: few words, so that they meet each other.

mod cilium;
mod network;
mod tiers;

use std::net::IpAddr;

use serde_json::{Value, json};

use super::cluster::{Cluster, Group, Kind, Labels, NAMESPACES, PROTOCOLS, Service, Thing};
use super::oracle::Probe;
use crate::fuzz::choices::Choices;

const PORTS: [u16; 5] = [53, 80, 81, 443, 8080];
const NAMES: [&str; 2] = ["http", "dns"];
const VALUES: [&str; 2] = ["1", "2"];
const SERVICES: [&str; 2] = ["front", "back"];
const GROUPS: [&str; 2] = ["near", "far"];
const NOBODY: [[&str; 2]; 2] = [["203.0.113.1", "2001:db8::1"], ["203.0.113.2", "2001:db8::2"]];
const CIDRS: [&str; 13] = [
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.0.0.0/24",
    "10.0.0.2/31",
    "10.0.0.1/32",
    "10.9.0.0/30",
    "203.0.113.0/24",
    "203.0.113.1/32",
    "::/0",
    "fd00::/64",
    "fd00::/126",
    "fd00::9:0/112",
    "2001:db8::/32",
];

/// A key and its values.
type Key = (&'static str, &'static [&'static str]);

const POD_KEYS: [Key; 7] = [
    ("app", &VALUES),
    ("app", &VALUES),
    ("tier", &VALUES),
    ("tier", &VALUES),
    ("app", &["1"]),
    ("pod-template-hash", &VALUES),
    ("io.cilium.k8s.policy.cluster", &["default", "other"]),
];
const NAMESPACE_KEYS: [Key; 3] =
    [("app", &VALUES), ("kubernetes.io/metadata.name", &NAMESPACES), ("tier", &VALUES)];
/// Labels of Services, groups and nodes.
const OBJECT_KEYS: [Key; 2] = [("app", &VALUES), ("tier", &VALUES)];

pub(super) fn policy(choices: &mut Choices<'_>, number: usize) -> Value {
    let name = format!("p{number}");
    if number == 0 && choices.seldom(4) {
        return tiers::baseline(choices);
    }
    match choices.below(7) {
        0 | 1 => network::policy(choices, &name),
        2 | 3 => cilium::policy(choices, &name, true),
        4 => cilium::policy(choices, &name, false),
        5 => tiers::cluster(choices, &name),
        _ => tiers::admin(choices, &name),
    }
}

/// Most things and policies meet in one namespace.
fn place(choices: &mut Choices<'_>) -> &'static str {
    if choices.flag() { NAMESPACES[0] } else { choices.one_of(&NAMESPACES) }
}

fn labels(choices: &mut Choices<'_>) -> Labels {
    let mut labels = Labels::new();
    for key in ["app", "tier"] {
        if choices.flag() {
            labels.insert(key, choices.one_of(&VALUES));
        }
    }
    if choices.seldom(6) {
        labels.insert("pod-template-hash", choices.one_of(&VALUES));
    }
    labels
}

pub(super) fn things(
    choices: &mut Choices<'_>,
    kind: Kind,
    (v4, v6): (&str, &str),
    most: usize,
) -> Vec<Thing> {
    let mut things: Vec<Thing> = Vec::new();
    for number in 1..=1 + choices.below(most) {
        let mut ports = Vec::new();
        if choices.flag() {
            ports.push(("http", "TCP", choices.one_of(&PORTS)));
        }
        if choices.flag() {
            ports.push(("dns", choices.one_of(&["TCP", "UDP"]), 53));
        }
        let addresses = [format!("{v4}{number}").parse().unwrap(), format!("{v6}{number}").parse().unwrap()];
        // Many are of one identity.
        let (namespace, labels, account) = match things.last() {
            Some(last) if choices.flag() => (last.namespace, last.labels.clone(), last.account),
            _ => (place(choices), labels(choices), if choices.seldom(4) { "robot" } else { "" }),
        };
        things.push(Thing { kind, namespace, labels, account, ports, addresses });
    }
    things
}

pub(super) fn services(choices: &mut Choices<'_>) -> Vec<Service> {
    let mut services = Vec::new();
    for name in SERVICES {
        for namespace in NAMESPACES {
            if choices.flag() {
                services.push(service(choices, namespace, name));
            }
        }
    }
    if choices.flag() {
        services.push(service(choices, "default", "kubernetes"));
    }
    services
}

fn service(choices: &mut Choices<'_>, namespace: &'static str, name: &'static str) -> Service {
    let selects = namespace != "default" && choices.flag();
    let selector = selects.then(|| {
        let mut selector = Labels::from([("app", choices.one_of(&VALUES))]);
        if choices.seldom(3) {
            selector.insert("tier", choices.one_of(&VALUES));
        }
        selector
    });
    let addresses = if selects {
        Vec::new()
    } else {
        let texts = choices.list(2, |choices| choices.one_of(&[NOBODY[0], ["10.0.0.1", "fd00::2"]]));
        texts.into_iter().flatten().map(|text| text.parse().unwrap()).collect()
    };
    Service { namespace, name, labels: labels(choices), selector, addresses }
}

pub(super) fn groups(choices: &mut Choices<'_>) -> Vec<Group> {
    let mut groups = Vec::new();
    for name in GROUPS {
        if choices.flag() {
            let cidrs = choices.list(3, |choices| choices.one_of(&CIDRS));
            groups.push(Group { name, labels: labels(choices), cidrs });
        }
    }
    groups
}

pub(super) fn probe<'a>(choices: &mut Choices<'_>, cluster: &'a Cluster) -> Probe<'a> {
    let subjects: Vec<&Thing> = cluster.subjects().collect();
    let subject = choices.one_of(&subjects);
    let remote = cluster.things.get(choices.below(cluster.things.len() + 2));
    let family = usize::from(choices.flag());
    let address: IpAddr = match remote {
        Some(thing) => thing.addresses[family],
        None => choices.one_of(&NOBODY)[family].parse().unwrap(),
    };
    let (protocol, port) = match choices.below(8) {
        // Types that rules name, and others.
        0 => ([1, 58][family], choices.one_of(&[8, 0, 3, 128, 129, 9])),
        1 => (choices.one_of(&[47, 50, 4, 1, 58]), 0),
        _ => (choices.one_of(&PROTOCOLS).1, choices.one_of(&[53, 80, 80, 81, 443, 8080, 0, 65_535, 1])),
    };
    Probe { subject, ingress: choices.flag(), remote, address, protocol, port }
}

/// Of subjects: most policies are about everybody.
fn subject(choices: &mut Choices<'_>, keys: &[Key]) -> Value {
    if choices.seldom(3) { selector(choices, keys) } else { json!({}) }
}

/// Up to two requirements.
fn selector(choices: &mut Choices<'_>, keys: &[Key]) -> Value {
    let mut selector = json!({});
    for _ in 0..choices.one_of(&[0, 0, 1, 1, 1, 2]) {
        let (key, values) = choices.one_of(keys);
        let value = choices.one_of(values);
        let values = if choices.seldom(4) { values.to_vec() } else { vec![value] };
        let expression = match choices.below(6) {
            0 | 1 => {
                selector["matchLabels"][key] = json!(value);
                continue;
            }
            2 => json!({"key": key, "operator": "In", "values": values}),
            3 => json!({"key": key, "operator": "NotIn", "values": values}),
            4 => json!({"key": key, "operator": "Exists"}),
            _ => json!({"key": key, "operator": "DoesNotExist"}),
        };
        if let Some(expressions) = selector["matchExpressions"].as_array_mut() {
            expressions.push(expression);
        } else {
            selector["matchExpressions"] = json!([expression]);
        }
    }
    selector
}

/// A block, and holes that lie in it and are smaller.
fn block(choices: &mut Choices<'_>) -> (&'static str, Vec<&'static str>) {
    let text = choices.one_of(&CIDRS);
    let cidr: ipnet::IpNet = text.parse().unwrap();
    let is_hole = |hole: &str| {
        let hole: ipnet::IpNet = hole.parse().unwrap();
        hole != cidr && cidr.contains(&hole)
    };
    let holes = CIDRS.iter().filter(|hole| is_hole(hole) && choices.seldom(3)).copied();
    (text, holes.collect())
}

/// Absent, empty or some.
fn put(
    choices: &mut Choices<'_>,
    object: &mut Value,
    field: &str,
    make: impl FnMut(&mut Choices<'_>) -> Value,
) {
    if !choices.seldom(6) {
        object[field] = choices.list(3, make).into();
    }
}

/// At least one.
fn some(choices: &mut Choices<'_>, mut make: impl FnMut(&mut Choices<'_>) -> Value) -> Value {
    let mut items = vec![make(choices)];
    if choices.flag() {
        items.push(make(choices));
    }
    items.into()
}
