//! The configuration file: YAML, unknown keys refused with their position.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

/// A configuration file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidFile {
    /// It cannot be read.
    #[error("reading the configuration file {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is no YAML, has an unknown key or an invalid value.
    #[error("{}:{line}:{column}: {}{reason}", path.display(), field(key.as_deref()))]
    Content {
        /// The file.
        path: PathBuf,
        /// The line, from 1; 0: unknown.
        line: u64,
        /// The column, from 1.
        column: u64,
        /// The key the position belongs to.
        key: Option<String>,
        /// What is wrong, with the value.
        reason: String,
    },
}

fn field(key: Option<&str>) -> String {
    key.map(|key| format!("{key}: ")).unwrap_or_default()
}

/// Reads the file that was named, or else the default one, and says which it was. A missing file is an error only if
/// it was named.
///
/// # Errors
/// [`InvalidFile`] if it cannot be read or says something invalid.
pub fn load<T: DeserializeOwned + Default>(
    named: Option<PathBuf>,
    default: &str,
) -> Result<(PathBuf, T), InvalidFile> {
    let is_named = named.is_some();
    let path = named.unwrap_or_else(|| PathBuf::from(default));
    let content = match std::fs::read_to_string(&path) {
        Ok(text) => parse(&path, &text)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !is_named => T::default(),
        Err(source) => return Err(InvalidFile::Read { path, source }),
    };
    Ok((path, content))
}

/// Reads the content of the file at `path`, which only errors need.
///
/// # Errors
/// [`InvalidFile::Content`], with the position and the key.
pub fn parse<T: DeserializeOwned + Default>(path: &Path, text: &str) -> Result<T, InvalidFile> {
    // A file of comments only is a document without content.
    if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Ok(T::default());
    }
    let settings = serde_saphyr::options! { with_snippet: false };
    serde_saphyr::from_str_with_options(text, settings).map_err(|error| {
        let location = error.location();
        let line = location.map_or(0, |location| location.line());
        let column = location.map_or(0, |location| location.column());
        let key = key_at(text, line);
        InvalidFile::Content { path: path.to_owned(), line, column, key, reason: reason(&error) }
    })
}

/// The message without the position that it may end with: the position stands in front already.
fn reason(error: &serde_saphyr::Error) -> String {
    let text = error.to_string();
    let end = text.rfind(" at line ").unwrap_or(text.len());
    text.get(..end).unwrap_or(&text).trim_end_matches(':').to_owned()
}

/// The top-level key that the line belongs to: its own, or that of the nearest line above that has one.
fn key_at(text: &str, line: u64) -> Option<String> {
    let count = usize::try_from(line).ok()?;
    let lines: Vec<&str> = text.lines().take(count).collect();
    lines.iter().rev().find_map(|line| {
        let (key, _) = line.split_once(':')?;
        let is_key = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric());
        is_key.then(|| key.to_owned())
    })
}
