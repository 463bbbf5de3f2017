//! `kubectl outrigger`: what administrators of a cluster do with the mesh, by the cluster's API and with their own rights in
//! it. What only a gateway knows is asked of it by `kubectl exec`.

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
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}
