//! Builds everything once and runs the tests: units first, then what needs namespaces and the kernel, two programs at a time.
//!
//! All test runs select the same packages and one profile, so that cargo builds each dependency once.

mod programs;
mod tally;

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{bpf, command, steps::Steps};
use tally::Tally;

/// Tests that are run again with a cluster's API as the gateways' source, but for those of what only a file can say.
const OF_A_CLUSTER: [&str; 11] = [
    "--test",
    "join",
    "--test",
    "policy",
    "--test",
    "restart",
    "--",
    "--skip",
    "that_is_no_yaml",
    "--skip",
    "that_was_never_valid",
];

/// Builds and runs all tests, and ends with the sum of their results.
pub(crate) fn run() -> Result<()> {
    ensure!(command::read(command::program("id").arg("-u"))?.trim() == "0", "the end-to-end tests need root");
    let mut tally = Tally::default();
    let mut steps = Steps::default();
    steps.run("BPF object", bpf::build)?;
    steps
        .run("build", || command::run(command::cargo().args(["build", "--bins", "--tests", "--examples"])))?;
    // Each run goes on after a failed one: a person wants to see all that is broken.
    steps.note("unit tests", |_| unit_tests(&mut tally));
    steps.note("end-to-end tests", |_| programs::run(&["--test", "*"], "files", &mut tally));
    steps.note("end-to-end tests with a cluster as the source", |_| {
        programs::run(&OF_A_CLUSTER, "kubernetes", &mut tally)
    });
    steps.print(Duration::ZERO);
    println!("{tally}");
    steps.outcome()
}

/// Runs the unit tests and shows their output while counting.
fn unit_tests(tally: &mut Tally) -> Result<()> {
    let mut cargo = command::cargo();
    cargo.args(["test", "--no-fail-fast", "--lib", "--bins"]);
    if stream(&mut cargo, tally)? { Ok(()) } else { bail!("cargo test --lib --bins failed") }
}

fn stream(command: &mut Command, tally: &mut Tally) -> Result<bool> {
    let mut child = command.stdout(Stdio::piped()).spawn().context("start cargo test")?;
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).split(b'\n') {
            let line = line.context("read the output of cargo test")?;
            let line = String::from_utf8_lossy(&line);
            println!("{line}");
            tally.read(&line);
        }
    }
    Ok(child.wait().context("wait for cargo test")?.success())
}
