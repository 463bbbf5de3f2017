use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::{Kind, api, isolation_of, parse, shared_priorities};
use crate::labels::{Labels, Placement};
use crate::rules::{Entity, Peer, PeerSpec, PolicyObject, PortMatch, PortSpec, precedence};
use crate::state::{PortRange, Reach, RuleAction};
use crate::support::{self, fields};

fn object(kind: Kind, name: &str, spec: &Value) -> Value {
    let of_object = kind.of_object();
    json!({"apiVersion": of_object.api_version, "kind": of_object.name, "metadata": {"name": name}, "spec": spec})
}

fn cluster(spec: &Value) -> PolicyObject {
    parse(Kind::Cluster, &object(Kind::Cluster, "guard", spec)).unwrap()
}

/// The paths that are refused.
fn refused(kind: Kind, spec: &Value) -> Vec<String> {
    let errors = parse(kind, &object(kind, "default", spec)).unwrap_err().errors;
    errors.into_iter().map(|error| error.path).collect()
}

fn with(direction: &str, rules: &Value) -> Value {
    json!({"tier": "Admin", "priority": 10, "subject": {"namespaces": {}}, direction: rules})
}

fn labels(namespace: &str, team: &str, own: &[(&str, &str)]) -> Labels {
    let own = own.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let namespace_labels = BTreeMap::from([("team".to_owned(), team.to_owned())]);
    let placement = Placement {
        namespace,
        namespace_labels: &namespace_labels,
        service_account: "default",
        cluster: "fleet",
    };
    Labels::of_workload(&own, placement)
}

const fn ports(protocol: u8, first: u16, last: u16) -> PortMatch {
    PortMatch::Range(PortRange { protocol, first, last })
}

#[test]
fn a_priority_that_two_objects_have_is_told() {
    let of = |name: &str, tier: &str, priority: i64, direction: &str| {
        let rules = json!([{"action": "Deny", "from": [{"namespaces": {}}]}, {"action": "Pass", "from": [{"namespaces": {}}]}]);
        let rules = if direction == "egress" {
            json!([{"action": "Deny", "to": [{"namespaces": {}}]}])
        } else {
            rules
        };
        let spec =
            json!({"tier": tier, "priority": priority, "subject": {"namespaces": {}}, direction: rules});
        let policy = cluster(&spec);
        Arc::new(PolicyObject { origin: format!("ClusterNetworkPolicy/{name}").into(), ..policy })
    };
    let warnings = |policies: &[Arc<PolicyObject>]| shared_priorities(policies.iter()).collect::<Vec<_>>();
    let a = of("a", "Admin", 5, "ingress");
    let apart = [a.clone(), of("b", "Admin", 6, "ingress"), of("c", "Baseline", 5, "ingress")];
    assert_eq!(warnings(&apart), Vec::<String>::new());
    let found = warnings(&[a.clone(), of("b", "Admin", 5, "ingress")]);
    assert!(
        matches!(&*found, [one] if one.starts_with("ClusterNetworkPolicy/b: spec.priority") && one.contains("/a ")),
        "{found:?}"
    );
    assert_eq!(
        warnings(&[a, of("b", "Admin", 5, "egress")]).len(),
        1,
        "they may disagree once a rule is added"
    );
}

#[test]
fn earlier_rules_and_lower_priorities_come_first() {
    let rules = json!([
        {"action": "Pass", "from": [{"namespaces": {}}]},
        {"action": "Deny", "from": [{"namespaces": {}}]},
    ]);
    let of = |tier: &str, priority: i64| {
        let spec =
            json!({"tier": tier, "priority": priority, "subject": {"namespaces": {}}, "ingress": rules});
        let rules = cluster(&spec).ingress.unwrap().rules;
        [rules[0].precedence, rules[1].precedence]
    };
    let mut order: Vec<u32> =
        [("Admin", 0), ("Admin", 1), ("Admin", 1000), ("Baseline", 0), ("Baseline", 1000)]
            .into_iter()
            .flat_map(|(tier, priority)| of(tier, priority))
            .collect();
    assert!(order.is_sorted_by(|a, b| a > b), "{order:?}");
    assert!(order[5] >= precedence::ADMIN && order[6] < precedence::NETWORK_POLICY);
    let spec =
        json!({"subject": {"namespaces": {}}, "ingress": [{"action": "Deny", "from": [{"namespaces": {}}]}]});
    let oldest = parse(Kind::Baseline, &object(Kind::Baseline, "default", &spec)).unwrap();
    order.push(oldest.ingress.unwrap().rules[0].precedence);
    assert!(order.is_sorted_by(|a, b| a > b), "{order:?}");
}

#[test]
fn nothing_is_isolated() {
    let policy = cluster(&with("egress", &json!([{"action": "Deny", "to": [{"networks": ["0.0.0.0/0"]}]}])));
    assert_eq!((policy.ingress, policy.egress.map(|section| section.isolates)), (None, Some(false)));
    assert_eq!(cluster(&with("ingress", &json!([]))).ingress, None);
}

#[test]
fn pods_are_selected_with_their_namespaces() {
    let spec = json!({"tier": "Admin", "priority": 1, "subject": {"pods": {
        "namespaceSelector": {"matchLabels": {"team": "blue"}}, "podSelector": {"matchLabels": {"app": "db"}}}}});
    let subject = cluster(&spec).subject;
    assert!(subject.matches(&labels("shop", "blue", &[("app", "db")])));
    assert!(!subject.matches(&labels("shop", "red", &[("app", "db")])));
    assert!(!subject.matches(&labels("shop", "blue", &[])));
    let peers = json!([{"namespaces": {"matchExpressions": [{"key": "x", "operator": "DoesNotExist"}]}}]);
    let policy = cluster(&with("ingress", &json!([{"action": "Accept", "from": peers}])));
    let PeerSpec::Only(peers) = &policy.ingress.unwrap().rules[0].peers else { panic!() };
    let Peer::Endpoints(selector) = &peers[0] else { panic!() };
    assert!(selector.matches(&labels("bank", "red", &[])) && !selector.matches(&Labels::of_remote_node()));
}

#[test]
fn labels_that_pods_identities_lack_accept_nobody_and_are_left_out_of_what_is_denied() {
    let absent = json!({"matchExpressions": [{"key": "pod-template-hash", "operator": "DoesNotExist"}]});
    for (action, expected) in [("Accept", false), ("Pass", false), ("Deny", true)] {
        let rule = json!({"action": action, "from": [{"pods": {"podSelector": absent}}]});
        let policy = cluster(&with("ingress", &json!([rule])));
        assert_eq!(policy.warnings.len(), 1, "{:?}", policy.warnings);
        let PeerSpec::Only(peers) = &policy.ingress.unwrap().rules[0].peers else { panic!() };
        let is_meant = |peer: &Peer| matches!(peer, Peer::Endpoints(found) if found.matches(&labels("shop", "red", &[])));
        assert_eq!(peers.iter().any(is_meant), expected, "{action}");
    }
}

#[test]
fn networks_mean_whoever_has_the_addresses() {
    let to = json!([{"networks": ["10.0.0.1/8", "2001:db8::/32"]}, {"nodes": {}}]);
    let policy = cluster(&with("egress", &json!([{"action": "Deny", "to": to}])));
    let PeerSpec::Only(peers) = &policy.egress.unwrap().rules[0].peers else { panic!() };
    let Peer::Block(block) = &peers[0] else { panic!() };
    assert_eq!((block.cidr.to_string().as_str(), block.reach), ("10.0.0.0/8", Reach::Everyone));
    assert_eq!(peers.len(), 3);
    let names = |action: &str| json!([{"action": action, "to": [{"domainNames": ["*.example.org"]}]}]);
    let policy = cluster(&with("egress", &names("Accept")));
    assert_eq!(policy.warnings.len(), 1);
    let PeerSpec::Only(peers) = &policy.egress.unwrap().rules[0].peers else { panic!() };
    assert_eq!(*peers, [Peer::Entity(Entity::Nobody)]);
    assert_eq!(refused(Kind::Cluster, &with("egress", &names("Deny"))), ["spec.egress[0].to[0].domainNames"]);
}

#[test]
fn protocols_and_ports() {
    let of = |protocols: Value| {
        let rule = json!([{"action": "Accept", "from": [{"namespaces": {}}], "protocols": protocols}]);
        cluster(&with("ingress", &rule)).ingress.unwrap().rules.remove(0).ports
    };
    let tcp = json!([{"tcp": {"destinationPort": {"number": 80}}}, {"udp": {"destinationPort": {"range": {"start": 1, "end": 9}}}}]);
    assert_eq!(of(tcp), PortSpec::Only(vec![ports(6, 80, 80), ports(17, 1, 9)]));
    let PortSpec::Only(named) = of(json!([{"destinationNamedPort": "web"}])) else { panic!() };
    assert_eq!(named.len(), 3);
    let bad = |protocols: Value| {
        refused(
            Kind::Cluster,
            &with(
                "ingress",
                &json!([{"action": "Accept", "from": [{"namespaces": {}}], "protocols": protocols}]),
            ),
        )
    };
    let path = |rest: &str| vec![format!("spec.ingress[0].protocols{rest}")];
    assert_eq!(bad(json!([])), path(""));
    assert_eq!(
        bad(json!([{"tcp": {"destinationPort": {"number": 0}}}])),
        path("[0].tcp.destinationPort.number")
    );
    assert_eq!(bad(json!([{"tcp": {}}])), path("[0].tcp.destinationPort"));
    assert_eq!(
        bad(json!([{"sctp": {"destinationPort": {"range": {"start": 9, "end": 9}}}}])),
        path("[0].sctp.destinationPort.range.end")
    );
    assert_eq!(bad(json!([{}])), path("[0]"));
}

#[test]
fn the_kinds_differ_in_their_words() {
    let from = json!([{"namespaces": {}}]);
    let old = |action: &str| {
        json!({"priority": 5, "subject": {"namespaces": {}}, "ingress": [{"action": action, "from": from,
            "ports": [{"portNumber": {"protocol": "UDP", "port": 53}}, {"portRange": {"start": 1, "end": 9}}, {"namedPort": "web"}]}]})
    };
    let policy = parse(Kind::Admin, &object(Kind::Admin, "old", &old("Allow"))).unwrap();
    let rule = &policy.ingress.unwrap().rules[0];
    assert_eq!(rule.action, RuleAction::Allow);
    let PortSpec::Only(matches) = &rule.ports else { panic!() };
    assert!(matches.contains(&ports(17, 53, 53)) && matches.contains(&ports(6, 1, 9)) && matches.len() == 5);
    assert_eq!(refused(Kind::Admin, &old("Accept")), ["spec.ingress[0].action"]);
    assert_eq!(
        refused(Kind::Cluster, &with("ingress", &json!([{"action": "Allow", "from": from}]))),
        ["spec.ingress[0].action"]
    );
    let base = json!({"subject": {"namespaces": {}}, "ingress": [{"action": "Pass", "from": from}]});
    assert_eq!(refused(Kind::Baseline, &base), ["spec.ingress[0].action"]);
    let errors =
        parse(Kind::Baseline, &object(Kind::Baseline, "other", &json!({"subject": {"namespaces": {}}})))
            .unwrap_err();
    assert_eq!(errors.errors[0].path, "metadata.name");
}

#[test]
fn bad_input_is_refused_with_its_path() {
    let subject = json!({"namespaces": {}});
    assert_eq!(refused(Kind::Cluster, &json!({"priority": 1, "subject": subject})), ["spec.tier"]);
    assert_eq!(refused(Kind::Cluster, &json!({"tier": "Admin", "subject": subject})), ["spec.priority"]);
    let priority = json!({"tier": "Admin", "priority": 1001, "subject": subject});
    assert_eq!(refused(Kind::Cluster, &priority), ["spec.priority"]);
    assert_eq!(
        refused(Kind::Cluster, &json!({"tier": "Admin", "priority": 1, "subject": {}})),
        ["spec.subject"]
    );
    assert_eq!(
        refused(Kind::Cluster, &with("ingress", &json!([{"action": "Deny"}]))),
        ["spec.ingress[0].from"]
    );
    assert_eq!(
        refused(Kind::Cluster, &with("ingress", &json!([{"action": "Deny", "from": []}]))),
        ["spec.ingress[0].from"]
    );
    let networks = json!([{"action": "Deny", "from": [{"networks": ["10.0.0.0/8"]}]}]);
    assert_eq!(refused(Kind::Cluster, &with("ingress", &networks)), ["spec.ingress[0].from[0]"]);
    let unknown = json!([{"action": "Deny", "from": [{"services": {}}]}]);
    assert_eq!(refused(Kind::Cluster, &with("ingress", &unknown)), ["spec.ingress[0].from[0].services"]);
    let namespaced = json!({"apiVersion": Kind::Cluster.api_version(), "kind": "ClusterNetworkPolicy",
        "metadata": {"name": "x", "namespace": "shop"}, "spec": with("ingress", &json!([]))});
    assert_eq!(parse(Kind::Cluster, &namespaced).unwrap_err().errors[0].path, "metadata.namespace");
}

#[test]
fn an_object_that_was_never_valid_denies_to_what_it_evidently_selects() {
    let spec = json!({"tier": "Admin", "subject": {"namespaces": {"matchLabels": {"team": "blue"}}},
        "ingress": [{"action": "Accpt"}], "egress": []});
    let policy = isolation_of(Kind::Cluster, &object(Kind::Cluster, "guard", &spec)).unwrap();
    assert!(
        policy.subject.matches(&labels("shop", "blue", &[]))
            && !policy.subject.matches(&labels("shop", "red", &[]))
    );
    let rule = &policy.ingress.unwrap().rules[0];
    assert_eq!(
        (rule.action, rule.precedence, &rule.peers),
        (RuleAction::Deny, precedence::ADMIN, &PeerSpec::Any)
    );
    assert_eq!(policy.egress, None);
    assert!(
        isolation_of(Kind::Cluster, &object(Kind::Cluster, "guard", &json!({"ingress": [{}]}))).is_none()
    );
}

#[test]
fn the_documented_support_is_what_there_is() {
    let known = [
        fields::<api::Spec>(),
        fields::<api::Pods>(),
        fields::<api::NamespacedPod>(),
        fields::<api::Rule>(),
        fields::<api::Peer>(),
        fields::<api::Protocol>(),
        fields::<api::Transport>(),
        fields::<api::Port>(),
        fields::<api::Range>(),
        fields::<api::OldPort>(),
        fields::<api::OldNumber>(),
        fields::<api::OldRange>(),
    ];
    support::assert_complete("## ClusterNetworkPolicy", &known.into_iter().flatten().collect());
}
