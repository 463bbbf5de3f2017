//! What is written, for commands that fail where it cannot be.

pub(crate) use console::{Colour, colour, note};
use serde_json::Value;

use crate::failure::Failure;

/// Writes a line to standard output.
pub(crate) fn line(text: &str) -> Result<(), Failure> {
    Ok(console::line(text)?)
}

/// Writes a value: indented for a single result.
pub(crate) fn json(value: &Value) -> Result<(), Failure> {
    Ok(console::json(value)?)
}

/// Writes a value on one line, for a sequence of results.
pub(crate) fn json_line(value: &Value) -> Result<(), Failure> {
    Ok(console::json_line(value)?)
}

/// Writes a table with a head line.
pub(crate) fn table(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> Result<(), Failure> {
    Ok(console::table(head, rows)?)
}

/// The labels that people gave, of a serialised set: those of namespace, cluster and account are only in JSON.
pub(crate) fn labels(serialised: &str) -> String {
    let given = |label: &&str| !label.is_empty() && !label.starts_with("k8s:io.");
    let shown = |label: &str| label.strip_prefix("k8s:").unwrap_or(label).trim_end_matches('=').to_owned();
    serialised.split(';').filter(given).map(shown).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_shown_as_they_were_given() {
        let serialised =
            "k8s:app=db;k8s:io.cilium.k8s.policy.cluster=default;k8s:tier=;reserved:remote-node=;";
        assert_eq!(labels(serialised), "app=db tier reserved:remote-node");
    }
}
