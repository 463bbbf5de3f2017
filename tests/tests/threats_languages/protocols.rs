//! Every kind of rule for every protocol.

use anyhow::{Result, ensure};
use e2e::paper::{
    Kind, Member, Mesh, PROTOCOLS, SCTP, TCP, UDP, admin, cilium, closed, clusterwide, network, open, tiered,
    with,
};
use serde_json::{Value, json};

const MEMBERS: [Member; 3] = [
    (Kind::Workload, "shop", "db", "10.9.0.1", &["app=db"]),
    (Kind::Pod, "shop", "web", "10.0.0.1", &["app=web"]),
    (Kind::Pod, "shop", "ops", "10.0.0.2", &["app=ops"]),
];
const DB: &str = "10.9.0.1";
const WEB: &str = "10.0.0.1";
const OPS: &str = "10.0.0.2";

/// What a rule says about ports, in the words of each language.
struct Ports {
    network: Value,
    cilium: Value,
    tiered: Value,
    old: Value,
}

/// Rules about `web` that allow, and rules that deny, each with what makes the rest of the verdict the opposite.
fn rules(ports: Option<&Ports>) -> Vec<(bool, Vec<Value>)> {
    let web = json!({"matchLabels": {"app": "web"}});
    let with = |rule: Value, field: &str, ports: Option<&Value>| {
        ports.iter().fold(rule, |rule, ports| with(rule, field, Value::clone(ports)))
    };
    let team = with(json!({"from": [{"podSelector": web}]}), "ports", ports.map(|ports| &ports.network));
    let block =
        with(json!({"from": [{"ipBlock": {"cidr": "10.0.0.1/32"}}]}), "ports", ports.map(|p| &p.network));
    let by_label = with(json!({"fromEndpoints": [web]}), "toPorts", ports.map(|ports| &ports.cilium));
    let pods = json!([{"pods": {"namespaceSelector": {}, "podSelector": web}}]);
    let of_tier = |action: &str, field: &str, ports: Option<&Value>| {
        json!([with(json!({"action": action, "from": pods}), field, ports)])
    };
    let new = |action: &str| of_tier(action, "protocols", ports.map(|ports| &ports.tiered));
    let old = |action: &str| of_tier(action, "ports", ports.map(|ports| &ports.old));
    let allow = json!({"endpointSelector": {}, "ingress": [by_label]});
    let deny = json!({"endpointSelector": {}, "ingressDeny": [by_label]});
    vec![
        (true, vec![network("p", &json!({"podSelector": {}, "ingress": [team]}))]),
        (true, vec![network("p", &json!({"podSelector": {}, "ingress": [block]}))]),
        (true, vec![cilium("p", &allow)]),
        (true, vec![clusterwide("p", &allow)]),
        (true, vec![tiered("p", "Admin", 1, "ingress", &new("Accept")), closed()]),
        (true, vec![admin(Some(1), "ingress", &old("Allow")), closed()]),
        (false, vec![cilium("p", &deny), open()]),
        (false, vec![clusterwide("p", &deny), open()]),
        (false, vec![tiered("p", "Admin", 1, "ingress", &new("Deny")), open()]),
        (false, vec![admin(Some(1), "ingress", &old("Deny")), open()]),
        (false, vec![tiered("p", "Baseline", 1, "ingress", &new("Deny"))]),
        (false, vec![admin(None, "ingress", &old("Deny"))]),
        // What is passed is left to teams, who deny it; the next rule would accept everything.
        (
            false,
            vec![
                tiered("p", "Admin", 1, "ingress", &new("Pass")),
                tiered(
                    "q",
                    "Admin",
                    2,
                    "ingress",
                    &json!([{"action": "Accept", "from": [{"namespaces": {}}]}]),
                ),
                closed(),
            ],
        ),
    ]
}

#[test]
fn threat_38_a_rule_without_ports_is_about_every_protocol() -> Result<()> {
    let mut mesh = Mesh::of(&MEMBERS)?;
    for (allows, policies) in rules(None) {
        mesh.apply(&policies)?;
        for protocol in PROTOCOLS {
            for port in [0, 8, 80, 65_535] {
                let enters = mesh.enters(DB, WEB, (protocol, port))?;
                ensure!(enters == allows, "protocol {protocol}, {port}: {enters} under {policies:?}");
                let other = mesh.enters(DB, OPS, (protocol, port))?;
                ensure!(other != allows, "protocol {protocol}, {port}: others {other} under {policies:?}");
            }
        }
    }
    Ok(())
}

#[test]
fn threat_38_a_rule_with_a_port_is_about_its_protocol() -> Result<()> {
    let mut mesh = Mesh::of(&MEMBERS)?;
    for (name, number) in [("TCP", TCP), ("UDP", UDP), ("SCTP", SCTP)] {
        let ports = Ports {
            network: json!([{"port": 80, "protocol": name}]),
            cilium: json!([{"ports": [{"port": "80", "protocol": name}]}]),
            tiered: json!([{name.to_lowercase(): {"destinationPort": {"number": 80}}}]),
            old: json!([{"portNumber": {"port": 80, "protocol": name}}]),
        };
        for (allows, policies) in rules(Some(&ports)) {
            mesh.apply(&policies)?;
            for protocol in PROTOCOLS {
                for port in [79, 80, 81] {
                    let is_meant = protocol == number && port == 80;
                    let enters = mesh.enters(DB, WEB, (protocol, port))?;
                    ensure!(
                        enters == (is_meant == allows),
                        "{name} 80: {protocol}, {port} under {policies:?}"
                    );
                }
            }
        }
    }
    Ok(())
}

#[test]
fn threat_38_types_of_icmp_are_no_ports() -> Result<()> {
    let mut mesh = Mesh::of(&MEMBERS)?;
    for (family, number, kind) in [("IPv4", 1, 8), ("IPv6", 58, 128)] {
        let icmps = json!([{"fields": [{"family": family, "type": kind}]}]);
        let allow = json!({"endpointSelector": {}, "ingress": [{"fromEntities": ["all"], "icmps": icmps}]});
        let deny =
            json!({"endpointSelector": {}, "ingressDeny": [{"fromEntities": ["all"], "icmps": icmps}]});
        for (allows, policies) in
            [(true, vec![cilium("p", &allow)]), (false, vec![cilium("p", &deny), open()])]
        {
            mesh.apply(&policies)?;
            for protocol in PROTOCOLS {
                for port in [0, 8, 128, 129] {
                    let is_meant = protocol == number && port == kind;
                    let enters = mesh.enters(DB, WEB, (protocol, port))?;
                    ensure!(
                        enters == (is_meant == allows),
                        "{family}: {protocol}, {port} under {policies:?}"
                    );
                }
            }
        }
    }
    Ok(())
}
