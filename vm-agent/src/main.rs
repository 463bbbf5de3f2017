//! `outrigger-agent`: the daemon on a host of the mesh.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;
use telemetry::{logging, shutdown::Shutdown};
use tokio::runtime::Builder;
use vm_agent::config::{Arguments, Config};

/// The agent waits most of the time; more threads would only cost memory.
const THREADS: usize = 2;

fn main() -> ExitCode {
    telemetry::memory::bound(vm_agent::memory::HEAPS);
    let runtime = Builder::new_multi_thread().worker_threads(THREADS).enable_all().build();
    let run = runtime.map_err(anyhow::Error::from).and_then(|runtime| {
        let ended = runtime.block_on(start());
        // What hangs in the kernel or a file system is left to the end of the process.
        runtime.shutdown_timeout(Duration::from_secs(1));
        ended
    });
    match run {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            console::note(&format!("outrigger-agent: {}", console::causes(error.as_ref())));
            ExitCode::FAILURE
        }
    }
}

async fn start() -> anyhow::Result<()> {
    let config = Config::load(Arguments::parse())?;
    logging::init(config.log_format, &config.log_level)?;
    vm_agent::run(config, Shutdown::on_signals()?).await
}
