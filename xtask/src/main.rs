//! The one runner of the workspace: what a person, `make` and CI start goes through here.

mod bpf;
mod chart;
mod ci;
mod command;
mod conformance;
mod fuzz;
mod gate;
mod kernel;
mod mutants;
mod openbao;
mod python;
mod steps;
mod stress;
mod task;
mod test;
mod workspace;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    task::Task::parse().run().map_or_else(
        |error| {
            // The causes on one line; a backtrace of the runner explains nothing.
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        },
        |()| ExitCode::SUCCESS,
    )
}
