//! Runs one fuzz target, by the stable compiler: coverage is a pass of LLVM. `cargo fuzz` finds the same layout under
//! `tests`, for those who want the sanitizers of a nightly compiler.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use crate::{bpf, command, workspace};

/// What libFuzzer needs in the code: counters and tables of basic blocks, and the operands of comparisons.
const COVERAGE: [&str; 6] = [
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];

/// What is fuzzed, and how long.
#[derive(Args)]
pub(crate) struct Selection {
    /// The target; without one, all are listed.
    target: Option<String>,
    /// How many inputs are run; without it, until something is found or Ctrl-C.
    #[arg(long)]
    runs: Option<u64>,
    /// Instead of fuzzing, makes the committed corpus the smallest one that reaches what all inputs found here reach.
    #[arg(long, conflicts_with = "runs")]
    minimise: bool,
    /// Changes what was found at random, so many times, without looking at what that reaches: many times faster.
    #[arg(long, value_name = "RUNS", conflicts_with_all = ["runs", "minimise"])]
    shake: Option<u64>,
    /// What the changes are drawn from.
    #[arg(long, default_value_t = 1, requires = "shake")]
    seed: u64,
    /// Arguments of libFuzzer, such as `-max_total_time=60` or a file with one input.
    #[arg(last = true)]
    more: Vec<OsString>,
}

/// The folders of one target.
struct Folders {
    /// Committed.
    corpus: PathBuf,
    /// Found by running here.
    grown: PathBuf,
    /// Inputs that break a promise.
    artifacts: PathBuf,
}

/// Builds and runs the target, or lists all.
pub(crate) fn run(selection: &Selection) -> Result<()> {
    let targets = targets()?;
    let Some(target) = &selection.target else {
        println!("{}", targets.join("\n"));
        return Ok(());
    };
    ensure!(targets.contains(target), "no target `{target}`; there are {}", targets.join(", "));
    let folders = Folders::of(target)?;
    if let Some(runs) = selection.shake {
        return folders.shake(target, runs, selection.seed);
    }
    let program = build(target, &COVERAGE, "target")?;
    if selection.minimise {
        return folders.minimise(&program);
    }
    let mut fuzzer = command::program(program);
    // What it finds goes to the first folder.
    fuzzer.arg(&folders.grown).arg(&folders.corpus);
    fuzzer.arg(format!("-artifact_prefix={}/", folders.artifacts.display()));
    // Its entropic choice of inputs takes longer than most targets do.
    fuzzer.args(["-max_len=4096", "-timeout=20", "-entropic=0"]);
    fuzzer.args(selection.runs.map(|runs| format!("-runs={runs}")));
    command::replace_by(fuzzer.args(&selection.more))
}

fn home() -> PathBuf {
    workspace::root().join("tests/fuzz")
}

fn targets() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(home().join("fuzz_targets")).context("list the fuzz targets")? {
        let path = entry?.path();
        names.extend(path.file_stem().map(|name| name.to_string_lossy().into_owned()));
    }
    names.sort();
    Ok(names)
}

/// Builds a program with these flags of the compiler and returns it; `results` is the folder of what is built.
fn build(program: &str, flags: &[&str], results: &str) -> Result<PathBuf> {
    bpf::build()?;
    let about = command::read(command::program("rustc").arg("-vV"))?;
    let host = about.lines().find_map(|line| line.strip_prefix("host: ")).context("`rustc -vV`: no host")?;
    let results = home().join(results);
    let mut cargo = command::cargo();
    cargo.current_dir(home()).env_remove("CARGO_TARGET_DIR");
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    // With a target of its own, what runs during the build is built without coverage.
    cargo.args(["build", "--release", "--target", host, "--bin", program, "--target-dir"]).arg(&results);
    command::run(&mut cargo)?;
    Ok(results.join(host).join("release").join(program))
}

impl Folders {
    fn of(target: &str) -> Result<Self> {
        let folders = Self {
            corpus: home().join("corpus").join(target),
            grown: home().join("target/corpus").join(target),
            artifacts: home().join("artifacts").join(target),
        };
        for folder in [&folders.corpus, &folders.grown, &folders.artifacts] {
            fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        }
        Ok(folders)
    }

    fn shake(&self, target: &str, runs: u64, seed: u64) -> Result<()> {
        let mut shake = command::program(build("shake", &COVERAGE[..1], "target/plain")?);
        shake.args([target, &runs.to_string(), &seed.to_string()]);
        command::replace_by(shake.arg(&self.artifacts).arg(&self.grown).arg(&self.corpus))
    }

    /// Inputs with a name that a person gave are kept; those that libFuzzer named by their hash are chosen anew.
    fn minimise(&self, program: &PathBuf) -> Result<()> {
        let chosen = self.grown.with_extension("chosen");
        // Left behind by a run that was interrupted; there may be none.
        let _was_absent = fs::remove_dir_all(&chosen);
        fs::create_dir_all(&chosen).with_context(|| format!("make {}", chosen.display()))?;
        let mut fuzzer = command::program(program);
        fuzzer.args(["-set_cover_merge=1", "-use_counters=0", "-max_len=4096"]);
        command::run(fuzzer.arg(&chosen).arg(&self.corpus).arg(&self.grown))?;
        for entry in fs::read_dir(&self.corpus)? {
            let path = entry?.path();
            if path.file_name().is_some_and(|name| is_hash(&name.to_string_lossy())) {
                fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
            }
        }
        for entry in fs::read_dir(&chosen)? {
            let entry = entry?;
            let to = self.corpus.join(entry.file_name());
            fs::copy(entry.path(), &to).with_context(|| format!("write {}", to.display()))?;
        }
        fs::remove_dir_all(&chosen).with_context(|| format!("remove {}", chosen.display()))
    }
}

/// Whether a file's name is SHA-1 of its content, as libFuzzer names inputs.
fn is_hash(name: &str) -> bool {
    name.len() == 40 && name.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_with_names_are_told_from_those_with_hashes() {
        assert!(is_hash("da39a3ee5e6b4b0d3255bfef95601890afd80709"));
        assert!(!is_hash("tcp4-handshake") && !is_hash("da39a3ee"));
    }

    #[test]
    fn every_target_has_a_corpus() {
        for target in targets().unwrap() {
            assert!(home().join("corpus").join(&target).is_dir(), "{target}");
        }
    }
}
