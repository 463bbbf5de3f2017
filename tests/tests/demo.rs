//! `make demo`, as a person runs it.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::binaries;

#[test]
fn the_demo_meets_every_expectation_within_a_minute() -> Result<()> {
    let mut command = Command::new(binaries::folder()?.join("demo"));
    let answer = e2e::command::run(command.env_remove("KEEP"), b"", Duration::from_secs(90))?;
    ensure!(answer.succeeded(), "{answer}");
    ensure!(!answer.stdout.contains('\x1b'), "colours without a terminal");
    ensure!(answer.took < Duration::from_mins(1), "took {:?}", answer.took);
    Ok(())
}
