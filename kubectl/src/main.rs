//! `kubectl outrigger`: what administrators of a cluster do with the mesh, by the cluster's API alone and with their own
//! rights in it. No gateway is asked: what policies do is found out here, by the gateway's own code.

use std::process::ExitCode;

use clap::Parser as _;

mod arguments;
mod cluster;
mod command;
mod failure;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments = arguments::Arguments::parse();
    match command::run(arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
