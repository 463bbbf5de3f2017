use std::net::IpAddr;

use datapath::Direction;

use super::*;
use crate::evaluate::{Flow, evaluate};
use crate::facts::{NamedPort, Namespace, Pod, Relabel, Workload};
use crate::rules::PolicyObject;
use crate::state::{Block, Default, EndpointKind, Peers, PortRange, Ports, Role, RuleAction};

mod cluster;
mod history;
mod naive;
mod unclear;

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn pod(labels: &[(&str, &str)], address: &str, named_ports: &[(&str, u16)]) -> Arc<Pod> {
    Arc::new(Pod {
        namespace: "shop".into(),
        labels: map(labels),
        service_account: "default".into(),
        named_ports: ports(named_ports),
        addresses: vec![ip(address)],
        ..Pod::default()
    })
}

fn workload(labels: &[(&str, &str)], address: &str, named_ports: &[(&str, u16)]) -> Arc<Workload> {
    Arc::new(Workload {
        namespace: "shop".into(),
        labels: map(labels),
        service_account: "default".into(),
        named_ports: ports(named_ports),
        addresses: vec![ip(address)],
        ..Workload::default()
    })
}

fn ports(named: &[(&str, u16)]) -> Vec<NamedPort> {
    named
        .iter()
        .map(|(name, number)| NamedPort { name: (*name).into(), protocol: 6, number: *number })
        .collect()
}

fn policy(spec: &str) -> Arc<PolicyObject> {
    let raw = serde_json::json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "p", "namespace": "shop"}, "spec": serde_json::from_str::<serde_json::Value>(spec).unwrap(),
    });
    Arc::new(crate::networkpolicy::parse(&raw).unwrap())
}

fn facts(spec: &str, pods: &[(&str, Arc<Pod>)], workloads: &[(&str, Arc<Workload>)]) -> Facts {
    let policy = policy(spec);
    Facts {
        cluster: "default".into(),
        namespaces: BTreeMap::from([("shop".into(), Arc::new(Namespace::default()))]),
        pods: pods.iter().map(|(name, pod)| (Arc::from(*name), Arc::clone(pod))).collect(),
        workloads: workloads
            .iter()
            .map(|(name, workload)| (Arc::from(*name), Arc::clone(workload)))
            .collect(),
        cidr_groups: BTreeMap::new(),
        services: BTreeMap::new(),
        policies: BTreeMap::from([(Arc::clone(&policy.origin), policy)]),
        relabels: BTreeMap::new(),
    }
}

fn numbers(facts: &Facts) -> BTreeMap<Labels, Identity> {
    identity_labels(facts).into_iter().zip(256..).map(|(l, n)| (l, Identity::try_new(n).unwrap())).collect()
}

fn resolved(facts: &Facts) -> Resolved {
    resolve(facts, &numbers(facts)).unwrap()
}

fn policy_of<'a>(resolved: &'a Resolved, address: &str) -> &'a Policy {
    &resolved.state.policies[&identity_of(resolved, address)]
}

fn identity_of(resolved: &Resolved, address: &str) -> Identity {
    resolved.state.endpoints[&ip(address)].identity
}

const EMPTY: &str = r#"{"podSelector": {"matchLabels": {"app": "none"}}}"#;

#[test]
fn every_address_gets_an_endpoint_and_equal_labels_share_an_identity() {
    let transit =
        Arc::new(Workload { role: Role::Transit, addresses: vec![ip("10.9.0.9")], ..Workload::default() });
    let facts = facts(
        EMPTY,
        &[
            ("shop/a", pod(&[("app", "web")], "10.0.0.1", &[])),
            ("shop/b", pod(&[("app", "web")], "10.0.0.2", &[])),
        ],
        &[("shop/vm", workload(&[("app", "db")], "::ffff:10.9.0.1", &[])), ("outrigger-system/n", transit)],
    );
    let resolved = resolved(&facts);
    assert_eq!(resolved.state.endpoints.len(), 4);
    assert_eq!(identity_of(&resolved, "10.0.0.1"), identity_of(&resolved, "10.0.0.2"));
    assert_eq!(identity_of(&resolved, "10.9.0.9"), Identity::REMOTE_NODE);
    assert_eq!(resolved.state.endpoints[&ip("10.9.0.9")].kind, EndpointKind::Transit);
    assert_eq!(resolved.state.endpoints[&ip("10.9.0.1")].owner.as_deref(), Some("shop/vm"));
    assert_eq!(resolved.state.identities.len(), 3);
    let only_the_workload: Vec<_> = resolved.state.policies.keys().copied().collect();
    assert_eq!(only_the_workload, [identity_of(&resolved, "10.9.0.1")]);
    assert_eq!(*policy_of(&resolved, "10.9.0.1"), Policy::unrestricted());
}

#[test]
fn unusable_numbers_are_refused() {
    let facts = facts(
        EMPTY,
        &[("shop/a", pod(&[], "10.0.0.1", &[])), ("shop/b", pod(&[("x", "y")], "10.0.0.2", &[]))],
        &[],
    );
    let all = numbers(&facts);
    let given = |number| all.keys().map(|l| (l.clone(), Identity::try_new(number).unwrap())).collect();
    assert!(matches!(resolve(&facts, &BTreeMap::new()), Err(UnusableIdentities::Unallocated { .. })));
    assert!(matches!(resolve(&facts, &given(300)), Err(UnusableIdentities::Shared { .. })));
    assert!(matches!(resolve(&facts, &given(6)), Err(UnusableIdentities::Reserved { .. })));
}

#[test]
fn contested_addresses() {
    let facts = facts(
        EMPTY,
        &[
            ("shop/a", pod(&[], "10.0.0.1", &[])),
            ("shop/b", pod(&[("x", "y")], "10.0.0.1", &[])),
            ("shop/c", pod(&[], "10.9.0.1", &[])),
        ],
        &[("shop/vm", workload(&[], "10.9.0.1", &[]))],
    );
    let resolved = resolved(&facts);
    assert_eq!(resolved.state.endpoints.keys().copied().collect::<Vec<_>>(), [ip("10.9.0.1")]);
    assert_eq!(resolved.state.endpoints[&ip("10.9.0.1")].kind, EndpointKind::Workload);
    let warnings: Vec<_> = resolved.warnings.iter().map(String::as_str).collect();
    assert_eq!(
        warnings,
        [
            "10.0.0.1 is claimed by shop/a and shop/b: it belongs to none of them",
            "10.9.0.1 belongs to external workload shop/vm: the claim of pod shop/c is ignored",
        ]
    );
}

#[test]
fn a_relabel_in_its_three_phases_and_on_top_of_another() {
    let mut facts = facts(EMPTY, &[("shop/a", pod(&[], "10.0.0.1", &[]))], &[]);
    let previous = Identity::try_new(900).unwrap();
    let mut seen = Vec::new();
    let (new, other) = (Identity::try_new(256).unwrap(), Identity::try_new(901).unwrap());
    for mark in [Some(previous), Some(new), None, Some(other)] {
        facts.relabels = mark.map(|mark| (ip("10.0.0.1"), Relabel { previous, mark })).into_iter().collect();
        let endpoint = Arc::clone(&resolved(&facts).state.endpoints[&ip("10.0.0.1")]);
        seen.push((endpoint.previous, endpoint.mark));
        assert_eq!(endpoint.identity.get(), 256);
    }
    let on_top = (Some(previous), other);
    assert_eq!(seen, [(Some(previous), previous), (Some(previous), new), (None, new), on_top]);
}

#[test]
fn a_pod_selector_matches_pods_and_workloads_of_the_namespace_alike() {
    let spec =
        r#"{"podSelector": {"matchLabels": {"app": "db"}}, "ingress": [{"from": [{"podSelector": {}}]}]}"#;
    let facts = facts(
        spec,
        &[("shop/a", pod(&[("app", "web")], "10.0.0.1", &[]))],
        &[
            ("shop/db", workload(&[("app", "db")], "10.9.0.1", &[])),
            ("shop/vm", workload(&[], "10.9.0.2", &[])),
        ],
    );
    let resolved = resolved(&facts);
    let direction = &policy_of(&resolved, "10.9.0.1").ingress;
    assert_eq!(direction.default, Default::Deny { by: vec!["NetworkPolicy/shop/p".into()] });
    let Peers::Only { identities, blocks } = &direction.rules[0].peers else { panic!("every peer") };
    let everyone = ["10.0.0.1", "10.9.0.1", "10.9.0.2"].map(|address| identity_of(&resolved, address));
    assert_eq!(**identities, BTreeSet::from(everyone));
    assert!(blocks.is_empty());
    assert_eq!(*policy_of(&resolved, "10.9.0.2"), Policy::unrestricted());
}

#[test]
fn egress_names_where_pods_of_one_identity_disagree_become_addresses() {
    let spec = r#"{"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"to": [{"podSelector": {}}], "ports": [{"port": "http"}, {"port": 22}]}]}"#;
    let facts = facts(
        spec,
        &[
            ("shop/a", pod(&[("app", "web")], "10.0.0.1", &[("http", 80)])),
            ("shop/b", pod(&[("app", "web")], "10.0.0.2", &[("http", 8080)])),
            ("shop/c", pod(&[("app", "api")], "10.0.0.3", &[("http", 80)])),
        ],
        &[("shop/vm", workload(&[], "10.9.0.1", &[]))],
    );
    let resolved = resolved(&facts);
    let rules = &policy_of(&resolved, "10.9.0.1").egress.rules;
    let port = |number| Ports::Only(vec![PortRange { protocol: 6, first: number, last: number }]);
    assert!(rules.iter().all(|rule| &*rule.origin == "NetworkPolicy/shop/p#egress[0]"));
    let target = |identities: BTreeSet<Identity>, addresses: &[&str]| Peers::Only {
        identities: Arc::new(identities),
        blocks: addresses.iter().map(|address| Block::of(ip(address))).collect(),
    };
    assert_eq!(rules[0].ports, port(22));
    assert_eq!((&rules[1].peers, &rules[1].ports), (&target(BTreeSet::new(), &["10.0.0.2"]), &port(8080)));
    let api = BTreeSet::from([identity_of(&resolved, "10.0.0.3")]);
    assert_eq!((&rules[2].peers, &rules[2].ports), (&target(api, &["10.0.0.1"]), &port(80)));
    assert_eq!(rules.len(), 3);
}

#[test]
fn an_egress_name_that_nobody_has_leaves_a_rule_that_matches_nothing() {
    let spec = r#"{"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"ports": [{"port": "http"}]}]}"#;
    let resolved = resolved(&facts(spec, &[], &[("shop/vm", workload(&[], "10.9.0.1", &[]))]));
    let rules = &policy_of(&resolved, "10.9.0.1").egress.rules;
    assert_eq!(rules.iter().map(|rule| &rule.ports).collect::<Vec<_>>(), [&Ports::Only(vec![])]);
}

#[test]
fn ingress_names_that_workloads_of_one_identity_disagree_about_match_nothing() {
    let spec = r#"{"podSelector": {}, "ingress": [{"ports": [{"port": "pg"}, {"port": 22}]}]}"#;
    let ports_of = |other: &[(&str, u16)]| {
        let facts = facts(
            spec,
            &[("shop/a", pod(&[], "10.0.0.1", &[("pg", 1)]))],
            &[
                ("shop/x", workload(&[], "10.9.0.1", &[("pg", 5432)])),
                ("shop/y", workload(&[], "10.9.0.2", other)),
            ],
        );
        let resolved = resolved(&facts);
        (policy_of(&resolved, "10.9.0.1").ingress.rules[0].ports.clone(), resolved.warnings.len())
    };
    let range = |number| PortRange { protocol: 6, first: number, last: number };
    assert_eq!(ports_of(&[("pg", 5432)]), (Ports::Only(vec![range(22), range(5432)]), 0));
    assert_eq!(ports_of(&[("pg", 5433)]), (Ports::Only(vec![range(22)]), 1));
    assert_eq!(ports_of(&[]), (Ports::Only(vec![range(22)]), 1));
}

#[test]
fn a_block_matches_whatever_identity_the_address_has() {
    let spec = r#"{"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/24", "except": ["10.0.0.1/32"]}}]}]}"#;
    let pods = [("shop/a", pod(&[], "10.0.0.1", &[])), ("shop/b", pod(&[], "10.0.0.2", &[]))];
    let resolved = resolved(&facts(spec, &pods, &[("shop/vm", workload(&[("a", "b")], "10.9.0.1", &[]))]));
    let policy = policy_of(&resolved, "10.9.0.1");
    let decided = |address| {
        let identity = Some(identity_of(&resolved, address));
        let flow =
            Flow { direction: Direction::Ingress, identity, remote: ip(address), protocol: 1, port: 0 };
        evaluate(policy, &flow).action
    };
    assert_eq!((decided("10.0.0.1"), decided("10.0.0.2")), (RuleAction::Deny, RuleAction::Allow));
}

#[test]
fn warnings_of_policies_are_handed_on() {
    let spec = r#"{"podSelector": {}, "ingress": [{"from": [{"podSelector": {"matchLabels": {"pod-template-hash": "1"}}}]}]}"#;
    let warnings = resolved(&facts(spec, &[], &[])).warnings;
    assert!(
        warnings
            .first()
            .unwrap()
            .starts_with("NetworkPolicy/shop/p: spec.ingress[0].from[0].podSelector: label")
    );
}

#[test]
fn peer_sets_are_shared() {
    let spec = r#"{"podSelector": {}, "ingress": [{"from": [{"podSelector": {}}], "ports": [{"port": 1}]}, {"from": [{"podSelector": {}}]}]}"#;
    let workloads =
        [("shop/x", workload(&[], "10.9.0.1", &[])), ("shop/y", workload(&[("a", "b")], "10.9.0.2", &[]))];
    let resolved = resolved(&facts(spec, &[], &workloads));
    let rules = resolved.state.policies.values().flat_map(|policy| &policy.ingress.rules);
    let sets: Vec<_> = rules
        .map(|rule| match &rule.peers {
            Peers::Only { identities, .. } => identities,
            Peers::Any => panic!("every peer"),
        })
        .collect();
    assert_eq!(sets.len(), 4);
    assert!(sets.iter().all(|set| Arc::ptr_eq(set, sets[0])));
}

#[test]
fn a_namespace_whose_labels_cannot_be_read_is_chosen_by_no_selector_over_them() {
    let chosen = |selector: &str, namespace: Namespace| {
        let spec = format!("{{\"podSelector\": {{}}, \"ingress\": [{{\"from\": [{selector}]}}]}}");
        let there = Pod { namespace: "there".into(), ..Pod::clone(&pod(&[("app", "web")], "10.0.0.1", &[])) };
        let mut facts =
            facts(&spec, &[("there/web", Arc::new(there))], &[("shop/db", workload(&[], "10.9.0.1", &[]))]);
        facts.namespaces.insert("there".into(), Arc::new(namespace));
        let resolved = resolved(&facts);
        let web = identity_of(&resolved, "10.0.0.1");
        let rules = &policy_of(&resolved, "10.9.0.1").ingress.rules;
        matches!(&rules[0].peers, Peers::Only { identities, .. } if identities.contains(&web))
    };
    let unreadable = || Namespace { unreadable: true, ..Namespace::default() };
    let expression = |operator: &str, values: &str| {
        format!(
            "{{\"namespaceSelector\": {{\"matchExpressions\": [{{\"key\": \"team\", \"operator\": \"{operator}\"{values}}}]}}}}"
        )
    };
    let absent = [expression("DoesNotExist", ""), expression("NotIn", ", \"values\": [\"red\"]")];
    for selector in &absent {
        assert!(chosen(selector, Namespace::default()), "{selector}");
        assert!(!chosen(selector, unreadable()), "{selector}");
    }
    for selector in [expression("Exists", ""), expression("In", ", \"values\": [\"red\"]")] {
        assert!(!chosen(&selector, unreadable()), "{selector}");
    }
    // What any labels would fulfil, and the name, are known.
    assert!(chosen("{\"namespaceSelector\": {}}", unreadable()));
    let by_name = "{\"namespaceSelector\": {\"matchLabels\": {\"kubernetes.io/metadata.name\": \"there\"}}}";
    assert!(chosen(by_name, unreadable()));
}

#[test]
fn whom_a_policy_may_select_by_unreadable_labels_is_isolated_and_allowed_nothing() {
    let spec = "{\"podSelector\": {\"matchExpressions\": [{\"key\": \"io.cilium.k8s.namespace.labels.team\", \
        \"operator\": \"DoesNotExist\"}]}, \"ingress\": [{}]}";
    let mut facts = facts(spec, &[], &[("shop/db", workload(&[], "10.9.0.1", &[]))]);
    let ingress = |facts: &Facts| policy_of(&resolved(facts), "10.9.0.1").ingress.clone();
    assert_eq!(ingress(&facts).rules.len(), 1);
    let unreadable = Namespace { unreadable: true, ..Namespace::default() };
    facts.namespaces.insert("shop".into(), Arc::new(unreadable));
    let ingress = ingress(&facts);
    assert!(ingress.rules.is_empty() && matches!(ingress.default, Default::Deny { .. }), "{ingress:?}");
}
