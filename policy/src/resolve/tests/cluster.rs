//! Random small clusters, decided twice: from the manifests by [`super::naive`], and through resolve, evaluate and
//! lower.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use datapath::{Action, Direction};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::naive::{Probe, allows};
use crate::evaluate::{Flow, evaluate};
use crate::facts::{Facts, NamedPort, Namespace, Pod, Workload};
use crate::state::{Role, RuleAction};

/// A pod or a workload.
#[derive(Clone, Debug)]
pub(super) struct Thing {
    pub(super) namespace: String,
    pub(super) labels: Vec<(String, String)>,
    pub(super) ports: Vec<(String, String, u16)>,
    pub(super) addresses: Vec<IpAddr>,
    transit: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Cluster {
    namespaces: Vec<(String, Option<String>)>,
    pods: Vec<Thing>,
    workloads: Vec<Thing>,
    pub(super) policies: Vec<Value>,
}

const NAMESPACES: [&str; 3] = ["red", "green", "blue"];
const PORTS: [u16; 5] = [53, 80, 81, 443, 8080];
const PROTOCOLS: [(&str, u8); 3] = [("TCP", 6), ("UDP", 17), ("SCTP", 132)];
const CIDRS: [(&str, &[&str]); 6] = [
    ("0.0.0.0/0", &["10.0.0.0/30", "10.9.0.0/16"]),
    ("10.0.0.0/24", &["10.0.0.2/32"]),
    ("10.0.0.2/31", &[]),
    ("::/0", &["fd00::2/128"]),
    ("fd00::/64", &["fd00::/126", "fd00::9:0/112"]),
    ("10.9.0.0/30", &[]),
];

const TYPES: [Option<&[&str]>; 5] =
    [None, Some(&[]), Some(&["Ingress"]), Some(&["Egress"]), Some(&["Ingress", "Egress"])];

impl Cluster {
    pub(super) fn namespace_labels(&self, name: &str) -> Vec<(String, String)> {
        let team = self.namespaces.iter().find(|(n, _)| n == name).and_then(|(_, team)| team.clone());
        let own = ("kubernetes.io/metadata.name".to_owned(), name.to_owned());
        team.map(|team| ("app".to_owned(), team)).into_iter().chain([own]).collect()
    }

    pub(super) fn facts(&self) -> Facts {
        let number = |name: &str| PROTOCOLS.iter().find(|(n, _)| *n == name).unwrap().1;
        let labels = |thing: &Thing| thing.labels.iter().cloned().collect::<BTreeMap<_, _>>();
        let ports = |thing: &Thing| -> Vec<NamedPort> {
            let named = thing.ports.iter();
            named
                .map(|(name, p, n)| NamedPort { name: name.clone(), protocol: number(p), number: *n })
                .collect()
        };
        let pods = self.pods.iter().enumerate().map(|(i, thing)| {
            let (namespace, addresses) = (thing.namespace.clone(), thing.addresses.clone());
            let pod = Pod {
                namespace,
                labels: labels(thing),
                named_ports: ports(thing),
                addresses,
                ..Pod::default()
            };
            (Arc::from(format!("{}/pod{i}", thing.namespace)), Arc::new(pod))
        });
        let workloads = self.workloads.iter().enumerate().map(|(i, thing)| {
            let workload = Workload {
                namespace: thing.namespace.clone(),
                labels: labels(thing),
                named_ports: ports(thing),
                addresses: thing.addresses.clone(),
                role: if thing.transit { Role::Transit } else { Role::Host },
                ..Workload::default()
            };
            (Arc::from(format!("{}/vm{i}", thing.namespace)), Arc::new(workload))
        });
        let namespaces = self.namespaces.iter().map(|(name, team)| {
            let labels = team.iter().map(|team| ("app".to_owned(), team.clone())).collect();
            (name.clone(), Arc::new(Namespace { labels, unreadable: false }))
        });
        let policies = self.policies.iter().map(|raw| crate::networkpolicy::parse(raw).unwrap());
        Facts {
            cluster: "default".into(),
            namespaces: namespaces.collect(),
            pods: pods.collect(),
            workloads: workloads.collect(),
            cidr_groups: BTreeMap::new(),
            services: BTreeMap::new(),
            policies: policies.map(|policy| (Arc::clone(&policy.origin), Arc::new(policy))).collect(),
            relabels: BTreeMap::new(),
        }
    }
}

fn labels() -> impl Strategy<Value = Vec<(String, String)>> {
    let value = || prop::option::of(prop::sample::select(&["1", "2"][..]));
    (value(), value()).prop_map(|(app, tier)| {
        let given = [("app", app), ("tier", tier)].into_iter();
        given.filter_map(|(key, value)| value.map(|value| (key.to_owned(), value.to_owned()))).collect()
    })
}

fn thing() -> impl Strategy<Value = Thing> {
    let number = || prop::sample::select(&PORTS[..]);
    let http = prop::option::of(number()).prop_map(|n| n.map(|n| ("http".to_owned(), "TCP".to_owned(), n)));
    let dns = prop::option::of(prop::sample::select(&["TCP", "UDP"][..]))
        .prop_map(|p| p.map(|p| ("dns".to_owned(), p.to_owned(), 53)));
    (prop::sample::select(&NAMESPACES[..]), labels(), http, dns).prop_map(|(namespace, labels, http, dns)| {
        Thing {
            namespace: namespace.to_owned(),
            labels,
            ports: http.into_iter().chain(dns).collect(),
            addresses: Vec::new(),
            transit: false,
        }
    })
}

fn selector() -> impl Strategy<Value = Value> {
    let key = || prop::sample::select(&["app", "tier"][..]);
    let value = || prop::sample::select(&["1", "2"][..]);
    let expression = (key(), prop::sample::select(&["In", "NotIn", "Exists", "DoesNotExist"][..]), value())
        .prop_map(|(key, operator, value)| match operator {
            "In" | "NotIn" => json!({"key": key, "operator": operator, "values": [value]}),
            _ => json!({"key": key, "operator": operator}),
        });
    prop_oneof![
        2 => Just(json!({})),
        2 => (key(), value()).prop_map(|(key, value)| json!({"matchLabels": {key: value}})),
        2 => expression.prop_map(|expression| json!({"matchExpressions": [expression]})),
    ]
}

fn peer() -> impl Strategy<Value = Value> {
    let by_name = prop::sample::select(&NAMESPACES[..])
        .prop_map(|name| json!({"matchLabels": {"kubernetes.io/metadata.name": name}}));
    let namespaces = || prop_oneof![2 => selector(), 1 => by_name.clone()];
    prop_oneof![
        selector().prop_map(|pods| json!({"podSelector": pods})),
        namespaces().prop_map(|namespaces| json!({"namespaceSelector": namespaces})),
        (selector(), namespaces()).prop_map(|(p, n)| json!({"podSelector": p, "namespaceSelector": n})),
        (prop::sample::select(&CIDRS[..]), any::<bool>()).prop_map(|((cidr, except), holes)| {
            if holes {
                json!({"ipBlock": {"cidr": cidr, "except": except}})
            } else {
                json!({"ipBlock": {"cidr": cidr}})
            }
        }),
    ]
}

fn port() -> impl Strategy<Value = Value> {
    let protocol = prop::option::of(prop::sample::select(&PROTOCOLS[..]));
    let port = prop_oneof![
        1 => Just(json!({})),
        2 => prop::sample::select(&PORTS[..]).prop_map(|port| json!({"port": port})),
        2 => prop::sample::select(&["http", "dns"][..]).prop_map(|name| json!({"port": name})),
        1 => (1_u16..=80, 80_u16..=9000).prop_map(|(port, end)| json!({"port": port, "endPort": end})),
    ];
    (port, protocol).prop_map(|(mut port, protocol)| {
        if let Some((name, _)) = protocol {
            port["protocol"] = json!(name);
        }
        port
    })
}

/// Absent, empty or some.
fn list(of: BoxedStrategy<Value>) -> BoxedStrategy<Option<Vec<Value>>> {
    let some = prop::collection::vec(of, 1..3);
    prop_oneof![1 => Just(None), 1 => Just(Some(Vec::new())), 6 => some.prop_map(Some)].boxed()
}

fn put(object: &mut Value, field: &str, list: Option<Vec<Value>>) {
    if let Some(list) = list {
        object[field] = list.into();
    }
}

fn rules(peers: &'static str) -> BoxedStrategy<Option<Vec<Value>>> {
    let rule = (list(peer().boxed()), list(port().boxed())).prop_map(move |(from, ports)| {
        let mut rule = json!({});
        put(&mut rule, peers, from);
        put(&mut rule, "ports", ports);
        rule
    });
    list(rule.boxed())
}

fn policy() -> impl Strategy<Value = (String, Value)> {
    let types = prop::sample::select(&TYPES[..]);
    (prop::sample::select(&NAMESPACES[..]), selector(), types, rules("from"), rules("to")).prop_map(
        |(namespace, subject, types, ingress, egress)| {
            let mut spec = json!({"podSelector": subject});
            put(&mut spec, "policyTypes", types.map(|types| types.iter().map(|kind| json!(kind)).collect()));
            put(&mut spec, "ingress", ingress);
            put(&mut spec, "egress", egress);
            (namespace.to_owned(), spec)
        },
    )
}

pub(super) fn cluster() -> impl Strategy<Value = Cluster> {
    let teams = prop::collection::vec(prop::option::of(prop::sample::select(&["1", "2"][..])), 3);
    let things = |most| prop::collection::vec(thing(), 1..most);
    (teams, things(6), things(4), prop::collection::vec(policy(), 1..5)).prop_map(
        |(teams, mut pods, mut workloads, policies)| {
            address(&mut pods, "10.0.0.", "fd00::");
            address(&mut workloads, "10.9.0.", "fd00::9:");
            // Workloads of one identity name their ports alike; what happens else has its own test.
            let first = workloads.clone();
            for workload in &mut workloads {
                let alike = |w: &&Thing| w.namespace == workload.namespace && w.labels == workload.labels;
                workload.ports = first.iter().find(alike).unwrap().ports.clone();
            }
            let mut transit = Thing { transit: true, ..workloads[0].clone() };
            transit.addresses = vec!["10.9.0.99".parse().unwrap(), "fd00::9:99".parse().unwrap()];
            workloads.push(transit);
            let policies = policies.into_iter().enumerate().map(|(i, (namespace, spec))| {
                json!({
                    "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "spec": spec,
                    "metadata": {"name": format!("p{i}"), "namespace": namespace},
                })
            });
            let teams = teams.into_iter().map(|team| team.map(str::to_owned));
            let namespaces = NAMESPACES.iter().map(|name| (*name).to_owned()).zip(teams).collect();
            Cluster { namespaces, pods, workloads, policies: policies.collect() }
        },
    )
}

fn address(things: &mut [Thing], v4: &str, v6: &str) {
    for (thing, number) in things.iter_mut().zip(1..) {
        thing.addresses =
            vec![format!("{v4}{number}").parse().unwrap(), format!("{v6}{number}").parse().unwrap()];
    }
}

/// Chooses a flow: subject, direction, other end (one past the last is nobody's address), family, protocol, port.
type Choice = (usize, bool, usize, bool, usize, u16);

fn choice() -> impl Strategy<Value = Choice> {
    let port = prop_oneof![4 => prop::sample::select(&PORTS[..]), 1 => any::<u16>()];
    (any::<usize>(), any::<bool>(), any::<usize>(), any::<bool>(), 0..PROTOCOLS.len(), port)
}

fn chosen<'a>(cluster: &'a Cluster, choice: &Choice) -> (Probe<'a>, u8) {
    let (subject, ingress, other, v6, protocol, port) = *choice;
    let subjects: Vec<&Thing> = cluster.workloads.iter().filter(|workload| !workload.transit).collect();
    let others: Vec<&Thing> = cluster.pods.iter().chain(&cluster.workloads).collect();
    let other = others.get(other % (others.len() + 1)).copied();
    let nobody = if v6 { "2001:db8::1" } else { "203.0.113.1" }.parse().unwrap();
    let address = other.map_or(nobody, |thing| thing.addresses[usize::from(v6)]);
    let (name, number) = PROTOCOLS[protocol];
    let subject = subjects[subject % subjects.len()];
    // A transit node has an address, but no labels that a selector could match and no names for ports.
    let remote = other.filter(|thing| !thing.transit);
    (Probe { subject, ingress, remote, address, protocol: name, port }, number)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn resolved_and_lowered_decide_as_the_manifests_say(
        cluster in cluster(),
        choices in prop::collection::vec(choice(), 24),
    ) {
        let facts = cluster.facts();
        let state = super::resolved(&facts).state;
        prop_assert_eq!(&state, &super::resolved(&facts).state);
        for choice in &choices {
            let (probe, protocol) = chosen(&cluster, choice);
            let expected = allows(&cluster, &probe);
            let policy = &state.policies[&state.endpoints[&probe.subject.addresses[0]].identity];
            let flow = Flow {
                direction: if probe.ingress { Direction::Ingress } else { Direction::Egress },
                identity: state.endpoints.get(&probe.address).map(|endpoint| endpoint.identity),
                remote: probe.address,
                protocol,
                port: probe.port,
            };
            prop_assert_eq!(evaluate(policy, &flow).action == RuleAction::Allow, expected, "{:?}", probe);
            let decided = crate::lower::naive::decide(&crate::lower(policy), &flow).0;
            prop_assert_eq!(decided == Action::Allow, expected, "lowered: {:?}", probe);
        }
    }
}
