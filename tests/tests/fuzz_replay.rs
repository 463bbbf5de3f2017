//! Every input of the fuzz corpora, through the same functions as under the fuzzer, and random ones.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use e2e::fuzz::{self, Shaker, TARGETS, Target};
use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};

/// A corpus holds at least this many inputs, and each input at most this many bytes.
const FEWEST: usize = 5;
const LONGEST: usize = 16 * 1024;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

fn replay((name, target): Target) -> Result<()> {
    let corpus = folder().join("corpus").join(name);
    let mut inputs = 0;
    for entry in std::fs::read_dir(&corpus).with_context(|| corpus.display().to_string())? {
        let path = entry?.path();
        let bytes = std::fs::read(&path).with_context(|| path.display().to_string())?;
        ensure!(bytes.len() <= LONGEST, "{} has {} bytes", path.display(), bytes.len());
        // Shown when the target panics.
        println!("{}", path.display());
        target(&bytes);
        inputs += 1;
    }
    ensure!(inputs >= FEWEST, "{} holds {inputs} inputs", corpus.display());
    Ok(())
}

#[test]
fn the_corpora_break_no_promise() -> Result<()> {
    TARGETS.into_iter().try_for_each(replay)
}

#[test]
fn the_kernel_agrees_on_its_corpus() -> Result<()> {
    replay(("kernel", fuzz::kernel))
}

#[test]
fn the_corpora_changed_at_random_break_no_promise() -> Result<()> {
    for (name, target) in TARGETS {
        let files = std::fs::read_dir(folder().join("corpus").join(name))?;
        let corpus = files.map(|file| Ok(std::fs::read(file?.path())?)).collect::<Result<Vec<_>>>()?;
        let mut shaker = Shaker::new(corpus, 7);
        for _ in 0..500 {
            target(&shaker.next_input());
        }
    }
    Ok(())
}

#[test]
fn random_bytes_break_no_promise() {
    let mut random = StdRng::seed_from_u64(7);
    for round in 0..1000_usize {
        let mut bytes = vec![0; random.random_range(0..=round % 400)];
        random.fill_bytes(&mut bytes);
        for (_, target) in TARGETS {
            target(&bytes);
        }
    }
}

/// Each target is a program of its own under the fuzzer, and each program is a target.
#[test]
fn the_programs_are_the_targets() -> Result<()> {
    let mut programs = Vec::new();
    for entry in std::fs::read_dir(folder().join("fuzz_targets"))? {
        let path = entry?.path();
        programs.push(path.file_stem().context("a name")?.to_string_lossy().into_owned());
    }
    programs.sort();
    let mut targets: Vec<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    targets.push("kernel".to_owned());
    targets.sort();
    assert_eq!(programs, targets);
    Ok(())
}
