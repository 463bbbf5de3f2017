//! The work tree that mutants are planted in, with build results of its own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use super::patch::{Patch, Test};
use crate::{command, workspace};

/// Longer than any test takes on a busy machine; a mutant that hangs must not stop the others.
const LIMIT: &str = "400";

/// What `timeout` exits with when it ended the command.
const TIMED_OUT: i32 = 124;

/// A checkout of what is committed or changed in a tracked file.
pub(super) struct Tree {
    root: PathBuf,
    /// Whether the BPF object is of other sources than the tree's.
    stale_bpf: bool,
}

/// How a test ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Passed,
    Failed,
    Hung,
    NotFound,
    NotCompiled,
}

impl Tree {
    /// Makes the tree, or brings the one of last time up to date: only files that differ are written, so that cargo
    /// builds only what changed.
    pub(super) fn prepare() -> Result<Self> {
        let root = workspace::target().join("mutants/tree");
        let commit = commit()?;
        if root.join(".git").exists() {
            command::run(git(&root).args(["checkout", "--quiet", "--force", "--detach", &commit]))?;
            command::run(git(&root).args(["clean", "--quiet", "--force", "-d"]))?;
        } else {
            command::run(git(workspace::root()).args(["worktree", "prune"]))?;
            let mut add = git(workspace::root());
            add.args(["worktree", "add", "--quiet", "--force", "--detach"]).arg(&root).arg(&commit);
            command::run(&mut add)?;
            for results in ["debug", "bpf-build/bpf", "bpf-build/bpfel-unknown-none/bpf"] {
                let place = Path::new("target").join(results);
                seed(&workspace::root().join(&place), &root.join(&place))?;
            }
        }
        Ok(Self { root, stale_bpf: true })
    }

    /// Plants a mutant; `false` if its patch does not apply.
    pub(super) fn plant(&self, patch: &Patch) -> Result<bool> {
        let status = git(&self.root).arg("apply").arg(&patch.path).status().context("start git apply")?;
        Ok(status.success())
    }

    /// Removes what was planted.
    pub(super) fn clean(&self) -> Result<()> {
        command::run(git(&self.root).args(["checkout", "--quiet", "--force", "."]))?;
        command::run(git(&self.root).args(["clean", "--quiet", "--force", "-d"]))
    }

    /// Builds what tests start; `false` if that fails.
    pub(super) fn build(&mut self, bpf: bool, programs: bool) -> Result<bool> {
        // Tests load the object too: that of the mutant before is as foreign as none.
        if bpf || self.stale_bpf {
            self.stale_bpf = true;
            if !self.cargo(&["xtask", "bpf"]).status().context("start cargo xtask bpf")?.success() {
                return Ok(false);
            }
            self.stale_bpf = bpf;
        }
        let build =
            ["build", "--quiet", "--bins", "-p", "vm-agent", "-p", "gateway", "-p", "cli", "-p", "e2e"];
        Ok(!programs || self.cargo(&build).status().context("start cargo build")?.success())
    }

    /// Builds and runs one test.
    pub(super) fn test(&self, test: &Test) -> Result<Outcome> {
        let select = ["test", "--quiet", "-p", "e2e", "--test", &test.target];
        let mut build = self.cargo(&select);
        if !build.arg("--no-run").status().context("start cargo test")?.success() {
            return Ok(Outcome::NotCompiled);
        }
        let mut run = self.in_tree(command::program("timeout"));
        run.args([LIMIT, "cargo"]).args(select).args(["--", "--exact", &test.name]);
        let output = run.stderr(Stdio::null()).output().context("start cargo test")?;
        let said = String::from_utf8_lossy(&output.stdout);
        Ok(match output.status.code() {
            Some(TIMED_OUT) => Outcome::Hung,
            _ if said.contains("test result: ok. 1 passed") => Outcome::Passed,
            _ if said.contains("0 passed; 1 failed") => Outcome::Failed,
            _ => Outcome::NotFound,
        })
    }

    fn cargo(&self, arguments: &[&str]) -> Command {
        let mut cargo = self.in_tree(command::program("cargo"));
        cargo.args(arguments);
        cargo
    }

    fn in_tree(&self, mut command: Command) -> Command {
        command.current_dir(&self.root).env_remove("CARGO_TARGET_DIR");
        command
    }
}

fn git(folder: &Path) -> Command {
    let mut git = command::program("git");
    git.arg("-C").arg(folder);
    git
}

/// The commit of what is checked out, with the changes of tracked files that are not committed yet.
fn commit() -> Result<String> {
    let changed = command::read(git(workspace::root()).args(["stash", "create"]))?;
    let commit = match changed.trim() {
        "" => command::read(git(workspace::root()).args(["rev-parse", "HEAD"]))?,
        changed => changed.to_owned(),
    };
    ensure!(!commit.trim().is_empty(), "git names no commit");
    Ok(commit.trim().to_owned())
}

/// Links the built crates of registries to where the tree's cargo will look for them. Those of the workspace are left
/// out: cargo writes them anew, and into the same files.
fn seed(from: &Path, to: &Path) -> Result<()> {
    if !from.is_dir() {
        return Ok(());
    }
    let members = members()?;
    for folder in ["deps", "build", ".fingerprint"] {
        for entry in walkdir::WalkDir::new(from.join(folder)) {
            let entry = entry.context("walk the build results")?;
            let place = entry.path().strip_prefix(from).context("a path below the build results")?;
            if !entry.file_type().is_file() || !is_foreign(place, &members) {
                continue;
            }
            let link = to.join(place);
            if let Some(folder) = link.parent() {
                fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
            }
            fs::hard_link(entry.path(), &link).with_context(|| format!("link {}", link.display()))?;
        }
    }
    Ok(())
}

/// The names of crates and targets of the workspace, as files are called after them.
fn members() -> Result<Vec<String>> {
    let metadata = workspace::metadata()?;
    let packages = metadata.workspace_packages();
    let named = packages.iter().flat_map(|package| {
        let targets = package.targets.iter().map(|target| target.name.clone());
        targets.chain([package.name.to_string()])
    });
    Ok(named.map(|name| name.replace('-', "_")).collect())
}

/// Whether a build result (`deps/libserde-0123.rlib`, `build/serde-0123/out/x`) is of no member of the workspace.
fn is_foreign(place: &Path, members: &[String]) -> bool {
    let Some(name) = place.iter().nth(1) else { return false };
    let name = name.to_string_lossy();
    let Some((name, _)) = name.rsplit_once('-') else { return false };
    let name = name.replace('-', "_");
    let unprefixed = name.strip_prefix("lib").unwrap_or(&name);
    !members.iter().any(|member| *member == name || member == unprefixed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_registries_gave_is_seeded() {
        let members = ["vm_agent".to_owned(), "join".to_owned()];
        let foreign = |place: &str| is_foreign(Path::new(place), &members);
        assert!(foreign("deps/libserde-0123.rlib"));
        assert!(foreign("build/aws-lc-sys-0123/out/x.o"));
        assert!(!foreign("deps/libvm_agent-0123.rlib"));
        assert!(!foreign(".fingerprint/vm-agent-0123/lib-vm_agent"));
        assert!(!foreign("deps/join-0123"));
        assert!(!foreign("deps/loose"));
    }
}
