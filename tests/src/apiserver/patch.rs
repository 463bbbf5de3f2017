//! Patches that need no knowledge of the object: JSON merge patch (RFC 7386) and JSON patch (RFC 6902).

use serde::Deserialize;
use serde_json::Value;

use super::failure::{Answer, Failure};
use super::object;

/// How a patch is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PatchType {
    /// Server-side apply, which is elsewhere.
    Apply,
    Json,
    Merge,
    Strategic,
}

/// A step of a JSON patch.
#[derive(Deserialize)]
struct Step {
    op: String,
    path: String,
    #[serde(default)]
    from: String,
    #[serde(default)]
    value: Value,
}

/// The object with the patch applied.
pub(super) fn patched(how: PatchType, object: &Value, body: &[u8]) -> Answer<Value> {
    let bad = |error: serde_json::Error| Failure::bad_request(format!("the patch is not valid: {error}"));
    let mut object = object.clone();
    match how {
        PatchType::Json => {
            for step in serde_json::from_slice::<Vec<Step>>(body).map_err(bad)? {
                let (op, path) = (step.op.clone(), step.path.clone());
                apply(&mut object, step).ok_or_else(|| {
                    Failure::new(422, "Invalid", format!("the server rejected our request due to an error in our request: {op} {path:?} cannot be done"))
                })?;
            }
        }
        PatchType::Apply => return Err(Failure::not_implemented("an apply as a patch")),
        PatchType::Merge => merge(&mut object, serde_json::from_slice(body).map_err(bad)?),
        PatchType::Strategic => {
            let patch: Value = serde_json::from_slice(body).map_err(bad)?;
            if let Some(what) = needs_strategy(&patch) {
                let known =
                    "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";
                return Err(Failure::unsupported_media(
                    &format!("application/strategic-merge-patch+json with {what}"),
                    known,
                ));
            }
            merge(&mut object, patch);
        }
    }
    Ok(object)
}

/// RFC 7386.
fn merge(object: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *object = patch;
        return;
    };
    let map = object::map_mut(object);
    for (key, value) in patch {
        if value.is_null() {
            map.remove(&key);
        } else {
            merge(map.entry(key).or_insert(Value::Null), value);
        }
    }
}

/// What in a strategic merge patch is not the same as in a merge patch.
fn needs_strategy(patch: &Value) -> Option<String> {
    if let Some(map) = patch.as_object() {
        let directive = map.keys().find(|key| key.starts_with('$')).map(|key| format!("{key:?}"));
        return directive.or_else(|| map.values().find_map(needs_strategy));
    }
    patch.is_array().then(|| "lists".to_owned())
}

fn apply(object: &mut Value, step: Step) -> Option<()> {
    match step.op.as_str() {
        "add" => add(object, &step.path, step.value),
        "remove" => remove(object, &step.path).map(|_| ()),
        "replace" => {
            *object.pointer_mut(&step.path)? = step.value;
            Some(())
        }
        "test" => (object.pointer(&step.path)? == &step.value).then_some(()),
        "move" => {
            let moved = remove(object, &step.from)?;
            add(object, &step.path, moved)
        }
        "copy" => {
            let copied = object.pointer(&step.from)?.clone();
            add(object, &step.path, copied)
        }
        _ => None,
    }
}

fn add(object: &mut Value, path: &str, value: Value) -> Option<()> {
    let Some((parent, key)) = path.rsplit_once('/') else {
        *object = value;
        return Some(());
    };
    let (parent, key) = (object.pointer_mut(parent)?, unescape(key));
    if let Some(list) = parent.as_array_mut() {
        let index = if key == "-" { list.len() } else { key.parse().ok()? };
        (index <= list.len()).then(|| list.insert(index, value))
    } else {
        parent.as_object_mut()?.insert(key, value);
        Some(())
    }
}

fn remove(object: &mut Value, path: &str) -> Option<Value> {
    let (parent, key) = path.rsplit_once('/')?;
    let (parent, key) = (object.pointer_mut(parent)?, unescape(key));
    if let Some(list) = parent.as_array_mut() {
        let index: usize = key.parse().ok()?;
        (index < list.len()).then(|| list.remove(index))
    } else {
        parent.as_object_mut()?.remove(&key)
    }
}

fn unescape(key: &str) -> String {
    key.replace("~1", "/").replace("~0", "~")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn patch(how: PatchType, object: &Value, patch: &Value) -> Answer<Value> {
        patched(how, object, patch.to_string().as_bytes())
    }

    #[test]
    fn patches_are_applied() {
        let before = json!({"a": {"b": 1, "c": [1, 2]}, "d": "x"});
        let merged = patch(PatchType::Merge, &before, &json!({"a": {"b": null, "c": [3]}, "e": {"f": null}}));
        assert_eq!(merged.unwrap(), json!({"a": {"c": [3]}, "d": "x", "e": {}}));
        let steps = json!([
            {"op": "test", "path": "/d", "value": "x"},
            {"op": "add", "path": "/a/c/-", "value": 3},
            {"op": "remove", "path": "/a/b"},
            {"op": "move", "from": "/d", "path": "/x~1y"},
        ]);
        let done = patch(PatchType::Json, &before, &steps).unwrap();
        assert_eq!(done, json!({"a": {"c": [1, 2, 3]}, "x/y": "x"}));
        let failed = patch(PatchType::Json, &before, &json!([{"op": "test", "path": "/d", "value": "y"}]));
        assert_eq!(failed.unwrap_err().code, 422);
        assert!(patch(PatchType::Strategic, &before, &json!({"a": {"b": 2}})).is_ok());
        assert_eq!(patch(PatchType::Strategic, &before, &json!({"a": {"c": [2]}})).unwrap_err().code, 415);
    }
}
