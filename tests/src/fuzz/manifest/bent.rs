//! A valid object of some kind, bent in one or two places.

use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::fuzz::choices::Choices;

/// A name that no field has.
pub(super) const UNKNOWN: &str = "zzUnknown";

/// What stands where something else did.
fn strange(choices: &mut Choices<'_>) -> Value {
    match choices.below(14) {
        0 => Value::Null,
        1 => json!(true),
        2 => json!(choices.one_of(&[0_i64, -1, 1, 65_535, 65_536, i64::MAX, i64::MIN])),
        3 => json!(1.5),
        4 => json!(""),
        5 => json!([]),
        6 => json!({}),
        7 => json!(choices.one_of(&["Ingress", "Egress", "TCP", "SCTP", "In", "Exists", "http"])),
        8 => {
            json!(choices.one_of(&["10.0.0.0/8", "10.0.0.1/8", "::/0", "::ffff:10.0.0.0/104", "10.0.0.0/33"]))
        }
        9 => json!(choices.one_of(&["10.0.0.1", "::1", "::ffff:10.0.0.1", "10.0.0.256"])),
        10 => json!([null]),
        11 => json!({"a": "b"}),
        12 => json!("a".repeat(choices.below(256))),
        _ => json!(String::from_utf8_lossy(choices.take(8))),
    }
}

fn templates() -> &'static [Value] {
    static TEMPLATES: OnceLock<Vec<Value>> = OnceLock::new();
    TEMPLATES.get_or_init(|| {
        let own = [
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": {"team": "a"}}}),
            pod(),
            policy(),
            json!({
                "apiVersion": "outrigger.dev/v1alpha1", "kind": "ExternalWorkloadGroup",
                "metadata": {"name": "db", "namespace": "shop"},
                "spec": {"mode": "audit", "template": {
                    "labels": {"app": "db"}, "serviceAccountName": "db",
                    "ports": [{"name": "pg", "port": 5432, "protocol": "TCP"}],
                }},
            }),
            json!({
                "apiVersion": "outrigger.dev/v1alpha1", "kind": "ExternalWorkload",
                "metadata": {"name": "db-1", "namespace": "shop"},
                "spec": {"group": "db", "addresses": ["10.200.0.9", "fd00::9"]},
            }),
            json!({"apiVersion": "v1", "kind": "List", "items": [pod(), policy()]}),
        ];
        own.into_iter().chain(services()).chain(cilium()).chain(administrators()).collect()
    })
}

fn services() -> [Value; 2] {
    [
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "api", "namespace": "shop"},
            "spec": {"selector": {"app": "api"}, "clusterIP": "10.0.0.1", "ports": [{"port": 80}]},
        }),
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": "api-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "api"}},
            "endpoints": [{"addresses": ["192.0.2.1"], "conditions": {"ready": true}}], "ports": [{"port": 80}],
        }),
    ]
}

fn cilium() -> [Value; 3] {
    let spec = json!({
        "endpointSelector": {"matchLabels": {"app": "db"}}, "enableDefaultDeny": {"ingress": true, "egress": false},
        "ingress": [{
            "fromCIDRSet": [{"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}, {"cidrGroupRef": "partners"}],
            "toPorts": [{"ports": [{"port": "80", "endPort": 90, "protocol": "TCP"}], "rules": {"http": [{"path": "/a"}]}}],
        }],
        "ingressDeny": [{"fromEntities": ["world"], "icmps": [{"fields": [{"type": 8, "family": "IPv4"}]}]}],
        "egress": [
            {"toServices": [{"k8sService": {"serviceName": "api", "namespace": "shop"}}]},
            {"toFQDNs": [{"matchPattern": "*.example.org"}]},
        ],
    });
    [
        json!({
            "apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy",
            "metadata": {"name": "db", "namespace": "shop"}, "spec": spec, "specs": [spec],
        }),
        json!({
            "apiVersion": "cilium.io/v2", "kind": "CiliumClusterwideNetworkPolicy", "metadata": {"name": "db"},
            "spec": spec,
        }),
        json!({
            "apiVersion": "cilium.io/v2", "kind": "CiliumCIDRGroup", "metadata": {"name": "partners"},
            "spec": {"externalCIDRs": ["192.0.2.0/24", "2001:db8::/32"]},
        }),
    ]
}

fn administrators() -> [Value; 3] {
    let subject = json!({"pods": {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "db"}}}});
    let v1alpha1 = json!([{"name": "a", "action": "Deny", "from": [{"namespaces": {}}], "ports": [{"portNumber": {"port": 80, "protocol": "TCP"}}]}]);
    [
        json!({
            "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy", "metadata": {"name": "a"},
            "spec": {
                "tier": "Admin", "priority": 5, "subject": subject,
                "ingress": [{"action": "Pass", "from": [{"namespaces": {}}], "protocols": [{"tcp": {"destinationPort": {"number": 80}}}]}],
                "egress": [{"action": "Accept", "to": [{"networks": ["10.0.0.0/8"]}]}],
            },
        }),
        json!({
            "apiVersion": "policy.networking.k8s.io/v1alpha1", "kind": "AdminNetworkPolicy", "metadata": {"name": "a"},
            "spec": {"priority": 5, "subject": subject, "ingress": v1alpha1},
        }),
        json!({
            "apiVersion": "policy.networking.k8s.io/v1alpha1", "kind": "BaselineAdminNetworkPolicy",
            "metadata": {"name": "default"}, "spec": {"subject": subject, "ingress": v1alpha1},
        }),
    ]
}

fn pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "web-1", "namespace": "shop", "labels": {"app": "web"}},
        "spec": {
            "serviceAccountName": "web", "nodeName": "n1", "hostNetwork": false,
            "containers": [{"name": "web", "image": "web", "ports": [{"name": "http", "containerPort": 80}]}],
        },
        "status": {"phase": "Running", "podIP": "10.244.0.7", "podIPs": [{"ip": "10.244.0.7"}, {"ip": "fd01::7"}]},
    })
}

fn policy() -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "db", "namespace": "shop"},
        "spec": {
            "podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["Ingress", "Egress"],
            "ingress": [{
                "from": [
                    {"podSelector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["web"]}]}},
                    {"namespaceSelector": {"matchLabels": {"team": "a"}}, "podSelector": {}},
                    {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}},
                ],
                "ports": [{"port": 5432, "endPort": 5440, "protocol": "TCP"}, {"port": "http"}],
            }],
            "egress": [{"to": [{"ipBlock": {"cidr": "::/0"}}], "ports": [{"protocol": "UDP", "port": 53}]}],
        },
    })
}

/// The object, and whether it has a field that no kind has.
pub(super) fn object(choices: &mut Choices<'_>) -> (Value, bool) {
    let templates = templates();
    let mut object = templates[choices.below(templates.len())].clone();
    if choices.flag() {
        // Where every name means something: the object, its metadata, its spec, and what is in that of a policy.
        let places = [
            "",
            "/metadata",
            "/spec",
            "/spec/template",
            "/spec/ingress/0",
            "/spec/ingress/0/from/2/ipBlock",
            "/spec/ingress/0/fromCIDRSet/0",
            "/spec/ingress/0/toPorts/0/rules/http/0",
            "/spec/egress/0/toServices/0/k8sService",
            "/spec/subject/pods",
            "/endpoints/0",
        ];
        let place = choices.one_of(&places);
        if let Some(Value::Object(fields)) = object.pointer_mut(place) {
            fields.insert(UNKNOWN.to_owned(), strange(choices));
            return (object, true);
        }
    }
    for _ in 0..=choices.below(2) {
        bend(choices, &mut object);
    }
    (object, false)
}

/// Walks down to some value and changes it.
fn bend(choices: &mut Choices<'_>, value: &mut Value) {
    let depth = 1 + choices.below(8);
    let mut place = value;
    for _ in 0..depth {
        let size = match &*place {
            Value::Object(fields) => fields.len(),
            Value::Array(items) => items.len(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
        };
        if size == 0 {
            break;
        }
        let at = choices.below(size);
        if choices.seldom(16) {
            remove(place, at);
            return;
        }
        place = match place {
            Value::Object(fields) => fields.values_mut().nth(at).unwrap(),
            Value::Array(items) => &mut items[at],
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => return,
        };
    }
    *place = strange(choices);
}

fn remove(place: &mut Value, at: usize) {
    match place {
        Value::Object(fields) => {
            let name = fields.keys().nth(at).unwrap().clone();
            fields.remove(&name);
        }
        Value::Array(items) => drop(items.remove(at)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
