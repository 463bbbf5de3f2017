//! Lints are set once, for everyone.

use anyhow::{Context as _, Result};
use regex::Regex;

use super::Finding;
use crate::workspace;

/// Lints that the workspace may not lose.
const REQUIRED: [&str; 14] = [
    "all",
    "allow_attributes",
    "as_conversions",
    "expect_used",
    "indexing_slicing",
    "map_err_ignore",
    "missing_docs",
    "mod_module_files",
    "panic",
    "pedantic",
    "undocumented_unsafe_blocks",
    "unsafe_code",
    "unwrap_used",
    "wildcard_enum_match_arm",
];

pub(super) fn check() -> Result<Vec<Finding>> {
    let root = workspace::root().join("Cargo.toml");
    let mut findings = lost(&std::fs::read_to_string(root).context("read Cargo.toml")?);
    for package in workspace::metadata()?.workspace_packages() {
        let manifest = std::fs::read_to_string(&package.manifest_path)
            .with_context(|| format!("read {}", package.manifest_path))?;
        findings.extend(not_inherited(&package.name, &manifest)?);
    }
    Ok(findings)
}

fn not_inherited(package: &str, manifest: &str) -> Result<Option<Finding>> {
    let inherits = Regex::new(r"(?m)^\[lints\]\s*\nworkspace *= *true\s*$")?;
    let problem = "does not inherit the lints: [lints] workspace = true";
    Ok((!inherits.is_match(manifest)).then(|| Finding::new(package, problem)))
}

fn lost(root: &str) -> Vec<Finding> {
    let lints = root.split_once("[workspace.lints").map_or("", |(_, lints)| lints);
    let set = |lint: &str| lints.lines().any(|line| line.split([' ', '=']).next() == Some(lint));
    let missing = REQUIRED.into_iter().filter(|lint| !set(lint));
    missing.map(|lint| Finding::new("Cargo.toml", format!("workspace lint `{lint}` is missing"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crate_with_lints_of_its_own_is_found() {
        assert_eq!(not_inherited("a", "[package]\n[lints]\nworkspace = true\n").unwrap(), None);
        assert!(not_inherited("a", "[package]\n").unwrap().is_some());
        assert!(not_inherited("a", "[lints.rust]\nmissing_docs = \"allow\"\n").unwrap().is_some());
    }

    #[test]
    fn a_lint_taken_out_of_the_workspace_is_found() {
        let lints = REQUIRED.map(|lint| format!("{lint} = \"warn\"\n")).concat();
        let complete = format!("[workspace.lints.rust]\n{lints}");
        assert_eq!(lost(&complete), []);
        let without = complete.replace("unwrap_used", "unwrap_unused");
        assert_eq!(lost(&without), [Finding::new("Cargo.toml", "workspace lint `unwrap_used` is missing")]);
    }
}
