#![expect(clippy::needless_pass_by_value, reason = "`json!` makes values, and they are used once")]

use std::collections::BTreeMap;

use serde_json::json;

use super::*;
use crate::labels::{Labels, Placement};
use crate::rules::{Peer, PeerSpec, PortMatch, PortSpec};
use crate::state::PortRange;
use crate::support::{self, fields};

fn object(spec: Value) -> Value {
    json!({"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": "db", "namespace": "shop"}, "spec": spec})
}

fn with_peer(peer: Value) -> Value {
    object(json!({"podSelector": {}, "ingress": [{"from": [peer]}]}))
}

fn with_port(port: Value) -> Value {
    object(json!({"podSelector": {}, "egress": [{"ports": [port]}]}))
}

/// The errors, as `path: message`.
fn refusals(raw: &Value) -> Vec<String> {
    parse(raw).unwrap_err().errors.iter().map(ToString::to_string).collect()
}

fn refusal(raw: &Value) -> String {
    let refusals = refusals(raw);
    assert_eq!(refusals.len(), 1, "{refusals:?}");
    refusals[0].clone()
}

fn labels(namespace: &str, namespace_labels: &[(&str, &str)], own: &[(&str, &str)]) -> Labels {
    let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    };
    let namespace_labels = map(namespace_labels);
    let placement = Placement {
        namespace,
        namespace_labels: &namespace_labels,
        service_account: "default",
        cluster: "default",
    };
    Labels::of_workload(&map(own), placement)
}

fn peers(raw: &Value) -> PeerSpec {
    parse(raw).unwrap().ingress.unwrap().rules.remove(0).peers
}

fn selects(raw: &Value, labels: &Labels) -> bool {
    match peers(raw) {
        PeerSpec::Any => panic!("every peer"),
        PeerSpec::Only(peers) => {
            peers.iter().any(|peer| matches!(peer, Peer::Endpoints(selector) if selector.matches(labels)))
        }
    }
}

fn ports(raw: &Value) -> PortSpec {
    parse(raw).unwrap().egress.unwrap().rules.remove(0).ports
}

const fn range(protocol: u8, first: u16, last: u16) -> PortMatch {
    PortMatch::Range(PortRange { protocol, first, last })
}

#[test]
fn policy_types_default_by_the_rules_present() {
    let directions = |spec: Value| {
        let policy = parse(&object(spec)).unwrap();
        (policy.ingress.map(|section| section.rules.len()), policy.egress.map(|section| section.rules.len()))
    };
    assert_eq!(directions(json!({"podSelector": {}})), (Some(0), None));
    assert_eq!(directions(json!({"podSelector": {}, "ingress": []})), (Some(0), None));
    assert_eq!(directions(json!({"podSelector": {}, "egress": []})), (Some(0), None));
    assert_eq!(directions(json!({"podSelector": {}, "egress": [{}]})), (Some(0), Some(1)));
    assert_eq!(directions(json!({"podSelector": {}, "ingress": [{}], "policyTypes": []})), (Some(1), None));
    assert_eq!(directions(json!({"podSelector": {}, "policyTypes": ["Egress"]})), (None, Some(0)));
    assert_eq!(
        directions(json!({"podSelector": {}, "ingress": [{}], "policyTypes": ["Egress"]})),
        (None, Some(0))
    );
    assert_eq!(
        directions(json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]})),
        (Some(0), Some(0))
    );
    assert_eq!(directions(json!({"podSelector": {}, "ingress": null, "egress": null})), (Some(0), None));
}

#[test]
fn absent_and_empty_peers_and_ports_are_all() {
    for rule in [json!({}), json!({"from": [], "ports": []}), json!({"from": null, "ports": null})] {
        let policy = parse(&object(json!({"podSelector": {}, "ingress": [rule]}))).unwrap();
        let rule = &policy.ingress.unwrap().rules[0];
        assert_eq!((&rule.peers, &rule.ports), (&PeerSpec::Any, &PortSpec::Any));
        assert_eq!(&*rule.origin, "NetworkPolicy/shop/db#ingress[0]");
    }
}

#[test]
fn the_subject_never_leaves_its_namespace() {
    for selector in [
        json!({}),
        json!({"matchExpressions": [{"key": "io.kubernetes.pod.namespace", "operator": "In", "values": ["bank"]}]}),
        json!({"matchExpressions": [{"key": "io.kubernetes.pod.namespace", "operator": "Exists"}]}),
        json!({"matchExpressions": [{"key": "x", "operator": "DoesNotExist"}]}),
    ] {
        let subject = parse(&object(json!({ "podSelector": selector }))).unwrap().subject;
        assert!(!subject.matches(&labels("bank", &[], &[])));
        assert!(!subject.matches(&Labels::of_remote_node()));
    }
    assert!(parse(&object(json!({}))).unwrap().subject.matches(&labels("shop", &[], &[])));
}

#[test]
fn peer_selectors() {
    let web = |namespace, team| labels(namespace, &[("team", team)], &[("app", "web")]);
    let pods = with_peer(json!({"podSelector": {"matchLabels": {"app": "web"}}}));
    let all = with_peer(json!({"podSelector": {}}));
    let namespaces = with_peer(json!({"namespaceSelector": {"matchLabels": {"team": "blue"}}}));
    let everywhere = with_peer(json!({"namespaceSelector": {}}));
    let both = with_peer(json!({
        "namespaceSelector": {"matchLabels": {"team": "blue"}}, "podSelector": {"matchLabels": {"app": "db"}}
    }));
    let by_name =
        with_peer(json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "bank"}}}));
    let truth = |raw: &Value| [web("shop", "red"), web("bank", "blue")].map(|labels| selects(raw, &labels));
    assert_eq!(truth(&pods), [true, false]);
    assert_eq!(truth(&all), [true, false]);
    assert_eq!(truth(&namespaces), [false, true]);
    assert_eq!(truth(&everywhere), [true, true]);
    assert_eq!(truth(&both), [false, false]);
    assert_eq!(truth(&by_name), [false, true]);
    assert!(!selects(&everywhere, &Labels::of_remote_node()));
}

#[test]
fn negative_selectors_match_no_reserved_identity() {
    let absent = json!({"matchExpressions": [{"key": "team", "operator": "DoesNotExist"}]});
    for peer in [json!({"podSelector": absent}), json!({"namespaceSelector": absent})] {
        assert!(!selects(&with_peer(peer), &Labels::of_remote_node()));
    }
}

#[test]
fn filtered_labels_match_nothing_and_are_flagged() {
    let negative = json!({"key": "pod-template-hash", "operator": "NotIn", "values": ["1"]});
    for selector in
        [json!({"matchLabels": {"pod-template-hash": "1"}}), json!({"matchExpressions": [negative]})]
    {
        let raw = with_peer(json!({ "podSelector": selector }));
        assert!(!selects(&raw, &labels("shop", &[], &[])));
        let warnings = parse(&raw).unwrap().warnings;
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].starts_with("spec.ingress[0].from[0].podSelector: label \"pod-template-hash\""));
    }
}

#[test]
fn ip_blocks() {
    let raw = with_peer(json!({"ipBlock": {"cidr": "10.9.0.1/8", "except": ["10.1.0.0/16", "10.2.0.0/16"]}}));
    let PeerSpec::Only(peers) = peers(&raw) else { panic!("every peer") };
    let [Peer::Block(block)] = &peers[..] else { panic!("{peers:?}") };
    assert_eq!(block.cidr.to_string(), "10.0.0.0/8");
    assert_eq!(block.except.len(), 2);
}

#[test]
fn wrong_blocks_name_path_and_value() {
    let refused = |block: Value| refusal(&with_peer(json!({ "ipBlock": block })));
    assert!(
        refused(json!({"cidr": "10.0.0.0"}))
            .starts_with("spec.ingress[0].from[0].ipBlock.cidr: \"10.0.0.0\" is no")
    );
    assert!(refused(json!({"cidr": "::ffff:10.0.0.0/104"})).contains("IPv4-mapped"));
    for outside in ["11.0.0.0/16", "10.0.0.0/8", "0.0.0.0/0", "2001:db8::/32"] {
        let error = refused(json!({"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16", outside]}));
        let start = format!("spec.ingress[0].from[0].ipBlock.except[1]: {outside:?} is not a strict subset");
        assert!(error.starts_with(&start), "{error}");
    }
    assert!(
        refused(json!({"except": []})).starts_with("spec.ingress[0].from[0].ipBlock: missing field `cidr`")
    );
}

#[test]
fn wrong_peers_name_path() {
    assert!(refusal(&with_peer(json!({}))).starts_with("spec.ingress[0].from[0]: is empty"));
    let both = json!({"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}});
    assert!(refusal(&with_peer(both)).starts_with("spec.ingress[0].from[0]: has ipBlock and a selector"));
}

#[test]
fn ports_by_number_name_and_range() {
    let port = |port: Value| ports(&with_port(port));
    let named = |name: &str, protocol| PortMatch::Named { name: name.into(), protocol };
    assert_eq!(port(json!({"port": 80})), PortSpec::Only(vec![range(6, 80, 80)]));
    assert_eq!(
        port(json!({"port": 80, "protocol": "UDP", "endPort": 80})),
        PortSpec::Only(vec![range(17, 80, 80)])
    );
    assert_eq!(port(json!({"port": 1, "endPort": 65535})), PortSpec::Only(vec![range(6, 1, 65535)]));
    assert_eq!(port(json!({"protocol": "SCTP"})), PortSpec::Only(vec![range(132, 0, 65535)]));
    assert_eq!(port(json!({})), PortSpec::Only(vec![range(6, 0, 65535)]));
    assert_eq!(
        port(json!({"port": "dns-tcp", "protocol": "UDP"})),
        PortSpec::Only(vec![named("dns-tcp", 17)])
    );
}

#[test]
fn wrong_ports_name_path_and_value() {
    for (port, error) in [
        (json!({"port": 0}), "port: 0 is no port"),
        (json!({"port": 65536}), "port: 65536 is no port"),
        (json!({"port": -1}), "port: -1 is no port"),
        (json!({"port": "80"}), "port: \"80\" is no port name"),
        (json!({"port": "HTTP"}), "port: \"HTTP\" is no port name"),
        (json!({"port": ""}), "port: \"\" is no port name"),
        (json!({"port": 90, "endPort": 80}), "endPort: 80 is less than port 90"),
        (json!({"port": 90, "endPort": 65536}), "endPort: 65536 is no port"),
        (json!({"port": "http", "endPort": 80}), "endPort: is 80 beside the named port \"http\""),
        (json!({"endPort": 80}), "endPort: is 80 without a port"),
        (json!({"port": 1.5}), "port: port is a number or a name"),
        (json!({"protocol": "tcp"}), "protocol: unknown variant `tcp`"),
        (json!({"protocol": "ICMP"}), "protocol: unknown variant `ICMP`"),
    ] {
        let refusal = refusal(&with_port(port));
        assert!(refusal.starts_with(&format!("spec.egress[0].ports[0].{error}")), "{refusal}");
    }
}

#[test]
fn unknown_fields_are_refused_wherever_they_stand() {
    for (raw, start) in [
        (object(json!({"podSelecter": {}})), "spec.podSelecter: unknown field"),
        (with_peer(json!({"podSelector": {}, "ports": []})), "spec.ingress[0].from[0].ports: unknown field"),
        (with_port(json!({"port": 1, "endport": 2})), "spec.egress[0].ports[0].endport: unknown field"),
        (object(json!({"podSelector": {}, "ingress": [{"to": []}]})), "spec.ingress[0].to: unknown field"),
        (
            object(json!({"podSelector": {}, "policyTypes": ["ingress"]})),
            "spec.policyTypes[0]: unknown variant",
        ),
    ] {
        let refusal = refusal(&raw);
        assert!(refusal.starts_with(start), "{refusal}");
    }
}

#[test]
fn every_error_is_reported_at_once() {
    let raw = object(json!({
        "podSelector": {"matchLabels": {"a b": "c"}},
        "ingress": [{"from": [{}, {"ipBlock": {"cidr": "x"}}], "ports": [{"port": 0}]}],
    }));
    assert_eq!(refusals(&raw).len(), 4);
    assert_eq!(parse(&raw).unwrap_err().name.as_deref(), Some("NetworkPolicy/shop/db"));
}

#[test]
fn rules_of_a_direction_that_is_left_out_are_still_checked() {
    let raw = object(json!({"podSelector": {}, "policyTypes": ["Ingress"], "egress": [{"to": [{}]}]}));
    assert!(refusal(&raw).starts_with("spec.egress[0].to[0]: is empty"));
}

#[test]
fn what_the_api_server_and_kubectl_add_is_tolerated() {
    let mut raw = object(json!({"podSelector": {}}));
    raw["metadata"] = json!({
        "name": "db", "namespace": "shop", "labels": {"a": "b"}, "annotations": {"c": "d"}, "uid": "u", "generation": 1,
        "resourceVersion": "7", "creationTimestamp": "t", "managedFields": [{"x": 1}], "ownerReferences": [], "finalizers": [],
    });
    raw["status"] = json!({"conditions": []});
    assert!(parse(&raw).is_ok());
    raw["metadata"]["nmespace"] = json!("bank");
    assert!(refusal(&raw).starts_with("metadata.nmespace: unknown field"));
}

#[test]
fn headers_are_checked() {
    let with = |field: &str, value: Value| {
        let mut raw = object(json!({"podSelector": {}}));
        *raw.pointer_mut(field).unwrap() = value;
        refusal(&raw)
    };
    assert!(
        with("/apiVersion", json!("extensions/v1beta1")).starts_with("apiVersion: is \"extensions/v1beta1\"")
    );
    assert!(with("/kind", json!("Policy")).starts_with("kind: is \"Policy\""));
    assert!(with("/metadata/name", json!("a#b")).starts_with("metadata.name: \"a#b\""));
    assert!(with("/metadata/namespace", json!("a/b")).starts_with("metadata.namespace: \"a/b\""));
    let mut raw = object(json!({"podSelector": {}}));
    raw["metadata"] = json!({"name": "x.y"});
    assert_eq!(&*parse(&raw).unwrap().origin, "NetworkPolicy/default/x.y");
}

#[test]
fn an_object_that_was_never_valid_isolates_what_it_evidently_selects() {
    let directions = |spec: Value| {
        let raw = object(spec);
        assert!(parse(&raw).is_err());
        let policy = isolation_of(&raw).unwrap();
        assert!(policy.subject.matches(&labels("shop", &[], &[("app", "db")])));
        assert!(!policy.subject.matches(&labels("shop", &[], &[])));
        assert!(
            policy
                .ingress
                .iter()
                .chain(&policy.egress)
                .all(|section| section.isolates && section.rules.is_empty())
        );
        (policy.ingress.is_some(), policy.egress.is_some())
    };
    let selector = json!({"matchLabels": {"app": "db"}});
    assert_eq!(directions(json!({"podSelector": selector, "ingres": []})), (true, false));
    assert_eq!(directions(json!({"podSelector": selector, "egress": [{"x": 1}]})), (true, true));
    assert_eq!(directions(json!({"podSelector": selector, "egress": {"x": 1}})), (true, true));
    assert_eq!(
        directions(json!({"podSelector": selector, "x": 1, "policyTypes": ["Egress"]})),
        (false, true)
    );
    assert_eq!(
        directions(json!({"podSelector": selector, "policyTypes": ["Egres"], "egress": [{}]})),
        (false, true)
    );
    assert_eq!(directions(json!({"podSelector": selector, "policyTypes": ["egress"]})), (true, false));
}

#[test]
fn without_a_readable_selector_nothing_is_isolated() {
    let mut unnamed = object(json!({"podSelector": {}, "x": 1}));
    unnamed["metadata"] = json!({});
    for raw in [
        unnamed,
        object(json!({"podSelecter": {"matchLabels": {"app": "db"}}})),
        object(json!({"podSelector": null, "x": 1})),
        object(json!({"podSelector": {"matchLabel": {}}})),
        object(json!({"podSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}})),
        object(json!("x")),
        json!({"kind": "Pod", "metadata": {"name": "db"}, "spec": {"podSelector": {}}}),
        json!([]),
    ] {
        assert_eq!(isolation_of(&raw), None, "{raw}");
    }
}

#[test]
fn the_documented_support_is_what_there_is() {
    let known = [
        fields::<api::Spec>(),
        fields::<api::IngressRule>(),
        fields::<api::EgressRule>(),
        fields::<api::Peer>(),
        fields::<api::IpBlock>(),
        fields::<api::PortItem>(),
    ];
    support::assert_complete("## NetworkPolicy", &known.into_iter().flatten().collect());
}
