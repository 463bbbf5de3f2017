//! Cilium's languages: endpoints, entities, addresses, ports and ICMP, each allowed and denied in both directions.

use serde_json::{Value, json};

use super::{Other, WAYS, Way, case};
use crate::conformance::case::{Case, Feature};

type Form = (&'static str, Value, fn(&Other) -> bool);

pub(super) fn features() -> Vec<Feature> {
    let feature = |name: &str, cases| Feature { name: name.to_owned(), cases };
    vec![
        feature("Cilium endpoints", each("Endpoints", &endpoints())),
        feature("Cilium entities", each("Entities", &entities())),
        feature("Cilium CIDR", each("CIDRSet", &blocks())),
        feature("Cilium ports", each("toPorts", &ports())),
        feature("Cilium ICMP", each("icmps", &icmps())),
    ]
}

/// Every form in every field that has rules. One that denies leaves the rest open, by `enableDefaultDeny`.
fn each(what: &str, forms: &[Form]) -> Vec<Case> {
    let mut cases = Vec::new();
    for way in WAYS {
        for is_deny in [false, true] {
            for (name, value, means) in forms {
                let list = if is_deny { format!("{}Deny", way.field) } else { way.field.to_owned() };
                let title = format!("{list}: {name}");
                let object = policy(way, &list, &field(way, what), value);
                let group = json!({
                    "apiVersion": "cilium.io/v2", "kind": "CiliumCIDRGroup",
                    "metadata": {"name": "outside", "labels": {"kind": "outside"}},
                    "spec": {"externalCIDRs": ["203.0.113.0/24", "2001:db8::/32"]},
                });
                cases.push(case(title, vec![object, group], way, |other| means(other) != is_deny));
            }
        }
    }
    cases
}

fn field(way: Way, what: &str) -> String {
    if what.starts_with(char::is_lowercase) { what.to_owned() } else { format!("{}{what}", way.peers) }
}

fn policy(way: Way, list: &str, field: &str, value: &Value) -> Value {
    let mut spec = json!({"endpointSelector": {"matchLabels": {"pod": "a"}}, list: [{field: value}]});
    if list.ends_with("Deny") {
        spec["enableDefaultDeny"] = json!({way.field: false});
    }
    json!({
        "apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy",
        "metadata": {"namespace": "x", "name": "shape"}, "spec": spec,
    })
}

fn endpoints() -> [Form; 13] {
    let labels = |labels: Value| json!([{"matchLabels": labels}]);
    let expression = |expression: Value| json!([{"matchExpressions": [expression]}]);
    [
        ("all of the namespace", json!([{}]), |other| other.namespace == "x"),
        ("a label", labels(json!({"pod": "b"})), |other| other.is("x/b")),
        ("a label of k8s", labels(json!({"k8s:pod": "b"})), |other| other.is("x/b")),
        ("a label of any", labels(json!({"any:pod": "b"})), |other| other.is("x/b")),
        ("a namespace", labels(json!({"io.kubernetes.pod.namespace": "y"})), |other| other.namespace == "y"),
        (
            "a label in a namespace",
            labels(json!({"k8s:io.kubernetes.pod.namespace": "y", "pod": "b"})),
            |other| other.is("y/b"),
        ),
        (
            "a label of the namespace",
            labels(json!({"k8s:io.cilium.k8s.namespace.labels.ns": "z"})),
            |other| other.namespace == "z",
        ),
        ("In", expression(json!({"key": "pod", "operator": "In", "values": ["b", "c"]})), |other| {
            other.is("x/b") || other.is("x/c")
        }),
        ("NotIn", expression(json!({"key": "pod", "operator": "NotIn", "values": ["b"]})), |other| {
            other.is("x/c")
        }),
        ("Exists", expression(json!({"key": "pod", "operator": "Exists"})), |other| other.namespace == "x"),
        ("DoesNotExist", expression(json!({"key": "pod", "operator": "DoesNotExist"})), |_| false),
        ("two selectors", json!([{"matchLabels": {"pod": "b"}}, {"matchLabels": {"pod": "c"}}]), |other| {
            other.is("x/b") || other.is("x/c")
        }),
        ("an empty list", json!([]), |_| false),
    ]
}

fn entities() -> [Form; 14] {
    [
        ("all", json!(["all"]), |_| true),
        ("world", json!(["world"]), |other| other.is("world")),
        ("world-ipv4", json!(["world-ipv4"]), |other| other.is("world") && !other.is_v6),
        ("world-ipv6", json!(["world-ipv6"]), |other| other.is("world") && other.is_v6),
        ("cluster", json!(["cluster"]), |other| !other.is("world")),
        ("cluster-mesh", json!(["cluster-mesh"]), |other| !other.is("world")),
        ("remote-node", json!(["remote-node"]), |other| other.is("node")),
        ("remote-node and world", json!(["remote-node", "world"]), |other| !other.is_member()),
        ("host", json!(["host"]), |_| false),
        ("init", json!(["init"]), |_| false),
        ("unmanaged", json!(["unmanaged"]), |_| false),
        ("health", json!(["health"]), |_| false),
        ("ingress", json!(["ingress"]), |_| false),
        ("none", json!(["none"]), |_| false),
    ]
}

/// Addresses are those that nobody in the mesh has.
fn blocks() -> [Form; 8] {
    [
        ("every IPv4", json!([{"cidr": "0.0.0.0/0"}]), |other| other.is("world") && !other.is_v6),
        ("every IPv6", json!([{"cidr": "::/0"}]), |other| other.is("world") && other.is_v6),
        ("a block", json!([{"cidr": "203.0.113.0/24"}]), |other| other.is("world") && !other.is_v6),
        ("a block of a member", json!([{"cidr": "${x/b}/32"}, {"cidr": "${y/b.6}/128"}]), |_| false),
        ("a hole", json!([{"cidr": "0.0.0.0/0", "except": ["203.0.113.0/24"]}]), |_| false),
        ("a group", json!([{"cidrGroupRef": "outside"}]), |other| other.is("world")),
        (
            "a group with a hole",
            json!([{"cidrGroupSelector": {"matchLabels": {"kind": "outside"}}, "except": ["2001:db8::/64"]}]),
            |other| other.is("world") && !other.is_v6,
        ),
        ("an unknown group", json!([{"cidrGroupRef": "nowhere"}]), |_| false),
    ]
}

const fn has_port(other: &Other) -> bool {
    !matches!(other.kind.protocol, 1 | 58)
}

fn ports() -> [Form; 8] {
    let one = |port: Value| json!([{"ports": [port]}]);
    [
        ("TCP", one(json!({"port": "80", "protocol": "TCP"})), |other| {
            (other.kind.protocol, other.kind.port) == (6, 80)
        }),
        ("ANY", one(json!({"port": "80", "protocol": "ANY"})), |other| {
            has_port(other) && other.kind.port == 80
        }),
        ("no protocol", one(json!({"port": "81"})), |other| has_port(other) && other.kind.port == 81),
        ("0 is every port", one(json!({"port": "0", "protocol": "UDP"})), |other| other.kind.protocol == 17),
        ("0 of ANY", one(json!({"port": "0"})), has_port),
        ("a range", one(json!({"port": "81", "endPort": 90, "protocol": "SCTP"})), |other| {
            (other.kind.protocol, other.kind.port) == (132, 81)
        }),
        (
            "two items",
            json!([{"ports": [{"port": "80", "protocol": "TCP"}, {"port": "81", "protocol": "UDP"}]}]),
            |other| [(6, 80), (17, 81)].contains(&(other.kind.protocol, other.kind.port)),
        ),
        ("an item without ports", json!([{"ports": []}]), |_| false),
    ]
}

fn icmps() -> [Form; 5] {
    let one = |field: Value| json!([{"fields": [field]}]);
    [
        ("a type", one(json!({"family": "IPv4", "type": 8})), |other| other.kind.protocol == 1),
        ("a type by name", one(json!({"type": "EchoRequest"})), |other| other.kind.protocol == 1),
        ("a type of IPv6", one(json!({"family": "IPv6", "type": 128})), |other| other.kind.protocol == 58),
        ("another type", one(json!({"family": "IPv4", "type": 13})), |_| false),
        (
            "both families",
            json!([{"fields": [{"type": 8}, {"family": "IPv6", "type": "EchoRequest"}]}]),
            |other| matches!(other.kind.protocol, 1 | 58),
        ),
    ]
}
