//! `make demo`; `KEEP=1` leaves everything running at the end.

use std::process::ExitCode;

use anyhow::Result;

fn main() -> Result<ExitCode> {
    let keep = std::env::var("KEEP").is_ok_and(|value| !value.is_empty() && value != "0");
    let met = e2e::demo::run(keep)?;
    Ok(if met { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
