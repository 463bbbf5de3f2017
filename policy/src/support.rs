//! The support tables of the documentation, for tests that hold them against the code.

use std::collections::BTreeSet;

use serde::de::DeserializeOwned;
use serde_json::json;

const DOCUMENT: &str = include_str!("../../docs/policy.md");

/// The rows of the table below the heading that begins so: what a row is about, and what it says.
pub(crate) fn rows(heading: &str) -> Vec<(&'static str, &'static str)> {
    let (_, section) = DOCUMENT.split_once(heading).unwrap();
    let rows =
        section.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let cells =
        rows.skip(2).map(|line| line.trim_matches(|c| c == '|' || c == ' ').split_once(" | ").unwrap());
    cells.collect()
}

/// The words between backticks that may be names of fields.
pub(crate) fn words(text: &str) -> BTreeSet<&str> {
    let quoted = text.split('`').skip(1).step_by(2);
    let parts = quoted.flat_map(|quoted| quoted.split('.'));
    let is_field = |word: &&str| {
        word.starts_with(|c: char| c.is_ascii_lowercase()) && word.chars().all(|c| c.is_ascii_alphanumeric())
    };
    parts.filter(is_field).collect()
}

/// The fields that a type knows: serde names them when it meets another one.
pub(crate) fn fields<T: DeserializeOwned>() -> BTreeSet<String> {
    let error = serde_json::from_value::<T>(json!({"zzUnknown": 0})).err().unwrap().to_string();
    let (_, known) = error.split_once("expected").unwrap();
    known.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Asserts that the table has every one of these fields, and is about no other.
pub(crate) fn assert_complete(heading: &str, known: &BTreeSet<String>) {
    let rows = rows(heading);
    let named: BTreeSet<&str> =
        rows.iter().flat_map(|(about, says)| [*about, *says]).flat_map(words).collect();
    let missing: Vec<_> = known.iter().filter(|field| !named.contains(field.as_str())).collect();
    assert!(missing.is_empty(), "{heading}: no row has {missing:?}");
    let about: BTreeSet<&str> = rows.iter().flat_map(|(about, _)| words(about)).collect();
    let invented: Vec<_> = about.iter().filter(|word| !known.contains(**word)).collect();
    assert!(invented.is_empty(), "{heading}: no field is called {invented:?}");
}
