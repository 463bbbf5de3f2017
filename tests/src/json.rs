//! Reading the programs' JSON output without caring how its keys are written.

use std::net::IpAddr;

use anyhow::{Context, Result};
use serde_json::Value;

/// The value below a path of keys in snake case; keys in camel case are found too.
#[must_use]
pub fn at<'a>(value: &'a Value, path: &[&str]) -> &'a Value {
    static NULL: Value = Value::Null;
    path.iter().fold(value, |value, key| value.get(key).or_else(|| value.get(camel(key))).unwrap_or(&NULL))
}

/// The text there; empty if there is none.
#[must_use]
pub fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    at(value, &[key]).as_str().unwrap_or_default()
}

/// The number there; also one that is written as a string, as 64-bit numbers may be; 0 if there is none.
#[must_use]
pub fn number(value: &Value, key: &str) -> u64 {
    let found = at(value, &[key]);
    found.as_u64().or_else(|| found.as_str()?.parse().ok()).unwrap_or_default()
}

/// Whether there is a `true`.
#[must_use]
pub fn flag(value: &Value, key: &str) -> bool {
    at(value, &[key]).as_bool().unwrap_or_default()
}

/// The list there; the value itself if it is a list and `key` is not in it.
#[must_use]
pub fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    let found = at(value, &[key]).as_array().or_else(|| value.as_array());
    found.map(Vec::as_slice).unwrap_or_default()
}

/// The texts of the list there.
#[must_use]
pub fn texts(value: &Value, key: &str) -> Vec<String> {
    list(value, key).iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// The addresses of the list there, IPv4 first.
pub fn addresses(value: &Value, key: &str) -> Result<Vec<IpAddr>> {
    let parse = |text: String| text.parse().with_context(|| format!("{text:?} in {key} is no address"));
    let mut found: Vec<IpAddr> = texts(value, key).into_iter().map(parse).collect::<Result<_>>()?;
    found.sort();
    Ok(found)
}

fn camel(key: &str) -> String {
    let mut words = key.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |all, word| {
        let (head, tail) = word.split_at(word.len().min(1));
        all + &head.to_uppercase() + tail
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_of_both_forms_are_found() {
        let value =
            json!({"meshAddresses": ["fd00::1", "10.0.0.1"], "last_seen": "12", "deep": {"inSide": true}});
        let expected: Vec<IpAddr> = vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
        assert_eq!(addresses(&value, "mesh_addresses").unwrap(), expected);
        assert_eq!(number(&value, "last_seen"), 12);
        assert!(flag(at(&value, &["deep"]), "in_side"));
        assert_eq!(text(&value, "absent"), "");
    }
}
