//! What a person is told: lines, tables, JSON and causes, safe for a terminal and for a pipe that closes. A pipe that is
//! closed is an error of its kind (`BrokenPipe`), which is for the caller to take for none.

use std::error::Error;
use std::io::{self, IsTerminal as _, Write as _};

use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;

/// Colours, only used on a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// Well.
    Green,
    /// Not well.
    Red,
    /// To be looked at.
    Yellow,
}

const ESCAPE: char = '\u{1b}';

/// Writes a line to standard output.
///
/// # Errors
/// The operating system's.
pub fn line(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(clean(text).as_bytes())?;
    out.write_all(b"\n")?;
    // A pipe buffers otherwise, and events would come late.
    out.flush()
}

/// Writes a line for a person to standard error; nobody is left to tell where that is closed.
pub fn note(text: &str) {
    let _closed = writeln!(io::stderr().lock(), "{}", clean(text));
}

/// An error with its causes on one line; many errors name their cause themselves, which is then not said again.
#[must_use]
pub fn causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        next = cause.source();
    }
    text
}

/// Writes a value: indented for a single result.
///
/// # Errors
/// The operating system's.
pub fn json(value: &Value) -> io::Result<()> {
    line(&format!("{value:#}"))
}

/// Writes a value on one line, for a sequence of results.
///
/// # Errors
/// The operating system's.
pub fn json_line(value: &Value) -> io::Result<()> {
    line(&value.to_string())
}

/// Writes a table with a head line; fits it to a terminal, and writes it whole into a pipe.
///
/// # Errors
/// The operating system's.
pub fn table(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> io::Result<()> {
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
///
/// # Errors
/// The operating system's.
pub fn list(entries: &[(&str, String)]) -> io::Result<()> {
    let width = entries.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 2;
    let mut filled = entries.iter().filter(|(_, value)| !value.is_empty());
    filled.try_for_each(|(name, value)| line(&format!("{:width$}{value}", format!("{name}:"))))
}

/// Colours a word, if standard output is a terminal and `NO_COLOR` is not set.
#[must_use]
pub fn colour(word: &str, colour: Colour) -> String {
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

    #[derive(Debug)]
    struct Failed(&'static str, io::Error);

    impl std::fmt::Display for Failed {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Failed {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.1)
        }
    }

    #[test]
    fn a_cause_is_said_once() {
        for text in ["cannot write /x", "cannot write /x: no space"] {
            assert_eq!(causes(&Failed(text, io::Error::other("no space"))), "cannot write /x: no space");
        }
    }

    #[test]
    fn no_colour_without_a_terminal() {
        // Tests run with their output captured or in a pipe.
        if !io::stdout().is_terminal() {
            assert_eq!(colour("dropped", Colour::Red), "dropped");
        }
    }
}
