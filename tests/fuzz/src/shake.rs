//! `shake TARGET RUNS SEED ARTIFACTS FOLDER…`: runs a target with the inputs of folders, changed at random.

use std::panic::catch_unwind;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;
use std::{env, fs};

use e2e::fuzz::{Shaker, TARGETS, kernel};

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [name, runs, seed, artifacts, folders @ ..] = arguments.as_slice() else {
        eprintln!("shake TARGET RUNS SEED ARTIFACTS FOLDER…");
        return ExitCode::FAILURE;
    };
    let known = TARGETS.into_iter().find(|(target, _)| target == name).map(|(_, run)| run);
    let run = known.unwrap_or(kernel);
    let (runs, seed): (u64, u64) = (runs.parse().expect("a number of runs"), seed.parse().expect("a seed"));
    let files = folders.iter().flat_map(|folder| fs::read_dir(folder).expect("a folder of inputs"));
    let corpus: Vec<_> =
        files.map(|file| fs::read(file.expect("a file").path()).expect("an input")).collect();
    println!("{} inputs of {name}", corpus.len());
    let (start, mut shaker) = (Instant::now(), Shaker::new(corpus, seed));
    for done in 1..=runs {
        let input = shaker.next_input();
        if catch_unwind(|| run(&input)).is_err() {
            let place = Path::new(artifacts).join(format!("shaken-{seed}-{done}"));
            fs::write(&place, &input).expect("a folder for what is found");
            println!("run {done} breaks a promise: {}", place.display());
            return ExitCode::FAILURE;
        }
        if done % 1_000_000 == 0 || done == runs {
            println!("{done} runs in {} s", start.elapsed().as_secs());
        }
    }
    ExitCode::SUCCESS
}
