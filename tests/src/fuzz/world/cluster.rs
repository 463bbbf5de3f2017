//! A cluster: namespaces, pods, external workloads, a transit node, policies.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use policy::facts::{Facts, NamedPort, Namespace, Pod, Workload};
use serde_json::{Value, json};

use crate::fuzz::choices::Choices;

const NAMESPACES: [&str; 3] = ["red", "green", "blue"];
const PORTS: [u16; 5] = [53, 80, 81, 443, 8080];
const PROTOCOLS: [(&str, u8); 3] = [("TCP", 6), ("UDP", 17), ("SCTP", 132)];
const CIDRS: [&str; 10] = [
    "0.0.0.0/0",
    "10.0.0.0/24",
    "10.0.0.2/31",
    "10.0.0.1/32",
    "10.9.0.0/30",
    "203.0.113.0/24",
    "::/0",
    "fd00::/64",
    "fd00::/126",
    "fd00::9:0/112",
];

/// A pod or a workload.
#[derive(Clone, Debug)]
pub(super) struct Thing {
    pub(super) namespace: &'static str,
    pub(super) labels: BTreeMap<&'static str, &'static str>,
    /// Name, protocol, number.
    pub(super) ports: Vec<(&'static str, &'static str, u16)>,
    pub(super) addresses: [IpAddr; 2],
    pub(super) transit: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Cluster {
    /// The label `app` of each namespace.
    teams: BTreeMap<&'static str, &'static str>,
    pub(super) pods: Vec<Thing>,
    pub(super) workloads: Vec<Thing>,
    pub(super) policies: Vec<Value>,
}

impl Cluster {
    pub(super) fn choose(choices: &mut Choices<'_>) -> Self {
        let teams = NAMESPACES.iter().filter(|_| choices.flag()).copied().collect::<Vec<_>>();
        let teams = teams.into_iter().map(|name| (name, choices.one_of(&["1", "2"]))).collect();
        let pods = things(choices, "10.0.0.", "fd00::", 3);
        let mut workloads = things(choices, "10.9.0.", "fd00::9:", 2);
        // Workloads of one identity name their ports alike; what they disagree about matches nothing.
        let first = workloads.clone();
        for workload in &mut workloads {
            let alike =
                |other: &&Thing| other.namespace == workload.namespace && other.labels == workload.labels;
            workload.ports = first.iter().find(alike).unwrap().ports.clone();
        }
        workloads.push(Thing {
            transit: true,
            addresses: ["10.9.0.99".parse().unwrap(), "fd00::9:99".parse().unwrap()],
            ..workloads[0].clone()
        });
        let count = 1 + choices.below(3);
        Self { teams, pods, workloads, policies: (0..count).map(|number| policy(choices, number)).collect() }
    }

    pub(super) fn namespace_labels(&self, name: &'static str) -> BTreeMap<&'static str, &'static str> {
        let team = self.teams.get(name).map(|team| ("app", *team));
        team.into_iter().chain([("kubernetes.io/metadata.name", name)]).collect()
    }

    pub(super) fn facts(&self) -> Facts {
        let pods = self.pods.iter().enumerate().map(|(number, thing)| {
            let pod = Pod {
                namespace: thing.namespace.to_owned(),
                labels: thing.labels(),
                named_ports: thing.named_ports(),
                addresses: thing.addresses.to_vec(),
                ..Pod::default()
            };
            (Arc::from(format!("{}/pod{number}", thing.namespace)), Arc::new(pod))
        });
        let workloads = self.workloads.iter().enumerate().map(|(number, thing)| {
            let workload = Workload {
                namespace: thing.namespace.to_owned(),
                labels: thing.labels(),
                named_ports: thing.named_ports(),
                addresses: thing.addresses.to_vec(),
                transit: thing.transit,
                ..Workload::default()
            };
            (Arc::from(format!("{}/vm{number}", thing.namespace)), Arc::new(workload))
        });
        let namespaces = NAMESPACES.iter().map(|name| {
            let labels = self.teams.get(name).map(|team| ("app".to_owned(), (*team).to_owned()));
            (
                (*name).to_owned(),
                Arc::new(Namespace { labels: labels.into_iter().collect(), unreadable: false }),
            )
        });
        let policies = self.policies.iter().map(|raw| policy::networkpolicy::parse(raw).unwrap());
        Facts {
            cluster: "default".to_owned(),
            namespaces: namespaces.collect(),
            pods: pods.collect(),
            workloads: workloads.collect(),
            policies: policies.map(|policy| (Arc::clone(&policy.origin), Arc::new(policy))).collect(),
            cidr_groups: BTreeMap::new(),
            services: BTreeMap::new(),
            relabels: BTreeMap::new(),
        }
    }
}

impl Thing {
    fn labels(&self) -> BTreeMap<String, String> {
        self.labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn named_ports(&self) -> Vec<NamedPort> {
        let number = |name: &str| PROTOCOLS.iter().find(|(known, _)| *known == name).unwrap().1;
        let ports = self.ports.iter();
        ports
            .map(|(name, protocol, port)| NamedPort {
                name: (*name).to_owned(),
                protocol: number(protocol),
                number: *port,
            })
            .collect()
    }
}

fn things(choices: &mut Choices<'_>, v4: &str, v6: &str, most: usize) -> Vec<Thing> {
    let count = 1 + choices.below(most);
    let thing = |number: usize| {
        let mut labels = BTreeMap::new();
        for key in ["app", "tier"] {
            if choices.flag() {
                labels.insert(key, choices.one_of(&["1", "2"]));
            }
        }
        let mut ports = Vec::new();
        if choices.flag() {
            ports.push(("http", "TCP", choices.one_of(&PORTS)));
        }
        if choices.flag() {
            ports.push(("dns", choices.one_of(&["TCP", "UDP"]), 53));
        }
        let addresses = [format!("{v4}{number}").parse().unwrap(), format!("{v6}{number}").parse().unwrap()];
        Thing { namespace: choices.one_of(&NAMESPACES), labels, ports, addresses, transit: false }
    };
    (1..=count).map(thing).collect()
}

fn selector(choices: &mut Choices<'_>) -> Value {
    let key = choices.one_of(&["app", "tier"]);
    let value = choices.one_of(&["1", "2"]);
    match choices.below(6) {
        0 => json!({}),
        1 => json!({"matchLabels": {key: value}}),
        2 => json!({"matchExpressions": [{"key": key, "operator": "In", "values": [value]}]}),
        3 => json!({"matchExpressions": [{"key": key, "operator": "NotIn", "values": [value]}]}),
        4 => json!({"matchExpressions": [{"key": key, "operator": "Exists"}]}),
        _ => json!({"matchExpressions": [{"key": key, "operator": "DoesNotExist"}], "matchLabels": {}}),
    }
}

fn namespaces(choices: &mut Choices<'_>) -> Value {
    if choices.seldom(3) {
        json!({"matchLabels": {"kubernetes.io/metadata.name": choices.one_of(&NAMESPACES)}})
    } else {
        selector(choices)
    }
}

fn peer(choices: &mut Choices<'_>) -> Value {
    match choices.below(4) {
        0 => json!({"podSelector": selector(choices)}),
        1 => json!({"namespaceSelector": namespaces(choices)}),
        2 => json!({"podSelector": selector(choices), "namespaceSelector": namespaces(choices)}),
        _ => {
            let cidr: ipnet::IpNet = choices.one_of(&CIDRS).parse().unwrap();
            // Holes lie in their block and are smaller.
            let holes: Vec<&str> = CIDRS
                .iter()
                .filter(|hole| {
                    let hole: ipnet::IpNet = hole.parse().unwrap();
                    hole != cidr && cidr.contains(&hole) && choices.flag()
                })
                .copied()
                .collect();
            json!({"ipBlock": {"cidr": cidr.to_string(), "except": holes}})
        }
    }
}

fn port(choices: &mut Choices<'_>) -> Value {
    let mut port = match choices.below(5) {
        0 => json!({}),
        1 => json!({"port": choices.one_of(&PORTS)}),
        2 => json!({"port": choices.one_of(&["http", "dns"])}),
        3 => json!({"port": 1 + choices.below(80), "endPort": choices.one_of(&[80, 443, 65_535])}),
        _ => json!({"port": choices.one_of(&PORTS), "endPort": 65_535}),
    };
    if choices.flag() {
        port["protocol"] = json!(choices.one_of(&PROTOCOLS).0);
    }
    port
}

/// Absent, empty or some.
fn put(
    choices: &mut Choices<'_>,
    object: &mut Value,
    field: &str,
    make: impl FnMut(&mut Choices<'_>) -> Value,
) {
    if !choices.seldom(6) {
        object[field] = choices.list(2, make).into();
    }
}

fn rules(choices: &mut Choices<'_>, spec: &mut Value, field: &str, peers: &str) {
    put(choices, spec, field, |choices| {
        let mut rule = json!({});
        put(choices, &mut rule, peers, peer);
        put(choices, &mut rule, "ports", port);
        rule
    });
}

fn policy(choices: &mut Choices<'_>, number: usize) -> Value {
    let mut spec = json!({"podSelector": selector(choices)});
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
        "metadata": {"name": format!("p{number}"), "namespace": choices.one_of(&NAMESPACES)},
    })
}
