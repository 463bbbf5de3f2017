//! Empty lists, empty groups, blocks within blocks and deny-only policies.

use anyhow::{Context, Result, ensure};
use e2e::paper::{
    Kind, Member, Mesh, NOBODY, PROTOCOLS, TCP, admin, cilium, closed, clusterwide, network, open, refusal,
    tiered, with,
};
use serde_json::{Value, json};

const MEMBERS: [Member; 5] = [
    (Kind::Workload, "shop", "db", "10.9.0.1", &["app=db"]),
    (Kind::Pod, "shop", "web", "10.0.0.1", &["app=web"]),
    (Kind::Pod, "shop", "ops", "10.0.0.2", &["app=ops"]),
    (Kind::Pod, "bank", "web", "10.0.0.3", &["app=web"]),
    (Kind::Node, "outrigger", "node", "10.9.0.9", &[]),
];
const DB: &str = "10.9.0.1";
const WEB: &str = "10.0.0.1";
const OPS: &str = "10.0.0.2";
const REMOTES: [&str; 5] = [WEB, OPS, "10.0.0.3", "10.9.0.9", NOBODY];

fn group(name: &str, cidrs: &[&str]) -> Value {
    json!({"apiVersion": "cilium.io/v2", "kind": "CiliumCIDRGroup", "metadata": {"name": name},
        "spec": {"externalCIDRs": cidrs}})
}

#[test]
fn threat_32_an_empty_list_of_any_language_is_nobody() -> Result<()> {
    let mut mesh = Mesh::of(&MEMBERS)?;
    let both =
        |what: &str, peers: Value| [(format!("from{what}"), peers.clone()), (format!("to{what}"), peers)];
    let none = json!({"matchLabels": {"app": "nobody"}});
    let mut empty: Vec<(String, Value)> = [
        both("Endpoints", json!([])),
        both("Endpoints", json!([none])),
        both("CIDR", json!([])),
        both("CIDRSet", json!([])),
        both("CIDRSet", json!([{"cidrGroupRef": "empty"}])),
        both("CIDRSet", json!([{"cidrGroupRef": "missing"}])),
        both("CIDRSet", json!([{"cidrGroupSelector": none}])),
        both("CIDRSet", json!([{"cidr": "0.0.0.0/0", "except": ["0.0.0.0/1", "128.0.0.0/1"]}])),
        both("Entities", json!([])),
        both("Entities", json!(["none"])),
        both("Nodes", json!([])),
    ]
    .concat();
    empty.push(("toServices".to_owned(), json!([])));
    empty.push(("toServices".to_owned(), json!([{"k8sService": {"serviceName": "missing"}}])));
    empty.push(("toServices".to_owned(), json!([{"k8sServiceSelector": {"selector": none}}])));
    empty.push(("toFQDNs".to_owned(), json!([])));
    for (field, peers) in empty {
        let direction = if field.starts_with("from") { "ingress" } else { "egress" };
        let mut rules = vec![json!({&field: peers})];
        if field != "toServices" {
            rules.push(json!({&field: peers, "toPorts": [{"ports": [{"port": "80"}]}]}));
        }
        // A list that is empty beside one that is not.
        if peers == json!([]) && field != "toEntities" && field != "fromEntities" {
            let other = if direction == "ingress" { "fromEntities" } else { "toEntities" };
            rules.push(json!({&field: [], other: ["all"]}));
        }
        for rule in rules {
            let spec = json!({"endpointSelector": {}, direction: [rule]});
            mesh.apply(&[
                cilium("p", &spec),
                clusterwide("p", &spec_of_everywhere(&spec)),
                group("empty", &[]),
            ])?;
            for remote in REMOTES {
                let enters = direction == "ingress" && mesh.enters(DB, remote, (TCP, 80))?;
                let leaves = direction == "egress" && mesh.leaves(DB, remote, (TCP, 80))?;
                ensure!(!enters && !leaves, "{rule}: {remote} is allowed");
            }
        }
    }
    Ok(())
}

/// A Service has to say where it is.
fn spec_of_everywhere(spec: &Value) -> Value {
    let text = spec
        .to_string()
        .replace("\"serviceName\":\"missing\"", "\"namespace\":\"x\",\"serviceName\":\"missing\"");
    serde_json::from_str(&text).unwrap_or_default()
}

#[test]
fn threat_32_ports_that_are_empty_or_unknown_are_none() -> Result<()> {
    let mut mesh = Mesh::of(&MEMBERS)?;
    // With and without peers: what the ports say is all there is, or narrows them.
    for mut rule in [json!({}), json!({"fromEntities": ["all"]})] {
        for ports in [
            json!([{}]),
            json!([{"ports": []}]),
            json!([{"ports": [{"port": "nobody"}]}]),
            json!([{"ports": [{"port": "80"}], "rules": {"http": [{"method": "GET"}]}}]),
            json!([{"ports": [{"port": "0"}], "rules": {"dns": [{"matchPattern": "*"}]}}]),
            json!([{"ports": [{"port": "80"}], "serverNames": ["a.example"]}]),
        ] {
            rule["toPorts"] = ports;
            mesh.apply(&[cilium("p", &json!({"endpointSelector": {}, "ingress": [rule]}))])?;
            for protocol in PROTOCOLS {
                ensure!(!mesh.enters(DB, WEB, (protocol, 80))?, "{rule}: protocol {protocol} enters");
            }
        }
    }
    for name in ["protocols", "from"] {
        let mut rule = json!({"action": "Accept", "from": [{"namespaces": {}}], "protocols": [{"tcp": {"destinationPort": {"number": 80}}}]});
        rule[name] = json!([]);
        let said = refusal(&tiered("p", "Admin", 1, "ingress", &json!([rule])))?;
        ensure!(said.contains(name), "{said}");
    }
    let unknown = json!([{"action": "Accept", "from": [{"namespaces": {}}], "protocols": [{"destinationNamedPort": "nobody"}]}]);
    mesh.apply(&[tiered("p", "Admin", 1, "ingress", &unknown), closed()])?;
    ensure!(!mesh.enters(DB, WEB, (TCP, 80))?, "a name of a port that nobody has");
    Ok(())
}

#[test]
fn threat_33_a_block_outside_of_the_mesh_allows_no_endpoint() -> Result<()> {
    let mut mesh = Mesh::of(&MEMBERS)?;
    let everything = group("everything", &["0.0.0.0/0", "::/0"]);
    let peers = [
        ("CIDR", json!(["0.0.0.0/0"])),
        ("CIDR", json!(["10.0.0.1", "203.0.113.1"])),
        ("CIDRSet", json!([{"cidr": "0.0.0.0/0"}])),
        ("CIDRSet", json!([{"cidrGroupRef": "everything"}])),
        ("Entities", json!(["world"])),
    ];
    for (what, peers) in peers {
        for ports in [json!([]), json!([{"ports": [{"port": "80"}]}]), json!([{"ports": [{"port": "web"}]}])]
        {
            let rule = |start: &str| json!([{format!("{start}{what}"): peers, "toPorts": ports}]);
            let spec = json!({"endpointSelector": {}, "ingress": rule("from"), "egress": rule("to")});
            mesh.apply(&[cilium("p", &spec), everything.clone()])?;
            for remote in REMOTES {
                let (enters, leaves) =
                    (mesh.enters(DB, remote, (TCP, 80))?, mesh.leaves(DB, remote, (TCP, 80))?);
                // An address without an endpoint gives no port a name.
                let named = ports.to_string().contains("web");
                ensure!(
                    enters == (remote == NOBODY),
                    "{rule}: {remote} enters: {enters}",
                    rule = rule("from")
                );
                ensure!(
                    leaves == (remote == NOBODY && !named),
                    "{rule}: to {remote}: {leaves}",
                    rule = rule("to")
                );
            }
        }
    }
    Ok(())
}

#[test]
fn threat_34_a_broad_denial_is_not_hidden_by_a_narrow_allowance_of_another_tier() -> Result<()> {
    let mut mesh = Mesh::of(&MEMBERS)?;
    let nested = ["0.0.0.0/0", "203.0.0.0/8", "203.0.113.0/24", "203.0.113.1/32"];
    let leaves = |mesh: &mut Mesh, policies: &[Value]| -> Result<bool> {
        mesh.apply(policies)?;
        mesh.leaves(DB, NOBODY, (TCP, 80))
    };
    for broad in nested {
        for narrow in nested {
            let (deny, accept) = (
                json!([{"action": "Deny", "to": [{"networks": [broad]}]}]),
                json!([{"action": "Accept", "to": [{"networks": [narrow]}]}]),
            );
            let team = network(
                "team",
                &json!({"podSelector": {}, "policyTypes": ["Egress"],
                "egress": [{"to": [{"ipBlock": {"cidr": narrow}}]}]}),
            );
            let above = tiered("above", "Admin", 1, "egress", &deny);
            let below = tiered("below", "Admin", 2, "egress", &accept);
            ensure!(!leaves(&mut mesh, &[above.clone(), team])?, "{narrow} of a team above {broad}");
            ensure!(!leaves(&mut mesh, &[above, below])?, "{narrow} at 2 above {broad} at 1");
            let strong = tiered("strong", "Admin", 1, "egress", &accept);
            let weak = tiered("weak", "Baseline", 0, "egress", &deny);
            ensure!(leaves(&mut mesh, &[strong, weak])?, "{broad} of the baseline above {narrow}");
            for (deny, allow) in [
                (json!([{"toCIDR": [broad]}]), json!([{"toCIDR": [narrow]}])),
                (json!([{"toCIDRSet": [{"cidrGroupRef": "broad"}]}]), json!([{"toCIDR": [narrow]}])),
                (json!([{"toEntities": ["world"]}]), json!([{"toCIDRSet": [{"cidr": narrow}]}])),
            ] {
                let spec = json!({"endpointSelector": {}, "egress": allow, "egressDeny": deny});
                ensure!(!leaves(&mut mesh, &[cilium("p", &spec), group("broad", &[broad])])?, "{spec}");
            }
        }
    }
    Ok(())
}

/// What denies, and nothing else, in each language: toward the host, from `web`.
fn denials() -> Vec<(&'static str, Value, bool)> {
    let web = json!([{"matchLabels": {"app": "web"}}]);
    let pods = json!({"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "web"}}});
    let rules = json!([{"action": "Deny", "from": [{"pods": pods}]}]);
    let alone = json!({"endpointSelector": {}, "ingressDeny": [{"fromEndpoints": web}]});
    let open = with(alone.clone(), "enableDefaultDeny", json!({"ingress": false}));
    vec![
        ("a team's", cilium("p", &alone), true),
        ("everybody's", clusterwide("p", &alone), true),
        ("a team's that does not isolate", cilium("p", &open), false),
        ("everybody's that does not isolate", clusterwide("p", &open), false),
        ("an administrator's", tiered("p", "Admin", 1, "ingress", &rules), false),
        ("an administrator's of old", admin(Some(1), "ingress", &rules), false),
        ("of the baseline", tiered("p", "Baseline", 1, "ingress", &rules), false),
        ("of the old baseline", admin(None, "ingress", &rules), false),
    ]
}

#[test]
fn threat_37_what_only_denies_opens_nothing() -> Result<()> {
    let mut mesh = Mesh::of(&MEMBERS)?;
    for (what, policy, isolates) in denials() {
        for protocol in PROTOCOLS {
            mesh.apply(std::slice::from_ref(&policy))?;
            ensure!(!mesh.enters(DB, WEB, (protocol, 80))?, "{what} denies nothing");
            let others = mesh.enters(DB, OPS, (protocol, 80))?;
            ensure!(others != isolates, "{what}: others enter: {others}");
            ensure!(mesh.leaves(DB, WEB, (protocol, 80))?, "{what} isolates the other direction");
            mesh.apply(&[policy.clone(), closed()])?;
            for remote in REMOTES {
                ensure!(
                    !mesh.enters(DB, remote, (protocol, 80))?,
                    "{what} opens what is isolated to {remote}"
                );
            }
        }
    }
    Ok(())
}

#[test]
fn threat_37_a_denial_beside_an_allowance_decides() -> Result<()> {
    let mut mesh = Mesh::of(&MEMBERS)?;
    for (what, policy, _) in denials() {
        mesh.apply(&[policy.clone(), open()])?;
        // What teams decide, the baseline does not.
        let expected = what.contains("baseline");
        ensure!(mesh.enters(DB, WEB, (TCP, 80))? == expected, "{what}");
        let name = policy.pointer("/metadata/name").and_then(Value::as_str).context("a name")?;
        let (_, reason) = mesh.decide(DB, datapath::Direction::Ingress, WEB, (TCP, 80))?;
        ensure!(expected || reason.contains(&format!("/{name}#ingress")), "{what}: {reason}");
        // A team that lets only `ops` in leaves the rest as it is.
        mesh.apply(&[policy, network("ops", &json!({"podSelector": {}, "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "ops"}}}]}]}))])?;
        ensure!(!mesh.enters(DB, WEB, (TCP, 80))? && mesh.enters(DB, OPS, (TCP, 80))?, "{what}");
    }
    Ok(())
}
