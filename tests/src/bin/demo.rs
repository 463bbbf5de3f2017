//! `make demo`.

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

/// A cluster node with a gateway and two pods, two hosts that join, and a policy that their kernels enforce. Needs
/// root; ends with a table of what was expected, and with code 1 if any of it was not met.
#[derive(Debug, Parser)]
#[command(name = "demo")]
struct Arguments {
    /// Leave everything running at the end, with hints what to try; also KEEP=1.
    #[arg(long)]
    keep: bool,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let keep = arguments.keep || std::env::var("KEEP").is_ok_and(|value| !matches!(value.as_str(), "" | "0"));
    let met = e2e::demo::run(keep)?;
    Ok(if met { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
