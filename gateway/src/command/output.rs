//! What is written: lines, tables and JSON, safe for a terminal and for a pipe that closes.

use std::io::{self, IsTerminal as _, Write as _};

use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
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
    let mut out = io::stdout().lock();
    out.write_all(clean(text).as_bytes())?;
    out.write_all(b"\n")?;
    out.flush()?;
    Ok(())
}

/// Writes a line for a person to standard error; nobody is left to tell where that is closed.
pub(super) fn note(text: &str) {
    let _closed = writeln!(io::stderr().lock(), "{}", clean(text));
}

/// Writes a value.
pub(super) fn json(value: &Value) -> Result<(), Failure> {
    line(&format!("{value:#}"))
}

/// Writes a table with a head line, fitted to a terminal, whole into a pipe.
pub(super) fn table(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> Result<(), Failure> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let fitted = io::stdout().is_terminal();
    let arrangement = if fitted { ContentArrangement::Dynamic } else { ContentArrangement::Disabled };
    table.set_content_arrangement(arrangement).set_header(head.to_vec());
    for row in rows {
        table.add_row(row.iter().map(|cell| clean(cell)).collect::<Vec<_>>());
    }
    for text in table.lines() {
        line(text.trim_end())?;
    }
    Ok(())
}

/// Writes names and values under each other; what is empty is left out.
pub(super) fn list(entries: &[(&str, String)]) -> Result<(), Failure> {
    let width = entries.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 2;
    for (name, value) in entries.iter().filter(|(_, value)| !value.is_empty()) {
        line(&format!("{:width$}{value}", format!("{name}:")))?;
    }
    Ok(())
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

/// Names come from other machines: control characters in them do not reach the terminal.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_steer_the_terminal() {
        assert_eq!(clean("a\u{1b}[31mb\r"), "a\u{fffd}[31mb\u{fffd}");
        assert_eq!(clean("zwei\nZeilen\tgrün"), "zwei\nZeilen\tgrün");
    }

    #[test]
    fn no_time_is_never() {
        assert_eq!(moment(0), "never");
        assert_eq!(moment(1), "1970-01-01T00:00:01Z");
    }
}
