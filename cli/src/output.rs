//! What is written: lines, tables and JSON, safe for a terminal and for a pipe that closes.

use std::io::{self, IsTerminal as _, Write as _};

use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;

use crate::failure::Failure;

/// Colours, only used on a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Colour {
    Green,
    Red,
    Yellow,
}

/// Writes a line to standard output.
pub(crate) fn line(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(clean(text).as_bytes())?;
    out.write_all(b"\n")?;
    // A pipe buffers otherwise, and events would come late.
    out.flush()?;
    Ok(())
}

/// Writes a line to standard error.
pub(crate) fn error(text: &str) -> io::Result<()> {
    writeln!(io::stderr().lock(), "{}", clean(text))
}

/// Writes a value: indented for a single result.
pub(crate) fn json(value: &Value) -> Result<(), Failure> {
    line(&format!("{value:#}"))
}

/// Writes a value on one line, for a sequence of results.
pub(crate) fn json_line(value: &Value) -> Result<(), Failure> {
    line(&value.to_string())
}

/// Writes a table with a head line; fits it to a terminal, and writes it whole into a pipe.
pub(crate) fn table<R: IntoIterator<Item = Vec<String>>>(head: &[&str], rows: R) -> Result<(), Failure> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let arrangement =
        if io::stdout().is_terminal() { ContentArrangement::Dynamic } else { ContentArrangement::Disabled };
    table.set_content_arrangement(arrangement).set_header(head.to_vec());
    for row in rows {
        table.add_row(row.iter().map(|cell| clean(cell)).collect::<Vec<_>>());
    }
    for text in table.lines() {
        line(text.trim_end())?;
    }
    Ok(())
}

/// The labels that people gave, of a serialised set: those of namespace, cluster and account are only in JSON.
pub(crate) fn labels(serialised: &str) -> String {
    let given = |label: &&str| !label.is_empty() && !label.starts_with("k8s:io.");
    let shown = |label: &str| label.strip_prefix("k8s:").unwrap_or(label).trim_end_matches('=').to_owned();
    serialised.split(';').filter(given).map(shown).collect::<Vec<_>>().join(" ")
}

/// Colours a word, if standard output is a terminal and `NO_COLOR` is not set.
pub(crate) fn colour(word: &str, colour: Colour) -> String {
    let wanted = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    if wanted { painted(word, colour) } else { word.to_owned() }
}

fn painted(word: &str, colour: Colour) -> String {
    let number = match colour {
        Colour::Green => 32,
        Colour::Red => 31,
        Colour::Yellow => 33,
    };
    format!("{ESCAPE}[{number}m{word}{ESCAPE}[0m")
}

const ESCAPE: char = '\u{1b}';

/// Names come from other machines: control characters in them do not reach the terminal. Our own colours do.
fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let colour = [32, 31, 33, 0]
            .iter()
            .map(|n| format!("{ESCAPE}[{n}m"))
            .find(|code| rest.starts_with(code.as_str()));
        let taken = if let Some(code) = colour {
            out.push_str(&code);
            code.len()
        } else {
            out.push(if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c });
            c.len_utf8()
        };
        rest = rest.get(taken..).unwrap_or_default();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_steer_the_terminal() {
        assert_eq!(clean("a\u{1b}]0;title\u{7}b\r"), "a\u{fffd}]0;title\u{fffd}b\u{fffd}");
        let ours = painted("dropped", Colour::Red);
        assert_eq!(clean(&ours), ours);
        assert_eq!(clean("two\nlines\tgrün"), "two\nlines\tgrün");
    }

    #[test]
    fn labels_are_shown_as_they_were_given() {
        let serialised =
            "k8s:app=db;k8s:io.cilium.k8s.policy.cluster=default;k8s:tier=;reserved:remote-node=;";
        assert_eq!(labels(serialised), "app=db tier reserved:remote-node");
    }

    #[test]
    fn no_colour_without_a_terminal() {
        // Tests run with their output captured or in a pipe.
        if !io::stdout().is_terminal() {
            assert_eq!(colour("dropped", Colour::Red), "dropped");
        }
    }
}
