//! A workload and itself, and what Services lead to.

use anyhow::{Result, ensure};
use e2e::paper::{Kind, Member, Mesh, NOBODY, TCP, cilium, clusterwide, network, open};
use serde_json::{Value, json};

const MEMBERS: [Member; 5] = [
    (Kind::Workload, "shop", "db", "10.9.0.1", &["app=db"]),
    (Kind::Workload, "shop", "other", "10.9.0.2", &["app=other"]),
    (Kind::Pod, "shop", "web", "10.0.0.1", &["app=web"]),
    (Kind::Pod, "shop", "ops", "10.0.0.2", &["app=ops"]),
    (Kind::Pod, "bank", "web", "10.0.0.3", &["app=web"]),
];
const DB: &str = "10.9.0.1";
const OTHER: &str = "10.9.0.2";
const WEB: &str = "10.0.0.1";
const OPS: &str = "10.0.0.2";
const BANK_WEB: &str = "10.0.0.3";
/// The address of a Service, which nobody has.
const CLUSTER_IP: &str = "10.96.0.10";

#[test]
fn threat_42_a_workload_reaches_itself_by_a_rule_only() -> Result<()> {
    let mut mesh = Mesh::of(&MEMBERS)?;
    let select = |app: &str| json!({"matchLabels": {"app": app}});
    let both =
        |ingress: Value, egress: Value| json!({"endpointSelector": {}, "ingress": ingress, "egress": egress});
    let peers =
        |app: &str| both(json!([{"fromEndpoints": [select(app)]}]), json!([{"toEndpoints": [select(app)]}]));
    let block = |cidr: &str| {
        let peer = json!([{"ipBlock": {"cidr": cidr}}]);
        network(
            "p",
            &json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": peer}], "egress": [{"to": peer}]}),
        )
    };
    let cases = [
        ("by its labels", cilium("p", &peers("db")), true),
        ("by others'", cilium("p", &peers("other")), false),
        (
            "by every endpoint",
            cilium("p", &both(json!([{"fromEndpoints": [{}]}]), json!([{"toEndpoints": [{}]}]))),
            true,
        ),
        (
            "by the host",
            cilium("p", &both(json!([{"fromEntities": ["host"]}]), json!([{"toEntities": ["host"]}]))),
            false,
        ),
        (
            "by a block of Cilium",
            cilium("p", &both(json!([{"fromCIDR": ["10.9.0.1/32"]}]), json!([{"toCIDR": ["10.9.0.1/32"]}]))),
            false,
        ),
        ("by its address", block("10.9.0.1/32"), true),
        ("by another address", block("10.9.0.2/32"), false),
        (
            "by nothing",
            network("p", &json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]})),
            false,
        ),
    ];
    for (what, policy, expected) in cases {
        mesh.apply(&[policy])?;
        ensure!(mesh.enters(DB, DB, (TCP, 80))? == expected, "{what}, to itself");
        ensure!(mesh.leaves(DB, DB, (TCP, 80))? == expected, "{what}, from itself");
    }
    let deny = json!({"endpointSelector": {}, "ingressDeny": [{"fromEndpoints": [select("db")]}]});
    mesh.apply(&[clusterwide("p", &deny), open()])?;
    ensure!(!mesh.enters(DB, DB, (TCP, 80))? && mesh.enters(DB, OTHER, (TCP, 80))?, "denied to itself");
    Ok(())
}

fn service(name: &str, selector: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "shop", "labels": {"team": name}},
        "spec": {"clusterIP": CLUSTER_IP, "clusterIPs": [CLUSTER_IP], "selector": selector, "ports": [{"port": 80}]}})
}

fn slice(name: &str, addresses: &[&str]) -> Value {
    let endpoints: Vec<Value> = addresses.iter().map(|address| json!({"addresses": [address]})).collect();
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": format!("{name}-1"), "namespace": "shop", "labels": {"kubernetes.io/service-name": name}},
        "endpoints": endpoints})
}

#[test]
fn threat_43_a_rule_about_a_service_is_about_what_it_leads_to() -> Result<()> {
    let mut mesh = Mesh::of(&MEMBERS)?;
    let objects = [
        service("front", &json!({"app": "web"})),
        slice("front", &[WEB, OPS]),
        service("outside", &Value::Null),
        slice("outside", &[NOBODY, OPS]),
    ];
    let cases: [(Value, &[&str]); 5] = [
        (json!({"k8sService": {"serviceName": "front"}}), &[WEB]),
        (json!({"k8sServiceSelector": {"selector": {"matchLabels": {"team": "front"}}}}), &[WEB]),
        (json!({"k8sService": {"serviceName": "outside"}}), &[NOBODY]),
        (json!({"k8sServiceSelector": {"selector": {}}}), &[WEB, NOBODY]),
        (json!({"k8sService": {"serviceName": "front", "namespace": "bank"}}), &[]),
    ];
    for (peer, expected) in cases {
        let services = json!([{"toServices": [peer]}]);
        let allow = json!({"endpointSelector": {}, "egress": services});
        let deny =
            json!({"endpointSelector": {}, "egressDeny": services, "egress": [{"toEntities": ["all"]}]});
        for (policy, denies) in [(cilium("p", &allow), false), (cilium("p", &deny), true)] {
            mesh.apply(&[objects.as_slice(), &[policy]].concat())?;
            // Neither the address of the Service, nor pods of its labels elsewhere, nor a pod that a slice names.
            for remote in [WEB, OPS, BANK_WEB, OTHER, NOBODY, CLUSTER_IP, "203.0.113.2"] {
                let leaves = mesh.leaves(DB, remote, (TCP, 80))?;
                ensure!(
                    (leaves != denies) == expected.contains(&remote),
                    "{peer}, denies {denies}: {remote} {leaves}"
                );
            }
        }
    }
    Ok(())
}

#[test]
fn threat_43_the_address_of_a_service_opens_nothing_behind_it() -> Result<()> {
    let mut mesh = Mesh::of(&MEMBERS)?;
    let front = service("front", &json!({"app": "web"}));
    let block = json!([{"to": [{"ipBlock": {"cidr": "10.96.0.10/32"}}]}]);
    for policy in [
        cilium("p", &json!({"endpointSelector": {}, "egress": [{"toCIDR": [CLUSTER_IP]}]})),
        network("p", &json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": block})),
    ] {
        mesh.apply(&[front.clone(), policy])?;
        for remote in [WEB, OPS, BANK_WEB, OTHER, NOBODY] {
            ensure!(!mesh.leaves(DB, remote, (TCP, 80))?, "{remote}");
        }
        ensure!(mesh.leaves(DB, CLUSTER_IP, (TCP, 80))?, "the address itself");
    }
    Ok(())
}
