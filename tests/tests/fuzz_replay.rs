//! Every input of the fuzz corpora, through the same functions as under the fuzzer.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use e2e::fuzz::TARGETS;

#[test]
fn the_corpora_break_no_promise() -> Result<()> {
    for (name, target) in TARGETS {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
        let mut inputs = 0;
        for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            target(&std::fs::read(&path).with_context(|| path.display().to_string())?);
            inputs += 1;
        }
        ensure!(inputs >= 5, "{} holds {inputs} inputs", folder.display());
    }
    Ok(())
}

#[test]
fn a_million_random_bytes_break_no_promise() {
    use rand::{RngExt, SeedableRng};
    let mut random = rand::rngs::StdRng::seed_from_u64(7);
    for round in 0..4000_usize {
        let bytes: Vec<u8> = (0..round % 250).map(|_| random.random()).collect();
        for (_, target) in TARGETS {
            target(&bytes);
        }
    }
}
