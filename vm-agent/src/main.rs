//! `outrigger-agent`: the daemon on a host of the mesh.

use std::process::ExitCode;

use clap::Parser as _;
use telemetry::{logging, shutdown::Shutdown};
use vm_agent::config::{Arguments, Config};

#[tokio::main]
async fn main() -> ExitCode {
    match start().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("outrigger-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn start() -> anyhow::Result<()> {
    let config = Config::load(Arguments::parse())?;
    logging::init(config.log_format, &config.log_level)?;
    vm_agent::run(config, Shutdown::on_signals()?).await
}
