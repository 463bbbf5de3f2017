//! Each value does something, each bad one is refused, and each is explained.

use std::collections::{BTreeMap, BTreeSet};

use e2e::json;
use serde_json::Value;

use super::rendered::{Rendered, chart, companions_yaml, gateway_yaml, object};

/// What Helm sets by itself.
const OF_HELM: &str = "/global";

#[test]
#[ignore = "`cargo xtask ci chart` renders what this reads"]
fn every_value_has_an_effect() {
    let all = Rendered::read();
    let mut seen = BTreeSet::new();
    for effect in json::list(&all.answer, "effects") {
        let expected = effect["see"].as_object().expect("what is to be seen");
        for (place, wanted) in expected {
            for (pointer, wanted) in pointers(place, wanted) {
                assert!(holds(effect, place, &pointer, wanted), "{}: {place} {pointer}", effect["set"]);
                assert!(
                    !holds(&effect["without"], place, &pointer, wanted),
                    "without {} too: {place}",
                    effect["set"]
                );
            }
        }
        seen.extend(leaves(&effect["set"], ""));
    }
    let values = values(&all.answer["schema"], "");
    let untested: Vec<_> = values.iter().filter(|value| !seen.iter().any(|set| is_in(set, value))).collect();
    assert!(untested.is_empty(), "no effect is tested of {untested:?}");
}

/// What is to be seen in an object, or in a text.
fn pointers<'a>(place: &str, wanted: &'a Value) -> Vec<(String, &'a Value)> {
    match wanted.as_object() {
        Some(all) if place != "NOTES" => all.iter().map(|(key, value)| (key.clone(), value)).collect(),
        _ => vec![(String::new(), wanted)],
    }
}

fn holds(case: &Value, place: &str, pointer: &str, wanted: &Value) -> bool {
    let config;
    let object = match place {
        "NOTES" => return json::text(case, "notes").contains(wanted.as_str().expect("a text")),
        "gateway.yaml" => {
            config = serde_saphyr::from_str::<Value>(gateway_yaml(case)).unwrap();
            &config
        }
        "companions.yaml" => {
            let text = companions_yaml(case).unwrap_or("null");
            config = serde_saphyr::from_str::<Value>(text).unwrap();
            &config
        }
        called => object(case, called),
    };
    object.pointer(pointer).unwrap_or(&Value::Null) == wanted
}

#[test]
#[ignore = "`cargo xtask ci chart` renders what this reads"]
fn bad_values_are_refused_with_the_reason() {
    for case in json::list(&Rendered::read().answer, "refused") {
        let (error, says) = (json::text(case, "error"), json::text(case, "says"));
        assert!(!says.is_empty() && error.contains(says), "{}: not `{says}`: {error}", case["set"]);
    }
}

#[test]
#[ignore = "`cargo xtask ci chart` renders what this reads"]
fn the_schema_has_the_values_and_nothing_else() {
    let answer = Rendered::read().answer;
    let defaults: BTreeSet<_> = leaves(&answer["defaults"], "").collect();
    for value in values(&answer["schema"], "") {
        // What is optional within a map or a list has no default.
        let is_there = answer["defaults"].pointer(&value).is_some();
        assert!(is_there || value == "/resources/claims", "values.yaml lacks {value}");
    }
    for set in defaults {
        let known = values(&answer["schema"], "").iter().any(|value| is_in(&set, value));
        assert!(known, "the schema lacks {set}");
    }
}

#[test]
#[ignore = "`cargo xtask ci chart` renders what this reads"]
fn every_value_is_explained() {
    let text = std::fs::read_to_string(chart().join("values.yaml")).unwrap();
    let known: BTreeSet<String> = values(&Rendered::read().answer["schema"], "").into_iter().collect();
    let (mut path, mut above, mut explained) = (Vec::new(), "", BTreeMap::new());
    for line in text.lines() {
        let words = line.trim_start();
        let depth = (line.len() - words.len()) / 2;
        if let Some((key, _)) = words.split_once(':').filter(|_| !words.starts_with(['#', '-'])) {
            path.truncate(depth);
            path.push(key);
            explained.insert(format!("/{}", path.join("/")), above.starts_with('#'));
        }
        above = words;
    }
    // `resources` is explained as a whole.
    let bare = |value: &&String| !value.starts_with("/resources/") && explained.get(*value) != Some(&true);
    let bare: Vec<_> = known.iter().filter(bare).collect();
    assert!(bare.is_empty(), "without a comment: {bare:?}");
}

/// Pointers to the values that the schema has; a map or list of free content is one value.
fn values(schema: &Value, at: &str) -> Vec<String> {
    if at == OF_HELM {
        return Vec::new();
    }
    match schema["properties"].as_object() {
        Some(properties) if schema["type"] == "object" && schema["propertyNames"].is_null() => {
            assert_eq!(schema["additionalProperties"], Value::Bool(false), "{at} takes anything");
            properties.iter().flat_map(|(key, schema)| values(schema, &format!("{at}/{key}"))).collect()
        }
        _ => vec![at.to_owned()],
    }
}

/// Pointers to what is no map, or an empty one.
fn leaves(value: &Value, at: &str) -> Box<dyn Iterator<Item = String>> {
    match value.as_object() {
        Some(map) if !map.is_empty() => {
            let below: Vec<_> =
                map.iter().flat_map(|(key, value)| leaves(value, &format!("{at}/{key}"))).collect();
            Box::new(below.into_iter())
        }
        _ => Box::new(std::iter::once(at.to_owned())),
    }
}

/// Whether a pointer is this value, or something in it.
fn is_in(pointer: &str, value: &str) -> bool {
    pointer.strip_prefix(value).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
