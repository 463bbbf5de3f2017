//! What cannot be told exactly: allowed to nobody, denied to all whom it may mean.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use datapath::Direction;
use serde_json::{Value, json};

use super::{facts, identity_of, pod, policy_of, resolved, workload};
use crate::cilium;
use crate::evaluate::{Flow, evaluate};
use crate::facts::{Facts, Namespace, Pod};
use crate::state::{Peers, RuleAction};

/// The facts under a `CiliumNetworkPolicy` for all of `shop`.
fn under(mut facts: Facts, mut spec: Value) -> Facts {
    spec["endpointSelector"] = json!({});
    let raw = json!({
        "apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy",
        "metadata": {"name": "p", "namespace": "shop"}, "spec": spec,
    });
    let policies = cilium::parse(cilium::Kind::Namespaced, &raw).unwrap();
    facts.policies = policies.into_iter().map(|p| (Arc::clone(&p.origin), Arc::new(p))).collect();
    facts
}

fn is_allowed(facts: &Facts, own: &str, direction: Direction, remote: &str, port: u16) -> bool {
    let resolved = resolved(facts);
    let remote: IpAddr = remote.parse().unwrap();
    let identity = resolved.state.endpoints.get(&remote).map(|endpoint| endpoint.identity);
    let flow = Flow { direction, identity, remote, protocol: 6, port };
    evaluate(policy_of(&resolved, own), &flow).action == RuleAction::Allow
}

#[test]
fn a_name_that_workloads_give_to_several_ports_is_denied_on_all_of_them() {
    let workloads = [
        ("shop/x", workload(&[], "10.9.0.1", &[("pg", 5432)])),
        ("shop/y", workload(&[], "10.9.0.2", &[("pg", 5433)])),
    ];
    let spec = json!({
        "ingress": [{"fromEntities": ["all"]}],
        "ingressDeny": [{"fromEntities": ["all"], "toPorts": [{"ports": [{"port": "pg"}]}]}],
    });
    let facts = under(facts("{}", &[], &workloads), spec);
    for (port, expected) in [(5431, true), (5432, false), (5433, false)] {
        let allowed = is_allowed(&facts, "10.9.0.1", Direction::Ingress, "203.0.113.1", port);
        assert_eq!(allowed, expected, "{port}");
    }
}

#[test]
fn a_block_outside_of_the_mesh_means_no_endpoint_for_its_names_of_ports_either() {
    let pods = [("shop/a", pod(&[], "10.0.0.1", &[("http", 80)]))];
    let workloads = [("shop/vm", workload(&[], "10.9.0.1", &[]))];
    let rule = |what: &str, peer: &str| json!({what: [{"toCIDR": [peer], "toPorts": [{"ports": [{"port": "http"}]}]}]});
    let facts = |spec| under(facts("{}", &pods, &workloads), spec);
    let allowed = |facts: &Facts| is_allowed(facts, "10.9.0.1", Direction::Egress, "10.0.0.1", 80);
    assert!(!allowed(&facts(rule("egress", "10.0.0.0/8"))));
    let mut denied = rule("egressDeny", "10.0.0.0/8");
    denied["egress"] = json!([{"toEntities": ["all"]}]);
    assert!(allowed(&facts(denied)));
}

#[test]
fn labels_of_an_unreadable_namespace_are_denied_whatever_they_may_be() {
    let there =
        |namespace: &str| Pod { namespace: namespace.into(), ..Pod::clone(&pod(&[], "10.0.0.1", &[])) };
    let workloads = [("shop/db", workload(&[], "10.9.0.1", &[]))];
    for operator in ["Exists", "DoesNotExist"] {
        let key = "io.cilium.k8s.namespace.labels.trusted";
        let peer = json!({"matchExpressions": [{"key": key, "operator": operator}]});
        let spec =
            json!({"ingress": [{"fromEntities": ["all"]}], "ingressDeny": [{"fromEndpoints": [peer]}]});
        let mut facts = under(facts("{}", &[("there/web", Arc::new(there("there")))], &workloads), spec);
        let readable = Namespace::default();
        facts.namespaces.insert("there".into(), Arc::new(readable));
        let allowed = |facts: &Facts| is_allowed(facts, "10.9.0.1", Direction::Ingress, "10.0.0.1", 80);
        assert_eq!(allowed(&facts), operator == "Exists");
        let unreadable = Namespace { unreadable: true, ..Namespace::default() };
        facts.namespaces.insert("there".into(), Arc::new(unreadable));
        assert!(!allowed(&facts), "{operator}");
    }
}

#[test]
fn what_denies_holds_also_for_whom_its_object_may_select() {
    let peers = json!([{"pods": {"podSelector": {"matchLabels": {"app": "guest"}}}}]);
    let spec = json!({
        "tier": "Admin", "priority": 1,
        "subject": {"namespaces": {"matchExpressions": [{"key": "team", "operator": "DoesNotExist"}]}},
        "ingress": [{"action": "Deny", "from": peers}, {"action": "Accept", "from": [{"namespaces": {}}]}],
    });
    let raw = json!({
        "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
        "metadata": {"name": "guard"}, "spec": spec,
    });
    let guard = crate::clusternetworkpolicy::parse(crate::clusternetworkpolicy::Kind::Cluster, &raw).unwrap();
    let pods = [
        ("shop/guest", pod(&[("app", "guest")], "10.0.0.1", &[])),
        ("shop/web", pod(&[("app", "web")], "10.0.0.2", &[])),
    ];
    let everybody = "{\"podSelector\": {}, \"ingress\": [{\"from\": [{\"podSelector\": {\"matchLabels\": {\"app\": \"guest\"}}}]}]}";
    let mut facts = facts(everybody, &pods, &[("shop/db", workload(&[], "10.9.0.1", &[]))]);
    facts.policies.insert(Arc::clone(&guard.origin), Arc::new(guard));
    let unreadable = Namespace { unreadable: true, ..Namespace::default() };
    facts.namespaces.insert("shop".into(), Arc::new(unreadable));
    for remote in ["10.0.0.1", "10.0.0.2"] {
        assert!(!is_allowed(&facts, "10.9.0.1", Direction::Ingress, remote, 80), "{remote}");
    }
}

#[test]
fn what_nobody_can_be_told_by_is_in_no_set_of_peers() {
    // The set of a rule that denies is not that of one that allows.
    let peer =
        json!({"matchExpressions": [{"key": "io.cilium.k8s.namespace.labels.x", "operator": "Exists"}]});
    let spec = json!({"ingress": [{"fromEndpoints": [peer]}], "ingressDeny": [{"fromEndpoints": [peer]}]});
    let pods = [("shop/web", pod(&[], "10.0.0.1", &[]))];
    let mut facts =
        under(facts("{}", &pods, &[("shop/db", workload(&[("app", "db")], "10.9.0.1", &[]))]), spec);
    facts.namespaces.insert("shop".into(), Arc::new(Namespace { unreadable: true, ..Namespace::default() }));
    let resolved = resolved(&facts);
    let sets: Vec<_> =
        policy_of(&resolved, "10.9.0.1").ingress.rules.iter().map(|rule| &rule.peers).collect();
    let Peers::Only { identities: allowed, .. } = sets[0] else { panic!() };
    let Peers::Only { identities: denied, .. } = sets[1] else { panic!() };
    assert!(allowed.is_empty());
    let everybody = ["10.0.0.1", "10.9.0.1"].map(|address| identity_of(&resolved, address));
    assert_eq!(**denied, BTreeSet::from(everybody));
}
