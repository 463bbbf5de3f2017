//! What a cluster's CNI allows a pod, which knows no external workloads but has the companion beside the policy, is what the
//! mesh would allow it, which knows them: nothing less, and nothing for anybody else.

use std::collections::BTreeMap;

use datapath::Direction;
use policy::evaluate::{Flow, evaluate};
use policy::facts::{Facts, Namespace, Pod, Workload};
use policy::identity::Identity;
use policy::resolve::{identity_labels, resolve};
use policy::state::{RuleAction, State};
use proptest::prelude::*;

use super::*;

const SUBJECT: &str = "10.1.0.1";
const PODS: [(&str, &str, &str); 3] =
    [("shop", "db", "10.1.0.2"), ("shop", "web", "10.1.0.3"), ("lab", "db", "10.1.0.4")];
const OUTSIDE: [&str; 3] = ["192.0.2.1", "10.9.0.99", "fd09::99"];
const TEAMS: [(&str, &str); 2] = [("shop", "shop"), ("lab", "lab")];

fn facts(hosts: &[Members], policies: &[PolicyObject]) -> Facts {
    let workload = |namespace: &str, group: &Group, addresses: Vec<IpAddr>| Workload {
        namespace: namespace.to_owned(),
        labels: group.labels.clone(),
        service_account: "default".to_owned(),
        named_ports: group.ports.clone(),
        addresses,
        ..Workload::default()
    };
    // The pod whose policy it is: policy is compiled for workloads, and the same for both.
    let subject =
        workload("shop", &group(&[("app", "api")], &[("http", 8080)]), vec![SUBJECT.parse().unwrap()]);
    let hosts = hosts.iter().enumerate().map(|(number, members)| {
        let namespace = members.labels.namespace().unwrap();
        let fact = workload(namespace, &members.group, members.addresses.iter().copied().collect());
        (format!("{namespace}/host-{number}").into(), Arc::new(fact))
    });
    let pods = PODS.iter().map(|(namespace, app, address)| {
        let group = group(&[("app", app)], &[("sql", 3306), ("http", 80)]);
        let pod = Pod {
            namespace: (*namespace).to_owned(),
            labels: group.labels,
            service_account: "default".to_owned(),
            named_ports: group.ports,
            addresses: vec![address.parse().unwrap()],
            ..Pod::default()
        };
        (format!("{namespace}/{app}").into(), Arc::new(pod))
    });
    let namespaces = TEAMS.iter().map(|(name, team)| {
        let labels = [("team".to_owned(), (*team).to_owned())].into();
        ((*name).to_owned(), Arc::new(Namespace { labels, unreadable: false }))
    });
    Facts {
        cluster: "default".to_owned(),
        namespaces: namespaces.collect(),
        pods: pods.collect(),
        workloads: hosts.chain([("shop/api".into(), Arc::new(subject))]).collect(),
        policies: policies
            .iter()
            .enumerate()
            .map(|(number, policy)| (number.to_string().into(), Arc::new(policy.clone())))
            .collect(),
        ..Facts::default()
    }
}

fn resolved(facts: &Facts) -> State {
    let numbers = (256..).map(|number| Identity::try_new(number).unwrap());
    let identities: BTreeMap<Labels, Identity> = identity_labels(facts).into_iter().zip(numbers).collect();
    resolve(facts, &identities).unwrap().state
}

fn allows(state: &State, direction: Direction, remote: IpAddr, protocol: u8, port: u16) -> bool {
    let of = |address: &IpAddr| state.endpoints.get(address).map(|endpoint| endpoint.identity);
    let subject = of(&SUBJECT.parse().unwrap()).unwrap();
    let flow = Flow { direction, identity: of(&remote), remote, protocol, port };
    evaluate(&state.policies[&subject], &flow).action == RuleAction::Allow
}

fn selector() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!({})),
        prop::sample::select(vec!["db", "web", "old-db", "none"])
            .prop_map(|app| json!({"matchLabels": {"app": app}})),
        prop::sample::select(vec!["In", "NotIn"]).prop_map(
            |operator| json!({"matchExpressions": [{"key": "app", "operator": operator, "values": ["db", "web"]}]})
        ),
        Just(json!({"matchExpressions": [{"key": "app", "operator": "Exists"}]})),
        Just(json!({"matchExpressions": [{"key": "tier", "operator": "DoesNotExist"}]})),
    ]
}

fn teams() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!({})),
        prop::sample::select(vec!["shop", "lab", "none"])
            .prop_map(|team| json!({"matchLabels": {"team": team}})),
    ]
}

fn peer() -> BoxedStrategy<Value> {
    let by_labels = prop_oneof![
        selector().prop_map(|pods| json!({"podSelector": pods})),
        teams().prop_map(|namespaces| json!({"namespaceSelector": namespaces})),
        (selector(), teams())
            .prop_map(|(pods, namespaces)| json!({"podSelector": pods, "namespaceSelector": namespaces})),
    ];
    let block = json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.9.0.0/31", "10.1.0.2/32"]}});
    prop_oneof![4 => by_labels, 1 => Just(block)].boxed()
}

fn port() -> BoxedStrategy<Value> {
    let protocols = prop::sample::select(vec!["TCP", "UDP"]);
    let numbered = (protocols, prop::option::of(prop::sample::select(vec![80, 443, 5432]))).prop_flat_map(
        |(protocol, port)| match port {
            None => Just(json!({"protocol": protocol})).boxed(),
            Some(port) => prop_oneof![
                Just(json!({"protocol": protocol, "port": port})),
                Just(json!({"protocol": protocol, "port": port, "endPort": port + 2000})),
            ]
            .boxed(),
        },
    );
    let names = prop::sample::select(vec!["sql", "http", "none"]).prop_map(|name| json!({"port": name}));
    prop_oneof![numbered, names].boxed()
}

fn list(item: BoxedStrategy<Value>) -> impl Strategy<Value = Option<Vec<Value>>> {
    prop::option::weighted(0.9, prop::collection::vec(item, 0..3))
}

fn rule(peers: &'static str) -> impl Strategy<Value = Value> {
    (list(peer()), list(port())).prop_map(move |(some, ports)| {
        let fields = [(peers, some), ("ports", ports)];
        fields.into_iter().filter_map(|(key, value)| Some((key.to_owned(), json!(value?)))).collect()
    })
}

fn spec() -> impl Strategy<Value = Value> {
    let types =
        vec![json!(null), json!([]), json!(["Ingress"]), json!(["Egress"]), json!(["Ingress", "Egress"])];
    let rules = |peers| prop::collection::vec(rule(peers), 0..3);
    (prop::sample::select(types), rules("from"), rules("to")).prop_map(|(types, ingress, egress)| {
        let mut spec =
            json!({"podSelector": {"matchLabels": {"app": "api"}}, "ingress": ingress, "egress": egress});
        if !types.is_null() {
            spec["policyTypes"] = types;
        }
        spec
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    #[test]
    fn with_its_companion_a_policy_allows_a_pod_in_the_cluster_what_it_allows_in_the_mesh(spec in spec()) {
        let (hosts, original) = (cast(), parsed(&spec));
        let mut policies = vec![original.clone()];
        match plan_of(&spec, &hosts, 1000) {
            Plan::Nothing => {}
            Plan::Companion(spec) => {
                let raw = serde_json::to_value(&spec).unwrap();
                let made = crate::companions::object::companion(("shop", "p"), "1", *spec, None);
                prop_assert!(crate::manifest::companion::companion(&made.metadata, &raw).is_ok(), "{raw}");
                policies.push(parsed(&raw));
            }
            Plan::TooLarge(blocks) => panic!("{blocks} blocks"),
        }
        let (mesh, cni) = (resolved(&facts(&hosts, &[original])), resolved(&facts(&[], &policies)));
        let of_pods = PODS.iter().map(|(.., address)| address.parse().unwrap());
        let outside = OUTSIDE.iter().map(|address| address.parse().unwrap());
        let of_hosts = hosts.iter().flat_map(|members| members.addresses.iter().copied());
        for remote in of_pods.chain(outside).chain(of_hosts) {
            for direction in [Direction::Ingress, Direction::Egress] {
                for (protocol, port) in [6, 17].into_iter().flat_map(|protocol| {
                    [80, 443, 1521, 2000, 3306, 5432, 7000, 8080].map(|port| (protocol, port))
                }) {
                    prop_assert_eq!(
                        allows(&cni, direction, remote, protocol, port),
                        allows(&mesh, direction, remote, protocol, port),
                        "{} {:?} {} {}: {:#?}", remote, direction, protocol, port, policies
                    );
                }
            }
        }
    }
}
