use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Kind, api, isolation_of, parse};
use crate::labels::{Labels, Placement};
use crate::rules::{Entity, Peer, PeerSpec, PolicyObject, PortMatch, PortSpec, RuleSpec, Section};
use crate::state::{PortRange, Reach, RuleAction};
use crate::support::{self, fields};

fn object(spec: &Value) -> Value {
    json!({
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": "db", "namespace": "shop"},
        "spec": spec,
    })
}

fn clusterwide(spec: &Value) -> Value {
    json!({
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumClusterwideNetworkPolicy",
        "metadata": {"name": "all"},
        "spec": spec,
    })
}

fn one(spec: &Value) -> PolicyObject {
    parse(Kind::Namespaced, &object(spec)).unwrap().remove(0)
}

/// The paths that are refused.
fn refused(spec: &Value) -> Vec<String> {
    let errors = parse(Kind::Namespaced, &object(spec)).unwrap_err().errors;
    errors.into_iter().map(|error| error.path).collect()
}

fn with_ingress(rule: &Value) -> Value {
    json!({"endpointSelector": {}, "ingress": [rule]})
}

fn with_egress(rule: &Value) -> Value {
    json!({"endpointSelector": {}, "egress": [rule]})
}

fn ingress_rule(rule: &Value) -> RuleSpec {
    one(&with_ingress(rule)).ingress.unwrap().rules.remove(0)
}

fn egress_rule(rule: &Value) -> RuleSpec {
    one(&with_egress(rule)).egress.unwrap().rules.remove(0)
}

fn labels(namespace: &str, own: &[(&str, &str)]) -> Labels {
    let own = own.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let placement = Placement {
        namespace,
        namespace_labels: &BTreeMap::new(),
        service_account: "default",
        cluster: "fleet",
    };
    Labels::of_workload(&own, placement)
}

fn selects(rule: &RuleSpec, labels: &Labels) -> bool {
    let PeerSpec::Only(peers) = &rule.peers else { panic!("{:?}", rule.peers) };
    peers.iter().any(|peer| matches!(peer, Peer::Endpoints(selector) if selector.matches(labels)))
}

const fn ports(protocol: u8, first: u16, last: u16) -> PortMatch {
    PortMatch::Range(PortRange { protocol, first, last })
}

#[test]
fn a_direction_is_isolated_by_rules_unless_the_policy_says_otherwise() {
    let isolates = |spec: Value| {
        let policy = one(&spec);
        [policy.ingress, policy.egress].map(|section| section.map(|section| section.isolates))
    };
    let all = json!({});
    assert_eq!(isolates(json!({"endpointSelector": all})), [None, None]);
    assert_eq!(isolates(json!({"endpointSelector": all, "ingress": []})), [None, None]);
    assert_eq!(isolates(json!({"endpointSelector": all, "ingress": [{}]})), [Some(true), None]);
    assert_eq!(isolates(json!({"endpointSelector": all, "egressDeny": [{}]})), [None, Some(true)]);
    let spec = json!({"endpointSelector": all, "ingress": [{}], "egress": [{}],
        "enableDefaultDeny": {"ingress": false}});
    assert_eq!(isolates(spec), [Some(false), Some(true)]);
    let spec = json!({"endpointSelector": all, "enableDefaultDeny": {"egress": true}});
    assert_eq!(isolates(spec), [None, Some(true)]);
}

#[test]
fn an_empty_rule_matches_nothing_and_an_empty_list_selects_nobody() {
    let nobody = PeerSpec::Only(Vec::new());
    assert_eq!(ingress_rule(&json!({})).peers, nobody);
    assert_eq!(ingress_rule(&json!({"fromEndpoints": []})).peers, nobody);
    let rule = ingress_rule(&json!({"fromEndpoints": [], "toPorts": [{"ports": [{"port": "80"}]}]}));
    assert_eq!(rule.peers, nobody);
    assert_eq!(egress_rule(&json!({"toCIDR": [], "toEntities": ["world"]})).peers, nobody);
    assert_eq!(egress_rule(&json!({"toServices": []})).peers, nobody);
    // Ports alone are for every peer.
    let rule = ingress_rule(&json!({"toPorts": [{"ports": [{"port": "80", "protocol": "TCP"}]}]}));
    assert_eq!((rule.peers, rule.ports), (PeerSpec::Any, PortSpec::Only(vec![ports(6, 80, 80)])));
    // An empty list of ports says no more than an absent one.
    let rule = ingress_rule(&json!({"fromEntities": ["all"], "toPorts": []}));
    assert_eq!((rule.peers, rule.ports), (PeerSpec::Any, PortSpec::Any));
    let rule = ingress_rule(&json!({"fromEntities": ["all"], "toPorts": [{}]}));
    assert_eq!(rule.ports, PortSpec::Only(Vec::new()));
}

#[test]
fn peers_are_of_the_policys_namespace_unless_they_say_otherwise() {
    let rule = ingress_rule(&json!({"fromEndpoints": [{"matchLabels": {"app": "web"}}]}));
    assert!(selects(&rule, &labels("shop", &[("app", "web")])));
    assert!(!selects(&rule, &labels("bank", &[("app", "web")])));
    let rule = ingress_rule(&json!({"fromEndpoints": [{}]}));
    assert!(selects(&rule, &labels("shop", &[])) && !selects(&rule, &labels("bank", &[])));
    for key in
        ["k8s:io.kubernetes.pod.namespace", "io.kubernetes.pod.namespace", "any:io.kubernetes.pod.namespace"]
    {
        let rule =
            ingress_rule(&json!({"fromEndpoints": [{"matchLabels": {"k8s:app": "web", key: "bank"}}]}));
        assert!(selects(&rule, &labels("bank", &[("app", "web")])), "{key}");
        assert!(!selects(&rule, &labels("shop", &[("app", "web")])), "{key}");
    }
    let rule = ingress_rule(&json!({"fromEndpoints": [
        {"matchExpressions": [{"key": "k8s:io.kubernetes.pod.namespace", "operator": "Exists"}]}]}));
    assert!(selects(&rule, &labels("bank", &[])) && !selects(&rule, &Labels::of_remote_node()));
    let rule = ingress_rule(&json!({"fromEndpoints": [
        {"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}]}));
    assert!(!selects(&rule, &Labels::of_remote_node()));
    let rule = ingress_rule(&json!({"fromEndpoints": [{"matchLabels": {"reserved:remote-node": ""}}]}));
    assert!(selects(&rule, &Labels::of_remote_node()));
}

#[test]
fn excluding_a_reserved_label_leads_out_of_no_namespace() {
    for operator in ["DoesNotExist", "NotIn"] {
        let mut absent = json!({"key": "reserved:init", "operator": operator});
        if operator == "NotIn" {
            absent["values"] = json!(["x"]);
        }
        let rule = ingress_rule(&json!({"fromEndpoints": [{"matchExpressions": [absent]}]}));
        assert!(selects(&rule, &labels("shop", &[])) && !selects(&rule, &labels("bank", &[])));
        assert!(!selects(&rule, &Labels::of_remote_node()));
    }
    let marked = labels("bank", &[]).in_unreadable_namespace();
    let rule =
        ingress_rule(&json!({"fromEndpoints": [{"matchLabels": {crate::labels::UNREADABLE_NAMESPACE: ""}}]}));
    assert!(!selects(&rule, &marked));
}

#[test]
fn labels_that_pods_identities_lack_allow_nobody_and_are_left_out_of_what_is_denied() {
    let wanted = json!({"matchLabels": {"k8s:pod-template-hash": "1", "app": "web"}});
    let absent = json!({"matchLabels": {"app": "web"},
        "matchExpressions": [{"key": "pod-template-hash", "operator": "DoesNotExist"}]});
    for selector in [wanted, absent] {
        let spec = json!({"endpointSelector": {}, "ingress": [{"fromEndpoints": [selector]}],
            "ingressDeny": [{"fromEndpoints": [selector]}]});
        let policy = one(&spec);
        assert_eq!(policy.warnings.len(), 2);
        let rules = policy.ingress.unwrap().rules;
        let (web, other) = (labels("shop", &[("app", "web")]), labels("shop", &[]));
        assert_eq!(rules.iter().map(|rule| selects(rule, &web)).collect::<Vec<_>>(), [false, true]);
        assert!(!rules.iter().any(|rule| selects(rule, &other)));
    }
}

#[test]
fn a_clusterwide_policy_reaches_every_namespace() {
    let spec =
        json!({"endpointSelector": {"matchLabels": {"app": "db"}}, "ingress": [{"fromEndpoints": [{}]}]});
    let policy = parse(Kind::Clusterwide, &clusterwide(&spec)).unwrap().remove(0);
    assert_eq!(&*policy.origin, "CiliumClusterwideNetworkPolicy/all");
    for namespace in ["shop", "bank"] {
        assert!(policy.subject.matches(&labels(namespace, &[("app", "db")])));
    }
    let rule = policy.ingress.unwrap().rules.remove(0);
    assert!(selects(&rule, &labels("bank", &[])) && !selects(&rule, &Labels::of_remote_node()));
}

#[test]
fn the_subject_never_leaves_its_namespace() {
    for selector in [
        json!({}),
        json!({"matchLabels": {"io.kubernetes.pod.namespace": "bank"}}),
        json!({"matchExpressions": [{"key": "io.kubernetes.pod.namespace", "operator": "Exists"}]}),
    ] {
        let policy = one(&json!({"endpointSelector": selector, "ingress": [{}]}));
        assert!(!policy.subject.matches(&labels("bank", &[])));
    }
}

#[test]
fn several_specifications_are_several_policies() {
    let mut raw = object(&json!({"endpointSelector": {}, "ingress": [{}]}));
    raw["specs"] = json!([
        {"endpointSelector": {"matchLabels": {"app": "db"}}, "egress": [{}]},
        {"endpointSelector": {"matchLabels": {"app": "web"}}, "ingressDeny": [{"fromEntities": ["world"]}]},
    ]);
    let policies = parse(Kind::Namespaced, &raw).unwrap();
    let origins: Vec<_> = policies.iter().map(|policy| &*policy.origin).collect();
    let object = "CiliumNetworkPolicy/shop/db";
    assert_eq!(origins, [object, &format!("{object}#specs[0]"), &format!("{object}#specs[1]")]);
    let rule = &policies[2].ingress.as_ref().unwrap().rules[0];
    assert_eq!(&*rule.origin, "CiliumNetworkPolicy/shop/db#specs[1].ingressDeny[0]");
    assert_eq!(rule.action, RuleAction::Deny);
    raw["specs"][1]["ingressDeny"][0]["fromEntities"][0] = json!("everyone");
    let errors = parse(Kind::Namespaced, &raw).unwrap_err().errors;
    assert_eq!(errors[0].path, "specs[1].ingressDeny[0].fromEntities[0]");
}

#[test]
fn blocks_mean_addresses_outside_of_the_mesh() {
    let rule = egress_rule(&json!({"toCIDRSet": [{"cidr": "10.0.0.1/8", "except": ["10.1.0.0/16"]}]}));
    let PeerSpec::Only(peers) = rule.peers else { panic!() };
    let Peer::Block(block) = &peers[0] else { panic!("{peers:?}") };
    assert_eq!((block.cidr.to_string().as_str(), block.reach), ("10.0.0.0/8", Reach::Outside));
    assert_eq!(block.except, ["10.1.0.0/16".parse().unwrap()]);
    let rule = egress_rule(&json!({"toCIDR": ["192.0.2.7", "2001:db8::/32"]}));
    let PeerSpec::Only(peers) = rule.peers else { panic!() };
    assert_eq!(peers.len(), 2);
    assert_eq!(
        refused(&with_egress(&json!({"toCIDRSet": [{"cidr": "10.0.0.0/8", "except": ["11.0.0.0/8"]}]}))),
        ["spec.egress[0].toCIDRSet[0].except[0]"]
    );
    assert_eq!(refused(&with_egress(&json!({"toCIDR": ["10.0.0.0/33"]}))), ["spec.egress[0].toCIDR[0]"]);
    assert_eq!(
        refused(&with_egress(&json!({"toCIDRSet": [{"cidr": "::/0", "cidrGroupRef": "g"}]}))),
        ["spec.egress[0].toCIDRSet[0]"]
    );
}

#[test]
fn ports_by_number_range_and_name() {
    let of = |port: Value| ingress_rule(&json!({"toPorts": [{"ports": [port]}]})).ports;
    assert_eq!(of(json!({"port": "80", "protocol": "tcp"})), PortSpec::Only(vec![ports(6, 80, 80)]));
    assert_eq!(
        of(json!({"port": "80", "endPort": 90, "protocol": "UDP"})),
        PortSpec::Only(vec![ports(17, 80, 90)])
    );
    assert_eq!(of(json!({"port": "0", "protocol": "SCTP"})), PortSpec::Only(vec![ports(132, 0, 65535)]));
    let any = PortSpec::Only(vec![ports(6, 53, 53), ports(17, 53, 53), ports(132, 53, 53)]);
    assert_eq!(of(json!({"port": "53"})), any);
    assert_eq!(of(json!({"port": "53", "protocol": "ANY"})), any);
    let named = PortMatch::Named { name: "web".into(), protocol: 6 };
    assert_eq!(of(json!({"port": "Web", "protocol": "TCP"})), PortSpec::Only(vec![named]));
    let bad = |port: Value| refused(&with_ingress(&json!({"toPorts": [{"ports": [port]}]})));
    let path = |field: &str| vec![format!("spec.ingress[0].toPorts[0].ports[0].{field}")];
    assert_eq!(bad(json!({"port": "0", "endPort": 90})), path("endPort"));
    assert_eq!(bad(json!({"port": "90", "endPort": 80})), path("endPort"));
    assert_eq!(bad(json!({"port": "web", "endPort": 80})), path("endPort"));
    assert_eq!(bad(json!({"port": "65536"})), path("port"));
    assert_eq!(bad(json!({"port": "80", "protocol": "ICMP"})), path("protocol"));
    assert_eq!(bad(json!({"protocol": "TCP"})), path("port"));
}

#[test]
fn icmp_types_by_number_and_name() {
    let of = |field: Value| ingress_rule(&json!({"icmps": [{"fields": [field]}]})).ports;
    assert_eq!(of(json!({"type": 8})), PortSpec::Only(vec![ports(1, 8, 8)]));
    assert_eq!(of(json!({"type": "EchoRequest"})), PortSpec::Only(vec![ports(1, 8, 8)]));
    assert_eq!(
        of(json!({"type": "EchoRequest", "family": "IPv6"})),
        PortSpec::Only(vec![ports(58, 128, 128)])
    );
    let bad = |field: Value| refused(&with_ingress(&json!({"icmps": [{"fields": [field]}]})));
    assert_eq!(bad(json!({"type": 256})), ["spec.ingress[0].icmps[0].fields[0].type"]);
    assert_eq!(bad(json!({"type": "PacketTooBig"})), ["spec.ingress[0].icmps[0].fields[0].type"]);
    assert_eq!(bad(json!({"type": 8, "family": "IPv5"})), ["spec.ingress[0].icmps[0].fields[0].family"]);
    let both = json!({"icmps": [{"fields": [{"type": 8}]}], "toPorts": [{"ports": [{"port": "80"}]}]});
    assert_eq!(refused(&with_ingress(&both)), ["spec.ingress[0].icmps"]);
}

#[test]
fn what_is_not_enforced_allows_nothing_and_says_so() {
    let port = json!([{"port": "80", "protocol": "TCP"}]);
    let policy = one(&with_ingress(&json!({"toPorts": [
        {"ports": port, "rules": {"http": [{"method": "GET", "path": "/"}]}},
        {"ports": [{"port": "81", "protocol": "TCP"}]},
    ]})));
    let Section { rules, .. } = policy.ingress.unwrap();
    assert_eq!(rules[0].ports, PortSpec::Only(vec![ports(6, 81, 81)]));
    assert_eq!(policy.warnings.len(), 1);
    assert!(policy.warnings[0].starts_with("spec.ingress[0].toPorts[0]: "), "{:?}", policy.warnings);
    let policy =
        one(&with_egress(&json!({"toFQDNs": [{"matchName": "example.org"}], "toPorts": [{"ports": port}]})));
    let rule = &policy.egress.unwrap().rules[0];
    assert_eq!(rule.peers, PeerSpec::Only(vec![Peer::Entity(Entity::Nobody)]));
    assert_eq!(policy.warnings.len(), 1);
    assert_eq!(
        refused(&with_egress(&json!({"toFQDNs": [{"matchName": "a b"}]}))),
        ["spec.egress[0].toFQDNs[0].matchName"]
    );
}

#[test]
fn rules_of_layer_7_are_checked_for_their_form() {
    let with_http = |http: Value| {
        with_ingress(
            &json!({"toPorts": [{"ports": [{"port": "80", "protocol": "TCP"}], "rules": {"http": [http]}}]}),
        )
    };
    let good = json!({"method": "GET|HEAD", "path": "/a/[^/]*", "host": "^(a|b)$", "headers": ["X-A"],
        "headerMatches": [{"name": "X", "value": "1", "mismatch": "REPLACE", "secret": {"name": "s"}}]});
    assert_eq!(one(&with_http(good)).warnings.len(), 1);
    let base = "spec.ingress[0].toPorts[0].rules.http[0]";
    for (http, field) in [
        (json!({"path": "/("}), "path"),
        (json!({"path": "(a{1000}){1000}"}), "path"),
        (json!({"method": "["}), "method"),
        (json!({"host": "*"}), "host"),
        (json!({"headerMatches": [{"name": ""}]}), "headerMatches[0].name"),
        (json!({"headerMatches": [{"name": "X", "secret": {"name": ""}}]}), "headerMatches[0].secret.name"),
        (json!({"headerMatches": [{"name": "X", "mismatch": "log"}]}), "headerMatches[0].mismatch"),
        (json!({"paths": "/"}), "paths"),
    ] {
        assert_eq!(refused(&with_http(http)), [format!("{base}.{field}")]);
    }
    let too_large =
        parse(Kind::Namespaced, &object(&with_http(json!({"path": "(a{1000}){1000}"})))).unwrap_err();
    assert!(too_large.to_string().contains("too large for a regular expression"), "{too_large}");
}

#[test]
fn what_is_not_supported_is_refused_with_its_path() {
    let port = json!([{"port": "80", "protocol": "TCP"}]);
    for (rule, field) in [
        (json!({"authentication": {"mode": "required"}}), "authentication"),
        (json!({"fromGroups": [{"aws": {}}]}), "fromGroups"),
        (json!({"fromRequires": [{}]}), "fromRequires"),
        (json!({"toPorts": [{"ports": port, "terminatingTLS": {}}]}), "toPorts[0].terminatingTLS"),
        (json!({"toPorts": [{"ports": port, "listener": {}}]}), "toPorts[0].listener"),
    ] {
        assert_eq!(refused(&with_ingress(&rule)), [format!("spec.ingress[0].{field}")]);
    }
    let combined = json!({"fromEndpoints": [{}], "fromCIDR": ["10.0.0.0/8"]});
    assert_eq!(refused(&with_ingress(&combined)), ["spec.ingress[0]"]);
    assert_eq!(refused(&json!({"ingress": [{}]})), ["spec"]);
    assert_eq!(refused(&json!({"endpointSelector": {}, "nodeSelector": {}})), ["spec"]);
    assert_eq!(refused(&json!({"nodeSelector": {}})), ["spec.nodeSelector"]);
    let unknown =
        parse(Kind::Namespaced, &object(&with_ingress(&json!({"fromEndpoint": [{}]})))).unwrap_err();
    assert_eq!(unknown.errors[0].path, "spec.ingress[0].fromEndpoint");
    let deny = json!({"endpointSelector": {}, "ingressDeny": [{"toPorts": [{"ports": port, "rules": {"http": [{}]}}]}]});
    assert_eq!(refused(&deny), ["spec.ingressDeny[0].toPorts[0].rules"]);
}

#[test]
fn an_object_that_was_never_valid_isolates_what_it_evidently_selects() {
    let spec = json!({"endpointSelector": {"matchLabels": {"app": "db"}},
        "ingress": [{"fromEndpoints": "all"}], "enableDefaultDeny": {"egress": true}});
    let policies = isolation_of(Kind::Namespaced, &object(&spec));
    assert_eq!(policies.len(), 1);
    assert!(policies[0].subject.matches(&labels("shop", &[("app", "db")])));
    assert!(!policies[0].subject.matches(&labels("bank", &[("app", "db")])));
    for section in [&policies[0].ingress, &policies[0].egress] {
        assert_eq!(*section, Some(Section::isolating(Vec::new())));
    }
    // A deny rule that cannot be read is not ignored, even where the policy asks not to isolate.
    let spec = json!({"endpointSelector": {}, "ingressDeny": [{"fromNobody": []}],
        "enableDefaultDeny": {"ingress": false, "egress": false}});
    let policies = isolation_of(Kind::Namespaced, &object(&spec));
    assert_eq!((policies[0].ingress.is_some(), policies[0].egress.is_some()), (true, false));
    assert!(isolation_of(Kind::Namespaced, &object(&json!({"ingress": [{}]}))).is_empty());
    assert!(isolation_of(Kind::Clusterwide, &object(&spec)).is_empty());
}

#[test]
fn the_documented_support_is_what_there_is() {
    const HEADING: &str = "## CiliumNetworkPolicy";
    let known = [
        fields::<api::Spec>(),
        fields::<api::DefaultDeny>(),
        fields::<api::IngressRule>(),
        fields::<api::EgressRule>(),
        fields::<api::CidrRule>(),
        fields::<api::Service>(),
        fields::<api::NamedService>(),
        fields::<api::SelectedService>(),
        fields::<api::Fqdn>(),
        fields::<api::PortRule>(),
        fields::<api::PortProtocol>(),
        fields::<api::L7Rules>(),
        fields::<api::Http>(),
        fields::<api::HeaderMatch>(),
        fields::<api::Secret>(),
        fields::<api::IcmpRule>(),
        fields::<api::IcmpField>(),
    ];
    // `specs` stands in the text above the table.
    support::assert_complete(HEADING, &known.into_iter().flatten().collect());
    let mut refused_fields = 0;
    for (about, says) in support::rows(HEADING) {
        if says.starts_with("refused") {
            for field in support::words(about) {
                assert!(is_refused(field), "`{field}` is documented as refused: {about}");
                refused_fields += 1;
            }
        }
    }
    assert!(refused_fields >= 11, "only {refused_fields} rows were tried");
}

/// Whether some rule with the field is refused by the field's path, and for another reason than being unknown.
fn is_refused(field: &str) -> bool {
    let port = json!([{"port": "80", "protocol": "TCP"}]);
    let mut with_port = json!({"toPorts": [{"ports": port}]});
    with_port["toPorts"][0][field] = json!({});
    let mut with_rules = json!({"toPorts": [{"ports": port, "rules": {}}]});
    with_rules["toPorts"][0]["rules"][field] = json!([]);
    let with_field = json!({field: [{}]});
    [with_port, with_rules, with_field].iter().flat_map(|rule| [with_ingress(rule), with_egress(rule)]).any(
        |spec| {
            let errors = parse(Kind::Namespaced, &object(&spec)).err().map(|refused| refused.errors);
            errors.into_iter().flatten().any(|error| {
                error.path.ends_with(&format!(".{field}")) && !error.message.contains("unknown field")
            })
        },
    )
}
