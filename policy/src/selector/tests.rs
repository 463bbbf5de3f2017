use serde_json::json;

use super::*;

fn compile(value: serde_json::Value) -> Result<Selector, Vec<String>> {
    let selector: LabelSelector = serde_json::from_value(value).unwrap();
    let mut errors = Vec::new();
    let compiled = selector.compile(labels::OBJECT_PREFIX, "spec.podSelector", &mut errors);
    if errors.is_empty() { Ok(compiled) } else { Err(errors.iter().map(ToString::to_string).collect()) }
}

fn labels(text: &str) -> Labels {
    text.parse().unwrap()
}

#[test]
fn every_operator() {
    let expression = |operator: &str, values: &[&str]| {
        let mut e = json!({"key": "app", "operator": operator});
        if !values.is_empty() {
            e["values"] = json!(values);
        }
        compile(json!({ "matchExpressions": [e] })).unwrap()
    };
    let (db, web, none) = (labels("k8s:app=db;"), labels("k8s:app=web;"), labels("k8s:b=db;"));
    let truth = |s: Selector| [s.matches(&db), s.matches(&web), s.matches(&none)];
    assert_eq!(truth(expression("In", &["db", "x"])), [true, false, false]);
    assert_eq!(truth(expression("NotIn", &["db"])), [false, true, true]);
    assert_eq!(truth(expression("Exists", &[])), [true, true, false]);
    assert_eq!(truth(expression("DoesNotExist", &[])), [false, false, true]);
}

#[test]
fn labels_and_expressions_are_one_conjunction() {
    let s = compile(
        json!({"matchLabels": {"a": "1"}, "matchExpressions": [{"key": "a", "operator": "In", "values": ["2"]}]}),
    );
    assert!(!s.clone().unwrap().matches(&labels("k8s:a=1;")));
    assert!(!s.unwrap().matches(&labels("k8s:a=2;")));
}

#[test]
fn empty_matches_everything() {
    for value in
        [json!({}), json!({"matchLabels": {}}), json!({"matchExpressions": []}), json!({"matchLabels": null})]
    {
        assert!(compile(value).unwrap().matches(&labels("k8s:a=1;")));
    }
}

#[test]
fn values_are_literals() {
    let s = compile(json!({"matchLabels": {"sa": "a.b"}})).unwrap();
    assert!(s.matches(&labels("k8s:sa=a.b;")));
    assert!(!s.matches(&labels("k8s:sa=axb;")));
}

#[test]
fn a_key_of_another_source_does_not_match() {
    let s = compile(json!({"matchExpressions": [{"key": "remote-node", "operator": "Exists"}]})).unwrap();
    assert!(!s.matches(&Labels::of_remote_node()));
}

#[test]
fn errors_name_path_and_value() {
    let errors = compile(json!({
        "matchLabels": {"a b": "c"},
        "matchExpressions": [
            {"key": "x", "operator": "In", "values": []},
            {"key": "x", "operator": "Exists", "values": ["v"]},
            {"key": "", "operator": "DoesNotExist"},
            {"key": "x", "operator": "NotIn", "values": ["ok", "-"]},
        ]
    }))
    .unwrap_err();
    let starts = [
        "spec.podSelector.matchLabels[a b]: label key \"a b\"",
        "spec.podSelector.matchExpressions[0].values: operator In needs",
        "spec.podSelector.matchExpressions[1].values: operator Exists takes no values, got [\"v\"]",
        "spec.podSelector.matchExpressions[2].key: label key \"\"",
        "spec.podSelector.matchExpressions[3].values[1]: label value \"-\"",
    ];
    assert_eq!(errors.len(), starts.len(), "{errors:?}");
    for (error, start) in errors.iter().zip(starts) {
        assert!(error.starts_with(start), "{error}");
    }
}

#[test]
fn unknown_fields_and_operators_are_refused() {
    for value in [
        json!({"matchlabels": {}}),
        json!({"matchExpressions": [{"key": "a", "operator": "in", "values": ["b"]}]}),
        json!({"matchExpressions": [{"key": "a", "operator": "Exists", "value": "b"}]}),
        json!({"matchLabels": {"a": 1}}),
    ] {
        assert!(serde_json::from_value::<LabelSelector>(value.clone()).is_err(), "{value}");
    }
}
