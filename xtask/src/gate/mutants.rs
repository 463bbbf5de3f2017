//! The catalogue of threats: each row has tests and mutants, and nothing is without a row.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Stdio,
};

use anyhow::{Context as _, Result};
use regex::Regex;
use walkdir::WalkDir;

use super::Finding;
use crate::{
    command,
    mutants::patch::{self, FOLDER},
    workspace,
};

/// Where the catalogue is.
const DOCUMENT: &str = "docs/security.md";

/// The heading that it stands under.
const HEADING: &str = "## Threat catalogue";

/// Where the tests are.
const TESTS: &str = "tests/tests";

/// What the names of the tests start with.
const PREFIX: &str = "threat_";

/// What one row names, or what exists for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Row {
    tests: BTreeSet<String>,
    mutants: BTreeSet<String>,
}

type Rows = BTreeMap<String, Row>;

/// Compares the catalogue with tests and mutants, and tries whether every patch applies.
pub(super) fn check() -> Result<Vec<Finding>> {
    let root = workspace::root();
    let tests = tests(&root.join(TESTS))?;
    let document = fs::read_to_string(root.join(DOCUMENT)).context("read docs/security.md")?;
    let mut present = Rows::new();
    for test in tests.values().flatten() {
        present.entry(row_of(test).to_owned()).or_default().tests.insert(test.clone());
    }
    let mut findings = Vec::new();
    for patch in patch::all(root)? {
        let place = format!("{FOLDER}/{}.patch", patch.name);
        let function = patch.test.name.rsplit("::").next().unwrap_or_default();
        if !tests.get(&patch.test.target).is_some_and(|names| names.contains(function)) {
            findings.push(Finding::new(&place, format!("no test {}", patch.test)));
        } else if row_of(function) != patch.row() {
            findings.push(Finding::new(&place, format!("{} is a test of another row", patch.test)));
        }
        if !applies(&patch.path)? {
            findings.push(Finding::new(&place, "does not apply"));
        }
        present.entry(patch.row().to_owned()).or_default().mutants.insert(patch.name);
    }
    findings.extend(compare(&catalogue(&document), &present));
    Ok(findings)
}

/// The row that a test is of: what stands behind `threat_` (`threat_09_unknown_outer`: `09`).
fn row_of(test: &str) -> &str {
    let rest = test.strip_prefix(PREFIX).unwrap_or(test);
    rest.split_once('_').map_or(rest, |(row, _)| row)
}

/// The tests of the catalogue, by target: `name.rs`, and the modules in `name/`.
fn tests(folder: &Path) -> Result<BTreeMap<String, BTreeSet<String>>> {
    let function = Regex::new(r"(?m)#\[test\]\s+fn (threat_\w+)\(\)").context("a pattern")?;
    let mut tests: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for entry in WalkDir::new(folder) {
        let entry = entry.context("walk the tests")?;
        let place = entry.path().strip_prefix(folder).context("a path below the tests")?.with_extension("");
        let Some(target) = place.iter().next().filter(|_| entry.file_type().is_file()) else { continue };
        let text = fs::read_to_string(entry.path()).with_context(|| place.display().to_string())?;
        let names = function.captures_iter(&text).filter_map(|found| found.get(1));
        let of_target = tests.entry(target.to_string_lossy().into_owned()).or_default();
        of_target.extend(names.map(|name| name.as_str().to_owned()));
    }
    Ok(tests)
}

/// The rows of the table below the heading: `| 09 | … | `tests` | `mutants` |`.
fn catalogue(document: &str) -> Rows {
    let section = document.lines().skip_while(|line| *line != HEADING).skip(1);
    let lines = section.take_while(|line| !line.starts_with("## ")).filter(|line| line.starts_with('|'));
    let mut rows = Rows::new();
    for line in lines.skip(2) {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [number, .., tests, mutants] = cells.as_slice() else { continue };
        let row = Row { tests: quoted(tests), mutants: quoted(mutants) };
        rows.insert((*number).to_owned(), row);
    }
    rows
}

/// The words in backticks.
fn quoted(cell: &str) -> BTreeSet<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn compare(catalogue: &Rows, present: &Rows) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut found = |row: &str, problem: String| {
        findings.push(Finding::new(DOCUMENT, format!("row {row}: {problem}")));
    };
    let nothing = Row::default();
    for row in catalogue.keys().chain(present.keys()).collect::<BTreeSet<_>>() {
        let named = catalogue.get(row).unwrap_or(&nothing);
        let exists = present.get(row).unwrap_or(&nothing);
        if exists.tests.is_empty() {
            found(row, "it has no test".to_owned());
        }
        if exists.mutants.is_empty() {
            found(row, "it has no mutant".to_owned());
        }
        for (named, exists, what) in
            [(&named.tests, &exists.tests, "test"), (&named.mutants, &exists.mutants, "mutant")]
        {
            for name in named.difference(exists) {
                found(row, format!("there is no {what} `{name}`"));
            }
            for name in exists.difference(named) {
                found(row, format!("the {what} `{name}` is not in the table"));
            }
        }
    }
    findings
}

/// Whether a patch applies to the work tree as it is.
fn applies(patch: &Path) -> Result<bool> {
    let mut git = command::program("git");
    git.arg("-C").arg(workspace::root()).args(["apply", "--check"]).arg(patch);
    Ok(git.stderr(Stdio::null()).status().context("start git apply")?.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(tests: &[&str], mutants: &[&str]) -> Row {
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Row { tests: set(tests), mutants: set(mutants) }
    }

    #[test]
    fn the_table_is_read() {
        let text = "| 1 | a | b | c | d |\n## Threat catalogue\n\n| row | class | tests | mutants |\n|---|---|---|---|\n\
                    | 09 | spoofing | `threat_09_a`, `threat_09_b` | `09-a` |\n## Next\n| 10 | x | y | z |\n";
        let expected = Rows::from([("09".to_owned(), row(&["threat_09_a", "threat_09_b"], &["09-a"]))]);
        assert_eq!(catalogue(text), expected);
    }

    #[test]
    fn what_is_missing_on_either_side_is_found() {
        let whole = Rows::from([("09".to_owned(), row(&["threat_09_a"], &["09-a"]))]);
        assert_eq!(compare(&whole, &whole), []);
        assert_eq!(compare(&Rows::new(), &whole).len(), 2);
        assert_eq!(compare(&whole, &Rows::new()).len(), 4);
        let more = Rows::from([("09".to_owned(), row(&["threat_09_a", "threat_09_b"], &["09-a"]))]);
        let problem = "row 09: the test `threat_09_b` is not in the table";
        assert_eq!(compare(&whole, &more), [Finding::new(DOCUMENT, problem)]);
    }

    #[test]
    fn a_test_belongs_to_the_row_of_its_name() {
        assert_eq!(row_of("threat_09_unknown_outer"), "09");
        assert_eq!(row_of("threat_dos_slow_reader"), "dos");
    }
}
