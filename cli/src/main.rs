//! `outrigger`: the command on a host of the mesh. A thin client of the agent's socket: it decides nothing and
//! keeps no state.

use std::process::ExitCode;

use clap::Parser as _;

mod arguments;
mod command;
mod connection;
mod failure;
mod output;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments = arguments::Arguments::parse();
    match command::run(arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
