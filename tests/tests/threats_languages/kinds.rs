//! What somebody is counts, and not only which labels it has.

use anyhow::{Result, ensure};
use datapath::Direction;
use e2e::paper::{Kind, Member, Mesh, NOBODY, TCP, admin, cilium, clusterwide, open, tiered};
use serde_json::{Value, json};

/// A host, a pod and a node with the same labels.
const MEMBERS: [Member; 4] = [
    (Kind::Workload, "shop", "db", "10.9.0.1", &["role=edge"]),
    (Kind::Workload, "shop", "twin", "10.9.0.2", &["role=edge"]),
    (Kind::Pod, "shop", "web", "10.0.0.1", &["role=edge"]),
    (Kind::Node, "shop", "node", "10.9.0.9", &["role=edge"]),
];
const DB: &str = "10.9.0.1";
const TWIN: &str = "10.9.0.2";
const WEB: &str = "10.0.0.1";
const NODE: &str = "10.9.0.9";

/// Who of them a rule with these peers lets in, and lets the host reach.
fn met(mesh: &mut Mesh, what: &str, peers: &Value) -> Result<[Vec<&'static str>; 2]> {
    let rule = |start: &str| json!([{format!("{start}{what}"): peers}]);
    let spec = json!({"endpointSelector": {}, "ingress": rule("from"), "egress": rule("to")});
    mesh.apply(&[cilium("p", &spec)])?;
    let mut met = [Vec::new(), Vec::new()];
    for (met, direction) in met.iter_mut().zip([Direction::Ingress, Direction::Egress]) {
        for remote in [TWIN, WEB, NODE, NOBODY] {
            if mesh.decide(DB, direction, remote, (TCP, 80))?.0 {
                met.push(remote);
            }
        }
    }
    Ok(met)
}

#[test]
fn threat_18_the_same_labels_on_another_kind_are_no_match() -> Result<()> {
    let mut mesh = Mesh::of(&MEMBERS)?;
    let labels = json!({"matchLabels": {"role": "edge"}});
    let absent = json!({"matchExpressions": [{"key": "none", "operator": "DoesNotExist"}]});
    let reserved = json!({"matchLabels": {"reserved:remote-node": ""}});
    let cases: [(&str, Value, &[&str]); 9] = [
        // Labels of nodes are not known; those of others are no substitute.
        ("Nodes", json!([labels]), &[]),
        ("Nodes", json!([absent]), &[]),
        ("Nodes", json!([{}]), &[NODE]),
        ("Endpoints", json!([labels]), &[TWIN, WEB]),
        ("Endpoints", json!([absent]), &[TWIN, WEB]),
        ("Endpoints", json!([reserved]), &[NODE]),
        ("Entities", json!(["host"]), &[]),
        ("Entities", json!(["remote-node"]), &[NODE]),
        ("Entities", json!(["world"]), &[NOBODY]),
    ];
    for (what, peers, expected) in cases {
        let met = met(&mut mesh, what, &peers)?;
        ensure!(met == [expected, expected], "{what} {peers}: {met:?} instead of {expected:?}");
    }
    Ok(())
}

#[test]
fn threat_18_a_selector_of_nodes_governs_nobody_in_the_mesh() -> Result<()> {
    let mut mesh = Mesh::of(&MEMBERS)?;
    for selector in [json!({}), json!({"matchLabels": {"role": "edge"}})] {
        let all = json!([{"toEntities": ["all"]}]);
        let from = json!([{"fromEntities": ["all"]}]);
        let spec = json!({"nodeSelector": selector, "ingressDeny": from, "egressDeny": all});
        mesh.apply(&[clusterwide("p", &spec)])?;
        for remote in [TWIN, WEB, NODE, NOBODY] {
            ensure!(mesh.enters(DB, remote, (TCP, 80))?, "{selector} keeps {remote} out of an endpoint");
            ensure!(mesh.leaves(DB, remote, (TCP, 80))?, "{selector} keeps an endpoint from {remote}");
        }
    }
    Ok(())
}

#[test]
fn threat_18_what_is_denied_to_nodes_is_denied_to_nodes_only() -> Result<()> {
    let mut mesh = Mesh::of(&MEMBERS)?;
    let labels = json!({"matchLabels": {"role": "edge"}});
    let spec = json!({"endpointSelector": {}, "egress": [{"toEntities": ["all"]}], "egressDeny": [{"toNodes": [labels]}]});
    let deny = json!([{"action": "Deny", "to": [{"nodes": labels}]}]);
    for policies in [
        vec![cilium("p", &spec)],
        vec![tiered("guard", "Admin", 1, "egress", &deny), open()],
        vec![admin(Some(1), "egress", &deny), open()],
    ] {
        mesh.apply(&policies)?;
        for (remote, expected) in [(TWIN, true), (WEB, true), (NODE, false), (NOBODY, true)] {
            ensure!(mesh.leaves(DB, remote, (TCP, 80))? == expected, "{remote} under {policies:?}");
        }
    }
    let accept = json!([{"action": "Accept", "to": [{"nodes": labels}]}]);
    mesh.apply(&[tiered("guard", "Admin", 1, "egress", &accept), e2e::paper::closed()])?;
    for remote in [TWIN, WEB, NODE, NOBODY] {
        ensure!(!mesh.leaves(DB, remote, (TCP, 80))?, "{remote} is taken for a node with labels");
    }
    Ok(())
}
