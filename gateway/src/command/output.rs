//! What is written, for commands that fail where it cannot be.

use clap::ValueEnum;
pub(super) use console::note;
use serde_json::Value;

use super::failure::Failure;

/// How results are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs; names and values stay.
    Json,
}

/// Writes a line to standard output.
pub(super) fn line(text: &str) -> Result<(), Failure> {
    Ok(console::line(text)?)
}

/// Writes a value: indented for a single result.
pub(super) fn json(value: &Value) -> Result<(), Failure> {
    Ok(console::json(value)?)
}

/// Writes a table with a head line.
pub(super) fn table(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> Result<(), Failure> {
    Ok(console::table(head, rows)?)
}

/// Writes names and values under each other; what is empty is left out.
pub(super) fn list(entries: &[(&str, String)]) -> Result<(), Failure> {
    Ok(console::list(entries)?)
}

/// A moment for people; `never` where there is none.
pub(super) fn moment(seconds: i64) -> String {
    match u64::try_from(seconds) {
        Ok(seconds) if seconds > 0 => pki::display_time(crate::store::unix_time(seconds)),
        _ => "never".to_owned(),
    }
}

/// A word for a cell that would be empty.
pub(super) fn or_dash(text: String) -> String {
    if text.is_empty() { "-".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_time_is_never() {
        assert_eq!(moment(0), "never");
        assert_eq!(moment(1), "1970-01-01T00:00:01Z");
    }
}
