//! Names are literals, and names of hosts allow nothing yet.

use anyhow::{Result, ensure};
use e2e::paper::{
    Kind, Member, Mesh, NOBODY, PROTOCOLS, TCP, cilium, closed, clusterwide, network, refusal, tiered,
};
use serde_json::{Value, json};

const MEMBERS: [Member; 5] = [
    (Kind::Workload, "shop", "db", "10.9.0.1", &["app=db"]),
    (Kind::Pod, "shop", "right", "10.0.0.1", &["app=a.b", "a.b=1"]),
    (Kind::Pod, "shop", "wrong", "10.0.0.2", &["app=axb", "axb=1"]),
    (Kind::Pod, "shop", "upper", "10.0.0.3", &["app=A.B", "A.B=1"]),
    (Kind::Pod, "shop", "longer", "10.0.0.4", &["app=a.b.c", "a.b.c=1"]),
];
const DB: &str = "10.9.0.1";
const RIGHT: &str = "10.0.0.1";
const WRONG: [&str; 4] = ["10.0.0.2", "10.0.0.3", "10.0.0.4", NOBODY];

fn group(name: &str) -> Value {
    json!({"apiVersion": "cilium.io/v2", "kind": "CiliumCIDRGroup", "metadata": {"name": name},
        "spec": {"externalCIDRs": ["203.0.113.0/24"]}})
}

fn service(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "shop"},
        "spec": {"selector": {"app": "a.b"}}})
}

#[test]
fn threat_39_labels_are_compared_letter_by_letter() -> Result<()> {
    let mut mesh = Mesh::of(&MEMBERS)?;
    let selectors = [
        json!({"matchLabels": {"app": "a.b"}}),
        json!({"matchLabels": {"a.b": "1"}}),
        json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["a.b", "none"]}]}),
        json!({"matchExpressions": [{"key": "a.b", "operator": "Exists"}]}),
    ];
    for selector in selectors {
        let pods = json!([{"pods": {"namespaceSelector": {}, "podSelector": selector}}]);
        let accept = tiered("p", "Admin", 1, "ingress", &json!([{"action": "Accept", "from": pods}]));
        for policies in [
            vec![network(
                "p",
                &json!({"podSelector": {}, "ingress": [{"from": [{"podSelector": selector}]}]}),
            )],
            vec![cilium("p", &json!({"endpointSelector": {}, "ingress": [{"fromEndpoints": [selector]}]}))],
            vec![accept, closed()],
        ] {
            mesh.apply(&policies)?;
            ensure!(mesh.enters(DB, RIGHT, (TCP, 80))?, "{policies:?}");
            for wrong in WRONG {
                ensure!(!mesh.enters(DB, wrong, (TCP, 80))?, "{wrong} matches {policies:?}");
            }
        }
    }
    Ok(())
}

#[test]
fn threat_39_expressions_are_no_values_of_labels() -> Result<()> {
    for value in
        ["a*", "*", ".*", "^a", "a|b", "[ab]", "(a)", "a+", "a?", "a\\.b", "a$", "a b", "a/b", "-a", "."]
    {
        for selector in [
            json!({"matchLabels": {"app": value}}),
            json!({"matchExpressions": [{"key": "app", "operator": "In", "values": [value]}]}),
            json!({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": [value]}]}),
        ] {
            for policy in [
                network("p", &json!({"podSelector": selector})),
                network("p", &json!({"podSelector": {}, "ingress": [{"from": [{"podSelector": selector}]}]})),
                cilium("p", &json!({"endpointSelector": {}, "ingress": [{"fromEndpoints": [selector]}]})),
                tiered(
                    "p",
                    "Admin",
                    1,
                    "ingress",
                    &json!([{"action": "Deny", "from": [{"namespaces": selector}]}]),
                ),
            ] {
                let said = refusal(&policy)?;
                ensure!(said.contains(&format!("{value:?}")), "{said}");
            }
        }
    }
    Ok(())
}

#[test]
fn threat_39_objects_are_meant_by_their_whole_name() -> Result<()> {
    let mut mesh = Mesh::of(&MEMBERS)?;
    let set = json!([{"cidrGroupRef": "a.b"}]);
    let policy = cilium("p", &json!({"endpointSelector": {}, "ingress": [{"fromCIDRSet": set}]}));
    for (name, expected) in [("a.b", true), ("axb", false), ("a.b.c", false), ("a", false)] {
        mesh.apply(&[policy.clone(), group(name)])?;
        ensure!(mesh.enters(DB, NOBODY, (TCP, 80))? == expected, "the group {name}");
    }
    for name in ["a*", ".*", "a.*", "A.b", ""] {
        let set = json!([{"cidrGroupRef": name}]);
        refusal(&cilium("p", &json!({"endpointSelector": {}, "ingress": [{"fromCIDRSet": set}]})))?;
    }
    let policy = |name: &str| {
        let services = json!([{"k8sService": {"serviceName": name, "namespace": "shop"}}]);
        cilium("p", &json!({"endpointSelector": {}, "egress": [{"toServices": services}]}))
    };
    for (name, expected) in [("a-b", true), ("a-b-c", false), ("axb", false)] {
        mesh.apply(&[policy("a-b"), service(name)])?;
        ensure!(mesh.leaves(DB, RIGHT, (TCP, 80))? == expected, "the Service {name}");
    }
    for name in ["a*", ".*", "a.b", "A", "shop/a", ""] {
        refusal(&policy(name))?;
    }
    for name in ["web*", "w.b", "w_b", ".", "web "] {
        let ports = json!([{"ports": [{"port": name}]}]);
        refusal(&cilium("p", &json!({"endpointSelector": {}, "ingress": [{"toPorts": ports}]})))?;
        refusal(&network("p", &json!({"podSelector": {}, "ingress": [{"ports": [{"port": name}]}]})))?;
    }
    Ok(())
}

/// A policy that allows a name, in each place where names stand.
fn to_name(field: &str, name: &str) -> Vec<Value> {
    let names = json!([{field: name}]);
    let ports = json!([{"ports": [{"port": "443", "protocol": "TCP"}]}]);
    let by_dns = json!([{"ports": [{"port": "53"}], "rules": {"dns": names}}]);
    let rules = [
        json!({"toFQDNs": names}),
        json!({"toFQDNs": names, "toPorts": ports}),
        json!({"toEntities": ["all"], "toPorts": by_dns}),
    ];
    let specs = rules.map(|rule| json!({"endpointSelector": {}, "egress": [rule]}));
    specs.iter().flat_map(|spec| [cilium("p", spec), clusterwide("p", spec)]).collect()
}

fn to_domain(name: &str) -> Value {
    let rules = json!([{"action": "Accept", "to": [{"domainNames": [name]}]}]);
    tiered("p", "Admin", 1, "egress", &rules)
}

#[test]
fn threat_40_names_of_hosts_allow_nothing() -> Result<()> {
    let mut mesh = Mesh::of(&MEMBERS)?;
    let names =
        ["example.com", "EXAMPLE.Com", "example.com.", "xn--bcher-kva.example", "a_b.example", "localhost"];
    let patterns = ["*", "**.example.com", "*.example.com", "*.*.example.com", "a*.EXAMPLE.com.", "*.com"];
    let mut policies: Vec<Vec<Value>> = Vec::new();
    for (field, names) in [("matchName", names), ("matchPattern", patterns)] {
        policies.extend(names.iter().flat_map(|name| to_name(field, name)).map(|policy| vec![policy]));
    }
    for name in ["example.com", "EXAMPLE.com", "example.com.", "*.example.com"] {
        policies.push(vec![to_domain(name), closed()]);
    }
    for policies in policies {
        mesh.apply(&policies)?;
        for remote in [RIGHT, NOBODY, "10.0.0.2"] {
            for protocol in PROTOCOLS {
                for port in [53, 443] {
                    ensure!(!mesh.leaves(DB, remote, (protocol, port))?, "{remote}, {port}: {policies:?}");
                }
            }
        }
    }
    Ok(())
}

#[test]
fn threat_40_what_is_no_name_of_a_host_is_refused() -> Result<()> {
    let long = format!("{}.example", "a".repeat(250));
    let wrong = [
        "",
        ".",
        "..",
        ".example.com",
        "example..com",
        "example.com..",
        "https://example.com",
        "example.com/x",
        "example.com#y",
        "example.com?z",
        "user@example.com",
        "example.com:443",
        "exa mple.com",
        "bücher.example",
        "example.com\u{0}",
        "[::1]",
        "^example",
        "a\\.b",
        &long,
    ];
    for name in wrong {
        for field in ["matchName", "matchPattern"] {
            for policy in to_name(field, name) {
                let said = refusal(&policy)?;
                ensure!(said.contains(field), "{said}");
            }
        }
        refusal(&to_domain(name))?;
    }
    // A name is no pattern, and a pattern of administrators has one star, which is a whole label.
    for name in ["*", "*.example.com", "a*.example.com"] {
        for policy in to_name("matchName", name) {
            refusal(&policy)?;
        }
    }
    for name in [
        "*",
        "*.*.example.com",
        "a.*.com",
        "**.example.com",
        "a*.example.com",
        "*example.com",
        "-a.com",
        "com",
    ] {
        let said = refusal(&to_domain(name))?;
        ensure!(said.contains("domainNames"), "{said}");
    }
    let both = json!([{"matchName": "a.example", "matchPattern": "*.example"}]);
    refusal(&cilium("p", &json!({"endpointSelector": {}, "egress": [{"toFQDNs": both}]})))?;
    let denied = json!([{"matchName": "a.example"}]);
    refusal(&cilium("p", &json!({"endpointSelector": {}, "egressDeny": [{"toFQDNs": denied}]})))?;
    Ok(())
}
