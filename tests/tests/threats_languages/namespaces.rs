//! A policy of a namespace governs that namespace, and means its peers.

use anyhow::{Result, ensure};
use e2e::paper::{Kind, Member, Mesh, TCP, cilium, network};
use serde_json::{Value, json};

/// Two teams with the same labels everywhere.
const MEMBERS: [Member; 5] = [
    (Kind::Workload, "shop", "db", "10.9.0.1", &["app=db"]),
    (Kind::Workload, "bank", "db", "10.9.0.2", &["app=db"]),
    (Kind::Pod, "shop", "web", "10.0.0.1", &["app=web"]),
    (Kind::Pod, "bank", "web", "10.0.0.2", &["app=web"]),
    (Kind::Node, "outrigger", "node", "10.9.0.9", &["app=web"]),
];
const SHOP: &str = "10.9.0.1";
const BANK: &str = "10.9.0.2";
const SHOP_WEB: &str = "10.0.0.1";
const BANK_WEB: &str = "10.0.0.2";
const NODE: &str = "10.9.0.9";

const NAMESPACE: [&str; 3] =
    ["io.kubernetes.pod.namespace", "k8s:io.kubernetes.pod.namespace", "any:io.kubernetes.pod.namespace"];
const NAME_OF_NAMESPACE: &str = "io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name";

fn expression(key: &str, operator: &str, values: &[&str]) -> Value {
    json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]})
}

/// Selectors that a team could write to reach the other one.
fn greedy() -> Vec<Value> {
    let mut selectors = vec![json!({}), json!({"matchLabels": {"app": "db"}})];
    for key in NAMESPACE.into_iter().chain([NAME_OF_NAMESPACE]) {
        selectors.push(json!({"matchLabels": {key: "bank"}}));
        selectors.push(expression(key, "In", &["bank", "shop"]));
        selectors.push(expression(key, "NotIn", &["shop"]));
        selectors.push(expression(key, "NotIn", &["nobody"]));
        selectors.push(expression(key, "Exists", &[]));
        selectors.push(expression(key, "DoesNotExist", &[]));
    }
    for key in
        ["reserved:init", "reserved:host", "reserved:remote-node", "reserved:unreadable-namespace", "none"]
    {
        selectors.push(expression(key, "DoesNotExist", &[]));
        selectors.push(expression(key, "NotIn", &["x"]));
        selectors.push(expression(key, "Exists", &[]));
    }
    selectors
}

#[test]
fn threat_17_a_policy_selects_nobody_of_another_namespace() -> Result<()> {
    let mut mesh = Mesh::of(&MEMBERS)?;
    for selector in greedy() {
        let spec =
            json!({"endpointSelector": selector, "ingress": [{}], "egressDeny": [{"toEntities": ["all"]}]});
        let mut several = cilium("several", &spec);
        if let Some(object) = several.as_object_mut() {
            let spec = object.remove("spec");
            object.insert("specs".to_owned(), json!([spec, spec]));
        }
        mesh.apply(&[cilium("one", &spec), several])?;
        for remote in [SHOP, SHOP_WEB, BANK_WEB, NODE] {
            ensure!(mesh.enters(BANK, remote, (TCP, 80))?, "{selector} isolates another team");
            ensure!(mesh.leaves(BANK, remote, (TCP, 80))?, "{selector} denies another team");
        }
    }
    let selector = json!({"matchExpressions": [{"key": "none", "operator": "DoesNotExist"}]});
    let spec = json!({"podSelector": selector, "policyTypes": ["Ingress", "Egress"]});
    mesh.apply(&[network("greedy", &spec)])?;
    ensure!(!mesh.enters(SHOP, BANK, (TCP, 80))? && mesh.enters(BANK, SHOP, (TCP, 80))?);
    Ok(())
}

#[test]
fn threat_17_peers_that_name_no_namespace_are_of_the_policys_own() -> Result<()> {
    let mut mesh = Mesh::of(&MEMBERS)?;
    let app = |key: &str| json!({"matchLabels": {key: "web"}});
    let mut selectors = vec![json!({}), app("app"), app("k8s:app"), app("any:app")];
    for key in ["tier", "k8s:tier", "any:tier", "reserved:init", "reserved:host", "reserved:remote-node"] {
        selectors.push(expression(key, "DoesNotExist", &[]));
        selectors.push(expression(key, "NotIn", &["x"]));
    }
    for peer in selectors {
        for (direction, field) in [("ingress", "fromEndpoints"), ("egress", "toEndpoints")] {
            mesh.apply(&[cilium("p", &json!({"endpointSelector": {}, direction: [{field: [peer]}]}))])?;
            let meets = |remote: &str| {
                let is_ingress = direction == "ingress";
                if is_ingress {
                    mesh.enters(SHOP, remote, (TCP, 80))
                } else {
                    mesh.leaves(SHOP, remote, (TCP, 80))
                }
            };
            ensure!(meets(SHOP_WEB)?, "{peer} does not mean its own namespace");
            for remote in [BANK, BANK_WEB, NODE] {
                ensure!(!meets(remote)?, "{peer} means {remote}, {direction}");
            }
        }
    }
    for key in NAMESPACE {
        let peer = json!({"matchLabels": {key: "bank", "app": "web"}});
        mesh.apply(&[cilium("p", &json!({"endpointSelector": {}, "ingress": [{"fromEndpoints": [peer]}]}))])?;
        ensure!(mesh.enters(SHOP, BANK_WEB, (TCP, 80))? && !mesh.enters(SHOP, SHOP_WEB, (TCP, 80))?, "{key}");
    }
    Ok(())
}
