#![expect(clippy::needless_pass_by_value, reason = "a call with a literal reads better")]

use serde_json::json;

use super::*;
use crate::apiserver::kind::Shape;
use crate::apiserver::kinds::Kinds;
use crate::apiserver::schema::Schema;

/// A kind with a map, a list by keys, a set and a list that is one value.
fn kind() -> Kind {
    let schema = json!({
        "type": "object",
        "properties": {"spec": {"type": "object", "properties": {
            "a": {"type": "string"},
            "b": {"type": "string"},
            "deep": {"type": "object", "properties": {"c": {"type": "string"}}},
            "ports": {
                "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object", "properties": {"name": {"type": "string"}, "port": {"type": "integer"}}},
            },
            "names": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
            "one": {"type": "array", "items": {"type": "string"}},
        }}},
    });
    let mut kind = Kind::clone(&Kinds::built_in().get("", "v1", "configmaps").unwrap());
    kind.shape = Shape::Custom(std::sync::Arc::new(Schema::root(&schema, "").unwrap()));
    kind
}

fn spec(spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", "namespace": "default"}, "spec": spec})
}

fn apply(old: &Value, wish: Value, name: &str, force: bool) -> Answer<Value> {
    applied(&kind(), old, &spec(wish), Manager { name, sub: "" }, force)
}

/// What a manager is said to manage.
fn fields_of(object: &Value, manager: &str) -> Value {
    let entry = entries(object).into_iter().find(|entry| entry.manager == manager);
    entry.map(|entry| entry.fields.show()).unwrap_or_default()
}

#[test]
fn what_is_no_longer_applied_is_removed_unless_another_manages_it() {
    let first =
        apply(&spec(json!({})), json!({"a": "1", "b": "1", "deep": {"c": "1"}}), "one", false).unwrap();
    let second = apply(&first, json!({"a": "1"}), "two", false).unwrap();
    assert_eq!(fields_of(&second, "two"), json!({"f:spec": {"f:a": {}}}));
    let third = apply(&second, json!({"b": "2"}), "one", false).unwrap();
    assert_eq!(
        third["spec"],
        json!({"a": "1", "b": "2"}),
        "the other still wants a, nobody wants what was deep"
    );
    assert_eq!(fields_of(&third, "one"), json!({"f:spec": {"f:b": {}}}));
}

#[test]
fn another_value_is_a_conflict_and_force_takes_the_field() {
    let first = apply(&spec(json!({})), json!({"a": "1", "b": "1"}), "one", false).unwrap();
    let failure = apply(&first, json!({"a": "2", "b": "1"}), "two", false).unwrap_err();
    assert_eq!(
        (failure.code, failure.message.as_str()),
        (409, "Apply failed with 1 conflict: conflict with \"one\": .spec.a")
    );
    let forced = apply(&first, json!({"a": "2", "b": "1"}), "two", true).unwrap();
    assert_eq!(forced["spec"], json!({"a": "2", "b": "1"}));
    assert_eq!(fields_of(&forced, "one"), json!({"f:spec": {"f:b": {}}}), "equal values are shared");
}

#[test]
fn items_are_told_apart_by_their_keys_and_values() {
    let ports = |port: u16| json!({"ports": [{"name": "http", "port": port}], "names": ["x"], "one": ["p"]});
    let first = apply(&spec(json!({})), ports(80), "one", false).unwrap();
    let more = json!({"ports": [{"name": "dns", "port": 53}], "names": ["y"]});
    let second = apply(&first, more, "two", false).unwrap();
    assert_eq!(second["spec"]["ports"], json!([{"name": "http", "port": 80}, {"name": "dns", "port": 53}]));
    assert_eq!(second["spec"]["names"], json!(["x", "y"]));
    let failure = apply(&second, json!({"ports": [{"name": "http", "port": 81}]}), "two", false).unwrap_err();
    assert!(failure.message.ends_with(".spec.ports[name=\"http\"].port"), "{}", failure.message);
    assert_eq!(
        apply(&second, json!({"one": ["q"]}), "two", false).unwrap_err().code,
        409,
        "a list that is one value"
    );
    let third = apply(&second, json!({"names": ["x"]}), "one", false).unwrap();
    assert_eq!(third["spec"], json!({"ports": [{"name": "dns", "port": 53}], "names": ["x", "y"]}));
}

#[test]
fn other_writes_own_what_they_change() {
    let first = apply(&spec(json!({})), json!({"a": "1", "b": "1"}), "one", false).unwrap();
    let mut edited = first.clone();
    edited["spec"]["a"] = json!("2");
    note(&kind(), Some(&first), &mut edited, Manager { name: "editor", sub: "" });
    assert_eq!(fields_of(&edited, "editor"), json!({"f:spec": {"f:a": {}}}));
    assert_eq!(fields_of(&edited, "one"), json!({"f:spec": {"f:b": {}}}));
    let failure = apply(&edited, json!({"a": "1", "b": "1"}), "one", false).unwrap_err();
    assert!(failure.message.contains("conflict with \"editor\" using v1: .spec.a"), "{}", failure.message);
    let mut same = edited.clone();
    note(&kind(), Some(&edited), &mut same, Manager { name: "third", sub: "" });
    assert_eq!(same, edited, "nothing was changed, and nobody is noted");
}
