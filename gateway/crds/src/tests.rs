//! What every definition has, and that the files of the tree are these. What the rules refuse is asked of an API server, in
//! `tests/tests/kubernetes.rs`.

use serde_json::Value;

use super::*;

#[test]
fn every_rule_walks_over_something_with_a_limit() {
    for definition in definitions() {
        let schema = serde_json::to_value(&definition.spec.versions[0].schema).unwrap();
        unlimited(&schema, "").unwrap();
    }
}

/// Refuses lists, maps and texts without a limit: the API server counts what a rule may cost by them.
fn unlimited(schema: &Value, path: &str) -> Result<(), String> {
    let has = |name: &str| schema.get(name).is_some();
    let is_open = match schema.get("type").and_then(Value::as_str) {
        Some("array") => !has("maxItems"),
        Some("object") => has("additionalProperties") && !has("maxProperties"),
        Some("string") => !has("maxLength") && !has("enum") && !has("format"),
        _ => false,
    };
    let is_own = path.contains("spec");
    if is_open && is_own {
        return Err(format!("{path}: no limit: {schema}"));
    }
    let entries = schema.as_object().into_iter().flatten();
    entries.into_iter().try_for_each(|(name, value)| unlimited(value, &format!("{path}/{name}")))
}

#[test]
fn the_files_of_the_tree_are_these() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/crds");
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    let definitions: Vec<_> = definitions().iter().map(|definition| file(definition).unwrap()).collect();
    let names: Vec<_> = definitions.iter().map(|(name, _)| name.clone()).collect();
    assert_eq!(files, names, "`cargo xtask crds` writes them");
    for (name, text) in definitions {
        let found = std::fs::read_to_string(folder.join(&name)).unwrap();
        assert_eq!(found, text, "{name}: `cargo xtask crds` writes it");
    }
}

#[test]
fn objects_stay_when_a_chart_goes() {
    for definition in definitions() {
        let (name, text) = file(&definition).unwrap();
        assert!(text.contains("helm.sh/resource-policy: keep"), "{name}");
    }
}
