//! The gateway's program: the daemon (`serve`) and the commands that administer it.

use std::process::ExitCode;

use clap::Parser as _;
use gateway::command::Command;

fn main() -> ExitCode {
    gateway::command::main(Command::parse())
}
