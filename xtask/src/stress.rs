//! The stress checker, built with the profile of the tests: whoever ran one has built the other.

use std::process::Command;

use anyhow::Result;

use crate::{bpf, command, workspace};

/// Builds it; the command that runs it.
pub(crate) fn command(arguments: &[String]) -> Result<Command> {
    bpf::build()?;
    command::run(command::cargo().args(["build", "--bins"]))?;
    let mut stress = command::program(workspace::target().join("debug/stress"));
    stress.args(arguments);
    Ok(stress)
}
