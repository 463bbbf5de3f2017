//! `NetworkPolicy`: the shapes of the upstream suites.

use serde_json::{Value, json};

use super::{Other, WAYS, Way, case, for_subject, network_policy, of_rows};
use crate::conformance::case::{Case, Feature};
use crate::conformance::cast::NAMESPACES;

/// Something that may be said, and whom it is about.
type Form<T> = (&'static str, Option<Value>, fn(T) -> bool);

/// What is written, and about which other ends it is.
type About = (&'static str, Value, fn(&Other) -> bool);

/// Ports that are written, and which protocol and port are meant.
type Ports = (&'static str, Value, fn((&'static str, u16)) -> bool);

pub(super) fn features() -> Vec<Feature> {
    let feature = |name: &str, cases| Feature { name: name.to_owned(), cases };
    vec![
        feature("NetworkPolicy peers", peers()),
        feature("NetworkPolicy ports", ports()),
        feature("NetworkPolicy conflicts", conflicts()),
        feature("NetworkPolicy targets", targets()),
    ]
}

fn expression(key: &str, operator: &str, values: &[&str]) -> Value {
    let mut one = json!({"key": key, "operator": operator});
    if !values.is_empty() {
        one["values"] = json!(values);
    }
    json!({"matchExpressions": [one]})
}

fn namespace_forms() -> [Form<&'static str>; 7] {
    [
        ("no namespaces", None, |name| name == "x"),
        ("all namespaces", Some(json!({})), |_| true),
        ("namespace y", Some(json!({"matchLabels": {"ns": "y"}})), |name| name == "y"),
        ("namespaces in x, y", Some(expression("ns", "In", &["x", "y"])), |name| name != "z"),
        ("namespaces not in y", Some(expression("ns", "NotIn", &["y"])), |name| name != "y"),
        ("namespaces with ns", Some(expression("ns", "Exists", &[])), |_| true),
        ("namespaces without ns", Some(expression("ns", "DoesNotExist", &[])), |_| false),
    ]
}

fn pod_forms() -> [Form<&'static str>; 7] {
    [
        ("no pods", None, |_| true),
        ("all pods", Some(json!({})), |_| true),
        ("pods a", Some(json!({"matchLabels": {"pod": "a"}})), |name| name == "a"),
        ("pods in a, b", Some(expression("pod", "In", &["a", "b"])), |name| name != "c"),
        ("pods not in a", Some(expression("pod", "NotIn", &["a"])), |name| name != "a"),
        ("pods with pod", Some(expression("pod", "Exists", &[])), |_| true),
        ("pods without pod", Some(expression("pod", "DoesNotExist", &[])), |_| false),
    ]
}

fn block_forms() -> [About; 8] {
    let block = |cidr: &str, except: &[&str]| json!({"ipBlock": {"cidr": cidr, "except": except}});
    [
        ("an address", json!([block("${x/b}/32", &[])]), |other| other.is("x/b") && !other.is_v6),
        ("an IPv6 address", json!([block("${y/b.6}/128", &[])]), |other| other.is("y/b") && other.is_v6),
        ("every IPv4", json!([block("0.0.0.0/0", &[])]), |other| !other.is_v6),
        ("every IPv6", json!([block("::/0", &[])]), |other| other.is_v6),
        ("IPv4 with a hole", json!([block("0.0.0.0/0", &["${x/b}/32"])]), |other| {
            !other.is_v6 && !other.is("x/b")
        }),
        ("IPv6 with a hole", json!([block("::/0", &["${y/b.6}/128"])]), |other| {
            other.is_v6 && !other.is("y/b")
        }),
        ("both families", json!([block("${z/c}/32", &[]), block("${z/c.6}/128", &[])]), |other| {
            other.is("z/c")
        }),
        ("the world", json!([block("203.0.113.0/24", &[])]), |other| other.is("world") && !other.is_v6),
    ]
}

fn peers() -> Vec<Case> {
    let mut cases = Vec::new();
    for way in WAYS {
        for (namespaces, in_namespaces, is_namespace) in namespace_forms() {
            for (pods, in_pods, is_pod) in pod_forms() {
                let mut peer = json!({});
                for (field, selector) in [("namespaceSelector", &in_namespaces), ("podSelector", &in_pods)] {
                    if let Some(selector) = selector {
                        peer[field] = selector.clone();
                    }
                }
                if peer == json!({}) {
                    continue;
                }
                let name = format!("{}: {namespaces}, {pods}", way.field);
                let object = for_subject("peers", way, &json!([{way.peers: [peer]}]));
                cases.push(case(name, vec![object], way, |other| {
                    other.is_member() && is_namespace(other.namespace) && is_pod(other.pod)
                }));
            }
        }
        for (name, peers, is_peer) in block_forms() {
            let object = for_subject("peers", way, &json!([{way.peers: peers}]));
            cases.push(case(format!("{}: {name}", way.field), vec![object], way, is_peer));
        }
    }
    cases
}

/// A port as it is written, and whether a protocol and port are meant by it. The protocol is that of the item.
fn port_forms() -> [Form<(&'static str, u16)>; 7] {
    [
        ("no port", None, |_| true),
        ("80", Some(json!({"port": 80})), |(_, port)| port == 80),
        ("81", Some(json!({"port": 81})), |(_, port)| port == 81),
        ("a name of TCP", Some(json!({"port": "serve-80-tcp"})), |found| found == ("TCP", 80)),
        ("a name of UDP", Some(json!({"port": "serve-81-udp"})), |found| found == ("UDP", 81)),
        ("80 to 81", Some(json!({"port": 80, "endPort": 81})), |(_, port)| port == 80 || port == 81),
        ("82 to 90", Some(json!({"port": 82, "endPort": 90})), |(_, port)| (82..=90).contains(&port)),
    ]
}

fn protocol(other: &Other) -> &'static str {
    match other.kind.protocol {
        6 => "TCP",
        17 => "UDP",
        132 => "SCTP",
        _ => "other",
    }
}

fn ports() -> Vec<Case> {
    let mut cases = Vec::new();
    for way in WAYS {
        let names = |other: &Other| way.is_ingress || other.is_member();
        for (form, port, is_port) in port_forms() {
            for wanted in [None, Some("TCP"), Some("UDP"), Some("SCTP")] {
                let mut item = port.clone().unwrap_or(json!({}));
                if let Some(wanted) = wanted {
                    item["protocol"] = json!(wanted);
                }
                let name = format!("{}: {form}, {}", way.field, wanted.unwrap_or("no protocol"));
                let is_named = form.starts_with("a name");
                let object = for_subject("ports", way, &json!([{"ports": [item]}]));
                cases.push(case(name, vec![object], way, |other| {
                    protocol(other) == wanted.unwrap_or("TCP")
                        && is_port((protocol(other), other.kind.port))
                        && (!is_named || names(other))
                }));
            }
        }
        for (name, items, means) in two_ports() {
            let object = for_subject("ports", way, &json!([{"ports": items}]));
            cases.push(case(format!("{}: {name}", way.field), vec![object], way, |other| {
                means((protocol(other), other.kind.port))
            }));
        }
    }
    cases
}

fn two_ports() -> [Ports; 7] {
    let one = |protocol: &str, port: u16| json!({"protocol": protocol, "port": port});
    [
        ("two of TCP", json!([one("TCP", 80), one("TCP", 81)]), |(protocol, _)| protocol == "TCP"),
        ("TCP and UDP", json!([one("TCP", 80), one("UDP", 80)]), |(protocol, port)| {
            port == 80 && protocol != "SCTP"
        }),
        ("UDP and SCTP", json!([one("UDP", 81), one("SCTP", 81)]), |(protocol, port)| {
            port == 81 && protocol != "TCP"
        }),
        ("all of UDP, one of TCP", json!([{"protocol": "UDP"}, one("TCP", 81)]), |found| {
            found.0 == "UDP" || found == ("TCP", 81)
        }),
        ("the same twice", json!([one("TCP", 80), one("TCP", 80)]), |found| found == ("TCP", 80)),
        ("one beside a range", json!([one("UDP", 80), {"port": 81, "endPort": 65535}]), |found| {
            found == ("UDP", 80) || found == ("TCP", 81)
        }),
        (
            "ranges that overlap",
            json!([{"port": 1, "endPort": 80}, {"port": 80, "endPort": 90}]),
            |(protocol, _)| protocol == "TCP",
        ),
    ]
}

/// Policies about one subject add up.
fn conflicts() -> Vec<Case> {
    let mut cases = Vec::new();
    for way in WAYS {
        let forms = conflicting(way);
        for (at, (name, rules, allows)) in forms.iter().enumerate() {
            for (other_name, other_rules, other_allows) in forms.iter().skip(at + 1) {
                let objects = vec![for_subject("one", way, rules), for_subject("two", way, other_rules)];
                let name = format!("{}: {name} beside {other_name}", way.field);
                cases.push(case(name, objects, way, |other| allows(other) || other_allows(other)));
            }
        }
    }
    cases
}

fn conflicting(way: Way) -> [About; 5] {
    let namespace = json!({"namespaceSelector": {"matchLabels": {"ns": "y"}}});
    let pods = json!({"namespaceSelector": {}, "podSelector": {"matchLabels": {"pod": "b"}}});
    [
        ("nothing", json!([]), |_| false),
        ("everything", json!([{}]), |_| true),
        ("namespace y", json!([{way.peers: [namespace]}]), |other| other.namespace == "y"),
        ("pods b", json!([{way.peers: [pods]}]), |other| other.pod == "b"),
        ("TCP 80", json!([{"ports": [{"port": 80}]}]), |other| {
            protocol(other) == "TCP" && other.kind.port == 80
        }),
    ]
}

/// Who is selected, and is denied everything.
fn targets() -> Vec<Case> {
    let mut cases = Vec::new();
    for way in WAYS {
        for namespace in NAMESPACES {
            for (form, selector, _) in pod_forms() {
                let selected: Vec<&str> = match form {
                    "no pods" | "all pods" | "pods with pod" => vec!["a", "b", "c"],
                    "pods a" => vec!["a"],
                    "pods in a, b" => vec!["a", "b"],
                    "pods not in a" => vec!["b", "c"],
                    _ => vec![],
                };
                let mut spec = json!({"policyTypes": [way.kind]});
                if let Some(selector) = selector {
                    spec["podSelector"] = selector;
                }
                let row = |pod: &&str| {
                    if way.is_ingress {
                        format!("deny * -> {namespace}/{pod}")
                    } else {
                        format!("deny {namespace}/{pod} -> *")
                    }
                };
                let rows: Vec<String> = selected.iter().map(row).collect();
                let name = format!("{}: {form} of {namespace}", way.field);
                let object = network_policy(namespace, "targets", &spec);
                cases.push(Case { name, ..of_rows(vec![object], &rows) });
            }
        }
    }
    cases
}
