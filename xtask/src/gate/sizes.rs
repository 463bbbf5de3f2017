//! Files that can be read at one sitting. Functions are clippy's (`too_many_lines`); here only its limit is checked.

use anyhow::{Context as _, Result};

use super::Finding;
use crate::workspace;

const MAX_FILE_LINES: usize = 500;
const MAX_FUNCTION_LINES: usize = 60;

pub(super) fn check() -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for file in workspace::files()? {
        if file.path.extension().is_some_and(|extension| extension == "rs") {
            findings.extend(file_too_long(&file.name(), &file.text));
        }
    }
    let clippy = workspace::root().join("clippy.toml");
    let configuration = std::fs::read_to_string(&clippy).context("read clippy.toml")?;
    findings.extend(function_limit(&configuration));
    Ok(findings)
}

fn file_too_long(name: &str, text: &str) -> Option<Finding> {
    let lines = text.lines().count();
    (lines > MAX_FILE_LINES)
        .then(|| Finding::new(name, format!("{lines} lines; {MAX_FILE_LINES} is the limit")))
}

fn function_limit(clippy: &str) -> Option<Finding> {
    let limit = clippy
        .lines()
        .find_map(|line| line.strip_prefix("too-many-lines-threshold"))
        .and_then(|rest| rest.trim_start_matches([' ', '=']).trim().parse::<usize>().ok());
    let loose = limit.is_none_or(|limit| limit > MAX_FUNCTION_LINES);
    let problem = format!("too-many-lines-threshold must be {MAX_FUNCTION_LINES} at most");
    loose.then(|| Finding::new("clippy.toml", problem))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_501_lines_is_found() {
        assert_eq!(file_too_long("a.rs", &"\n".repeat(500)), None);
        let finding = file_too_long("a.rs", &"\n".repeat(501)).unwrap();
        assert_eq!(finding, Finding::new("a.rs", "501 lines; 500 is the limit"));
    }

    #[test]
    fn a_loose_or_missing_function_limit_is_found() {
        assert_eq!(function_limit("too-many-lines-threshold = 60\n"), None);
        assert!(function_limit("too-many-lines-threshold = 100\n").is_some());
        assert!(function_limit("allow-unwrap-in-tests = true\n").is_some());
    }
}
