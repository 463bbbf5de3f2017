//! What of an object means something here: the rest, most of it, is dropped before anything keeps it.

use kube::api::{ApiResource, DynamicObject};
use serde_json::{Map, Value, json};

use crate::manifest::companion::is_labelled;
use crate::manifest::{Kind, ObjectKey};

/// The object's name among all, and what is kept of it, as a manifest.
pub(crate) fn object(kind: Kind, resource: &ApiResource, object: DynamicObject) -> (String, Value) {
    let DynamicObject { types: _, metadata, data } = object;
    let name = metadata.name.clone().unwrap_or_default();
    let mut kept = json!({ "name": name });
    // It says to be a companion, and is none: its owners tell why.
    if kind == Kind::NetworkPolicy
        && is_labelled(&metadata)
        && let Some(owners) = &metadata.owner_references
    {
        set(&mut kept, "ownerReferences", json!(owners));
    }
    let mut key = ObjectKey::new(kind, "", &name);
    if let Some(namespace) = metadata.namespace {
        key.namespace.clone_from(&namespace);
        set(&mut kept, "namespace", json!(namespace));
    }
    if let Some(labels) = metadata.labels.filter(|labels| !labels.is_empty()) {
        set(&mut kept, "labels", json!(labels));
    }
    let mut manifest = fields(kind, data);
    set(&mut manifest, "apiVersion", json!(resource.api_version));
    set(&mut manifest, "kind", json!(resource.kind));
    set(&mut manifest, "metadata", kept);
    (key.to_string(), manifest)
}

fn fields(kind: Kind, mut data: Value) -> Value {
    match kind {
        Kind::Namespace => json!({}),
        Kind::Pod => json!({
            "spec": pod_spec(data.get_mut("spec").map(Value::take).unwrap_or_default()),
            "status": only(data.get_mut("status").map(Value::take), &["phase", "podIP", "podIPs"]),
        }),
        Kind::Service => json!({ "spec": only(data.get_mut("spec").map(Value::take), &["selector"]) }),
        Kind::EndpointSlice => {
            let mut slice = only(Some(data), &["addressType", "endpoints"]);
            for endpoint in items(&mut slice, "endpoints") {
                *endpoint = only(Some(endpoint.take()), &["addresses"]);
            }
            slice
        }
        // Of what decides about traffic everything counts: an unknown field may be a constraint.
        Kind::NetworkPolicy
        | Kind::CiliumNetworkPolicy
        | Kind::CiliumClusterwideNetworkPolicy
        | Kind::CiliumCidrGroup
        | Kind::ClusterNetworkPolicy
        | Kind::AdminNetworkPolicy
        | Kind::BaselineAdminNetworkPolicy
        | Kind::ExternalWorkloadGroup
        | Kind::ExternalWorkload => {
            if let Value::Object(entries) = &mut data {
                entries.remove("status");
            }
            data
        }
    }
}

fn pod_spec(spec: Value) -> Value {
    let known = ["serviceAccountName", "nodeName", "hostNetwork", "containers", "initContainers"];
    let mut spec = only(Some(spec), &known);
    for list in ["containers", "initContainers"] {
        for container in items(&mut spec, list) {
            *container = only(Some(container.take()), &["ports", "restartPolicy"]);
            for port in items(container, "ports") {
                *port = only(Some(port.take()), &["name", "containerPort", "protocol"]);
            }
        }
    }
    spec
}

/// The entries of these names.
fn only(value: Option<Value>, names: &[&str]) -> Value {
    let entries = match value {
        Some(Value::Object(entries)) => entries,
        // What is no mapping is refused by whoever reads it.
        Some(other) => return other,
        None => Map::new(),
    };
    Value::Object(entries.into_iter().filter(|(name, _)| names.contains(&name.as_str())).collect())
}

fn items<'a>(value: &'a mut Value, name: &str) -> impl Iterator<Item = &'a mut Value> {
    value.get_mut(name).and_then(Value::as_array_mut).into_iter().flatten()
}

fn set(value: &mut Value, name: &str, to: Value) {
    if let Value::Object(entries) = value {
        entries.insert(name.to_owned(), to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{Manifest, Node, Object, Resource};

    fn selected(kind: Kind, text: &str) -> (String, Value) {
        let resource = Resource::all().find(|resource| resource.kind == kind).unwrap();
        let found: DynamicObject = serde_json::from_value(serde_json::from_str(text).unwrap()).unwrap();
        let (group, version) = resource.api_version.rsplit_once('/').unwrap_or(("", resource.api_version));
        let gvk = kube::api::GroupVersionKind::gvk(group, version, resource.name);
        object(kind, &ApiResource::from_gvk_with_plural(&gvk, resource.plural), found)
    }

    #[test]
    fn a_pod_of_any_kubernetes_is_understood_and_most_of_it_is_dropped() {
        let (name, value) = selected(
            Kind::Pod,
            r#"{"metadata": {"name": "web-0", "namespace": "shop", "labels": {"app": "web"}, "uid": "1",
                "resourceVersion": "7", "annotations": {"a": "b"}, "managedFields": []},
                "spec": {"nodeName": "n", "aFieldOfTheFuture": 1, "containers": [{"name": "c", "image": "i",
                "ports": [{"name": "http", "containerPort": 80, "protocol": "TCP", "future": 1}]}]},
                "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}], "hostIP": "192.0.2.1"}}"#,
        );
        assert_eq!(name, "Pod/shop/web-0");
        let kept = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "web-0", "namespace": "shop", "labels": {"app": "web"}},
            "spec": {"nodeName": "n", "containers": [
                {"ports": [{"name": "http", "containerPort": 80, "protocol": "TCP"}]}]},
            "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}]}});
        assert_eq!(value, kept);
        let manifest = Manifest::read(Node::from_json(&value));
        assert!(matches!(manifest.object, Ok(Object::Pod(_))), "{:?}", manifest.object);
    }

    #[test]
    fn of_a_policy_every_field_counts_but_its_status() {
        let (name, value) = selected(
            Kind::NetworkPolicy,
            r#"{"metadata": {"name": "p", "namespace": "shop"}, "spec": {"podSelector": {}, "constraint": 1},
                "status": {"conditions": []}}"#,
        );
        assert_eq!(name, "NetworkPolicy/shop/p");
        assert!(value.get("status").is_none());
        assert!(Manifest::read(Node::from_json(&value)).object.is_err(), "an unknown constraint is refused");
    }

    #[test]
    fn a_policy_that_only_says_to_be_a_companion_is_one_with_a_warning() {
        let says = |owners: &str| {
            let text = format!(
                r#"{{"metadata": {{"name": "outrigger-companion-p", "namespace": "shop", "uid": "1",
                    "labels": {{"app.kubernetes.io/managed-by": "companions.outrigger.dev"}}, "ownerReferences": [{owners}]}},
                    "spec": {{"podSelector": {{}}, "policyTypes": ["Ingress"],
                    "ingress": [{{"from": [{{"ipBlock": {{"cidr": "10.9.0.1/32"}}}}]}}]}}}}"#
            );
            let (_name, value) = selected(Kind::NetworkPolicy, &text);
            let Ok(Object::Policies(policies)) = Manifest::read(Node::from_json(&value)).object else {
                panic!("{value:#}")
            };
            policies[0].warnings.join("\n")
        };
        let told = says("");
        assert!(
            told.contains("and is no companion, so it applies: it has no networking.k8s.io/v1"),
            "{told}"
        );
        let told = says(
            r#"{"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "name": "p", "uid": "7", "controller": true}"#,
        );
        assert!(told.contains("NetworkPolicy `p` with the uid `7`, is not known here"), "{told}");
    }
}
