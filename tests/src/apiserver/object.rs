//! Reading and writing what all objects have.

use serde_json::{Map, Value};

/// The text at a JSON pointer; empty if there is none.
pub(super) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

pub(super) fn name(object: &Value) -> &str {
    text(object, "/metadata/name")
}

pub(super) fn namespace(object: &Value) -> &str {
    text(object, "/metadata/namespace")
}

pub(super) fn uid(object: &Value) -> &str {
    text(object, "/metadata/uid")
}

/// Whether it is on its way out.
pub(super) fn is_deleting(object: &Value) -> bool {
    !text(object, "/metadata/deletionTimestamp").is_empty()
}

/// Its finalizers.
pub(super) fn finalizers(object: &Value) -> &[Value] {
    list(object, "/metadata/finalizers")
}

/// The list at a JSON pointer.
pub(super) fn list<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// The map that a value is; what is none becomes an empty one.
pub(super) fn map_mut(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut().unwrap_or_else(|| unreachable!("it has just become one"))
}

/// Its metadata, made if absent.
pub(super) fn meta_mut(object: &mut Value) -> &mut Map<String, Value> {
    map_mut(map_mut(object).entry("metadata").or_insert(Value::Null))
}

/// Sets a field of the metadata.
pub(super) fn set_meta(object: &mut Value, key: &str, value: impl Into<Value>) {
    meta_mut(object).insert(key.to_owned(), value.into());
}

/// Makes a field what it is in another object, or absent if it is there.
pub(super) fn copy_field(from: &Value, to: &mut Value, key: &str) {
    match from.get(key) {
        Some(value) => map_mut(to).insert(key.to_owned(), value.clone()),
        None => map_mut(to).remove(key),
    };
}

/// The same for a field of the metadata.
pub(super) fn copy_meta(from: &Value, to: &mut Value, key: &str) {
    match from.pointer("/metadata").and_then(|meta| meta.get(key)) {
        Some(value) => meta_mut(to).insert(key.to_owned(), value.clone()),
        None => meta_mut(to).remove(key),
    };
}

/// The time as objects carry it.
pub(super) fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A new uid.
pub(super) fn new_uid() -> String {
    let random: u128 = rand::random();
    let hex = format!("{random:032x}");
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
    format!("{}-{}-4{}-a{}-{}", part(0, 8), part(8, 12), part(13, 16), part(17, 20), part(20, 32))
}
