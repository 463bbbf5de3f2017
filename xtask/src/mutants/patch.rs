//! One mutant: a unified diff with a head that names its test.
//!
//! ```text
//! test: threats_identity threat_09_unknown_outer
//! needs: bpf
//! One line that says what the bug is.
//! diff --git a/… b/…
//! ```

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

/// Where the patches lie.
pub(crate) const FOLDER: &str = "tests/mutants";

/// A planted bug.
#[derive(Clone, Debug)]
pub(crate) struct Patch {
    /// The name of its file without the ending.
    pub(crate) name: String,
    /// Its file.
    pub(crate) path: PathBuf,
    /// The test that has to notice.
    pub(crate) test: Test,
    /// Whether the BPF object is built anew.
    pub(crate) needs_bpf: bool,
    /// Whether agent, gateway and commands are built anew; a test of libraries alone says `needs: nothing`, one that
    /// only loads the BPF object `needs: object`.
    pub(crate) needs_programs: bool,
    /// What the bug is.
    pub(crate) bug: String,
}

/// A test function of the package `e2e`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Test {
    /// The file in `tests/tests`, without its ending.
    pub(crate) target: String,
    /// The path of the function in it.
    pub(crate) name: String,
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.target, self.name)
    }
}

impl Patch {
    /// Reads the head of a patch.
    fn parse(path: &Path, text: &str) -> Result<Self> {
        let name = path.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let (mut noticed_by, mut needs, mut bug) = (None, "", "");
        for line in text.lines().take_while(|line| !line.starts_with("diff --git ")) {
            if let Some(named) = line.strip_prefix("test: ") {
                let (target, function) = named.trim().split_once(' ').context("a target and a test")?;
                noticed_by = Some(Test { target: target.to_owned(), name: function.to_owned() });
            } else if let Some(named) = line.strip_prefix("needs: ") {
                needs = named.trim();
            } else if bug.is_empty() {
                bug = line.trim();
            }
        }
        if !["", "bpf", "object", "nothing"].contains(&needs) {
            bail!("needs `{needs}`; there are `bpf`, `object` and `nothing`");
        }
        if bug.is_empty() {
            bail!("no line says what the bug is");
        }
        Ok(Self {
            name,
            path: path.to_owned(),
            test: noticed_by.context("no line `test: <target> <test>`")?,
            needs_bpf: ["bpf", "object"].contains(&needs),
            needs_programs: ["", "bpf"].contains(&needs),
            bug: bug.to_owned(),
        })
    }

    /// The row of the catalogue that it belongs to: what its name starts with.
    pub(crate) fn row(&self) -> &str {
        self.name.split_once('-').map_or(self.name.as_str(), |(row, _)| row)
    }
}

/// All mutants of the tree at `root`, by name.
pub(crate) fn all(root: &Path) -> Result<Vec<Patch>> {
    let folder = root.join(FOLDER);
    let mut patches = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "patch") {
            let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
            patches.push(Patch::parse(&path, &text).with_context(|| path.display().to_string())?);
        }
    }
    patches.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(patches)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_is_read() {
        let text = "test: threats_identity threat_09_outer\nneeds: bpf\nThe outer source is not compared.\ndiff --git a/x b/x\ntest: a b\n";
        let patch = Patch::parse(Path::new("tests/mutants/09-outer.patch"), text).unwrap();
        assert_eq!((patch.name.as_str(), patch.row()), ("09-outer", "09"));
        assert_eq!(patch.test.to_string(), "threats_identity threat_09_outer");
        assert_eq!(patch.bug, "The outer source is not compared.");
        assert!(patch.needs_bpf && patch.needs_programs);
    }

    #[test]
    fn a_head_without_a_test_or_a_bug_or_with_another_need_is_refused() {
        for text in ["A bug.\n", "test: a b\n", "test: a b\nneeds: luck\nA bug.\n", "test: a\nA bug.\n"] {
            assert!(Patch::parse(Path::new("1-a.patch"), text).is_err(), "{text}");
        }
    }
}
