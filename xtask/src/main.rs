//! The one runner of the workspace: what a person, `make` and CI start goes through here.

mod bpf;
mod command;
mod workspace;

use std::process::ExitCode;

use clap::Parser;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Builds, checks and runs Outrigger")]
enum Task {
    /// Builds the BPF object `target/bpf/outrigger.bpf.o`.
    Bpf,
}

fn main() -> ExitCode {
    let outcome = match Task::parse() {
        Task::Bpf => bpf::build(),
    };
    outcome.map_or_else(
        |error| {
            // The chain of causes on one line; a backtrace of the runner explains nothing.
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        },
        |()| ExitCode::SUCCESS,
    )
}
