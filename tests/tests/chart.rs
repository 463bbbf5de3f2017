//! The Helm chart, as Helm's own engine renders it for the value sets of `tests/chart/cases.yaml`: what schemas do not know.
//! `cargo xtask ci chart` renders, and then runs these.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "also what is shared by tests fails them"
)]

#[path = "chart/companions.rs"]
mod companions;
#[path = "chart/daemon.rs"]
mod daemon;
#[path = "chart/image.rs"]
mod image;
#[path = "chart/pods.rs"]
mod pods;
#[path = "chart/release.rs"]
mod release;
#[path = "chart/rendered.rs"]
mod rendered;
#[path = "chart/values.rs"]
mod values;

use std::collections::BTreeSet;

use e2e::json;
use rendered::{Rendered, chart, name};
use serde_json::Value;

#[test]
#[ignore = "`cargo xtask ci chart` renders what this reads"]
fn helm_and_the_schemas_have_nothing_against_it() {
    let all = Rendered::read();
    for message in json::list(&all.answer, "lint") {
        // 1 is information.
        assert!(json::number(message, "severity") < 2, "{message}");
    }
    for case in all.accepted() {
        assert_eq!(json::text(case, "error"), "", "{}", case["values"]);
        assert_eq!(json::texts(case, "problems"), [""; 0], "{}", case["values"]);
        assert!(!json::list(case, "objects").is_empty(), "{}", case["values"]);
        for object in json::list(case, "objects") {
            // A key whose value a template lost.
            assert!(!has_null(object), "{}: {object}", case["values"]);
        }
    }
}

fn has_null(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.iter().any(has_null),
        Value::Object(map) => map.values().any(has_null),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

#[test]
#[ignore = "`cargo xtask ci chart` renders what this reads"]
fn every_template_is_rendered_by_a_whole_set() {
    let all = Rendered::read();
    let rendered: BTreeSet<String> =
        all.sets().flat_map(|(_, case)| json::texts(case, "templates")).collect();
    let files = std::fs::read_dir(chart().join("templates")).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let templates: BTreeSet<_> = names
        .filter(|name| !name.starts_with('_') && name != "NOTES.txt")
        .map(|name| format!("templates/{name}"))
        .collect();
    assert_eq!(rendered, templates);
}

#[test]
#[ignore = "`cargo xtask ci chart` renders what this reads"]
fn names_of_objects_differ_and_say_whose_they_are() {
    let all = Rendered::read();
    for (set, case) in all.sets() {
        let mut seen = BTreeSet::new();
        for object in json::list(case, "objects") {
            let (kind, labels) = (json::text(object, "kind"), &object["metadata"]["labels"]);
            let namespace = json::text(&object["metadata"], "namespace");
            let is_new = seen.insert((kind, namespace, name(object)));
            assert!(is_new, "{set}: two {kind}s are called {}", name(object));
            let is_definition = kind == "CustomResourceDefinition";
            for label in ["name", "instance", "component", "version", "managed-by"] {
                let value = &labels[format!("app.kubernetes.io/{label}")];
                assert_eq!(value.is_string(), !is_definition, "{set}: {kind}: {label}");
            }
            assert_eq!(labels["helm.sh/chart"].is_string(), !is_definition, "{set}: {kind}");
            let is_of_cluster = is_definition || kind.starts_with("ClusterRole");
            let namespace = &object["metadata"]["namespace"];
            assert_eq!(*namespace == Value::Null, is_of_cluster, "{set}: {kind} {}", name(object));
        }
    }
}

#[test]
#[ignore = "`cargo xtask ci chart` renders what this reads"]
fn what_is_told_at_the_end_can_be_typed() {
    let answer = Rendered::read().answer;
    let notes = |case: &Value| json::text(case, "notes").to_owned();
    let base = notes(&answer["base"]);
    let holder = "kubectl --namespace mesh get lease outrigger-gateway -o jsonpath={.spec.holderIdentity}";
    let serving = format!("kubectl --namespace mesh exec $({holder} | cut -d_ -f1) -- outrigger-gateway");
    let commands: Vec<&str> = base.lines().filter_map(|line| line.strip_prefix("     ")).collect();
    assert_eq!(
        commands,
        [
            "kubectl --namespace mesh rollout status deploy/gw-outrigger",
            "kubectl --namespace mesh get service gw-outrigger       # EXTERNAL-IP",
            "helm upgrade gw … --namespace mesh --reset-then-reuse-values \\",
            "  --set 'config.advertise={<host>:<port>}'",
            &format!("{serving} token create --group <namespace>/<group>"),
            &format!("{serving} status"),
            "kubectl --namespace mesh logs deploy/gw-outrigger",
        ]
    );
    rendered::object(&answer["base"], "Deployment/gw-outrigger").as_object().expect("what is told of");
    rendered::object(&answer["base"], "Service/gw-outrigger").as_object().expect("what is told of");
    assert!(
        base.contains("stay when this release is uninstalled; so does the Secret\noutrigger-roots."),
        "{base}"
    );
    let plain = notes(&answer["sets"]["plain"]);
    assert!(!plain.contains("stay when this release"), "{plain}");
}

#[test]
#[ignore = "`cargo xtask ci chart` renders what this reads"]
fn the_definitions_are_those_of_the_types() {
    let all = Rendered::read();
    let expected: Vec<Value> =
        crds::definitions().iter().map(|definition| serde_json::to_value(definition).unwrap()).collect();
    let mut found = Vec::new();
    for object in json::list(&all.answer["base"], "objects") {
        if json::text(object, "kind") == "CustomResourceDefinition" {
            assert_eq!(object["metadata"]["annotations"]["helm.sh/resource-policy"], "keep", "{object:#}");
            found.push(object.clone());
        }
    }
    assert_eq!(found, expected);
}

#[test]
#[ignore = "`cargo xtask ci chart` renders what this reads"]
fn its_version_is_the_workspaces() {
    let metadata = Rendered::read().answer["metadata"].clone();
    assert_eq!(metadata["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(metadata["appVersion"], env!("CARGO_PKG_VERSION"));
}

#[test]
#[ignore = "`cargo xtask ci chart` renders what this reads"]
fn the_dashboard_is_the_file() {
    let all = Rendered::read();
    let map = rendered::object(&all.answer["sets"]["cloud"], "ConfigMap/gw-outrigger-dashboard");
    let shown: Value = serde_json::from_str(json::text(&map["data"], "outrigger-gateway.json")).unwrap();
    let file = std::fs::read_to_string(chart().join("files/dashboard.json")).unwrap();
    assert_eq!(shown, serde_json::from_str::<Value>(&file).unwrap());
}
