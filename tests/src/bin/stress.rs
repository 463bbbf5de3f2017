//! `make stress`.

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use e2e::stress::{Broken, Options, run};

/// Changes, kills and floods while probes flow, and a checker that finds every packet that no generation explains. Needs
/// root. Ends with a table, and with code 1 if anything was found; Ctrl-C ends it early.
#[derive(Debug, Parser)]
#[command(name = "stress")]
struct Arguments {
    /// How long.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// What is random; a run prints its own. [default: the time]
    #[arg(long)]
    seed: Option<u64>,
    /// Policies changed a second.
    #[arg(long, default_value_t = 100)]
    policies: u32,
    /// Endpoints changed a second.
    #[arg(long, default_value_t = 1000)]
    endpoints: u32,
    /// Probes a second on each flow.
    #[arg(long, default_value_t = 25)]
    rate: u32,
    /// Only change: kill, cut and flood nothing.
    #[arg(long)]
    calm: bool,
    /// Be wrong about one flow, to see that the checker finds it.
    #[arg(long, value_enum)]
    break_truth: Option<Broken>,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let summary = run(&Options {
        seconds: arguments.seconds,
        seed: arguments.seed.unwrap_or_else(|| e2e::wait::monotonic_ns() / 1000),
        policies: arguments.policies,
        endpoints: arguments.endpoints,
        rate: arguments.rate,
        trouble: !arguments.calm,
        broken: arguments.break_truth,
    })?;
    Ok(if summary.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
