//! The agent on the host: enrolment, session, reconciliation, BPF maps and links.
//!
//! Tasks know each other by channels only. [`operations`] owns the membership and publishes it as a latest value;
//! session, renewal, recorder and monitor follow it; the reconciler is the only one that changes the kernel. When the
//! agent ends, for whatever reason, what the kernel runs goes on.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use telemetry::listener::Listener;
use telemetry::pulse::Pulses;
use telemetry::shutdown::Shutdown;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

pub mod admin;
pub mod agent;
pub mod announce;
pub mod config;
pub mod credentials;
mod echo;
pub mod enrolment;
pub mod failsafe;
pub mod kernel;
pub mod lock;
pub mod machine;
pub mod member;
pub mod memory;
pub mod metrics;
pub mod monitor;
pub mod nic;
pub mod operations;
pub mod probes;
pub mod reconciler;
pub mod recorder;
pub mod renewal;
pub mod selection;
pub mod session;
pub mod state_dir;
pub mod transits;
pub mod transport;

use agent::{Agent, ENFORCEMENT};
use config::Config;
use machine::Machine;
use state_dir::StateDir;

/// No step of the kernel's owner takes so long.
const LONGEST_STEP: Duration = Duration::from_secs(30);
/// A join that asks several gateways in vain takes the longest.
const LONGEST_OPERATION: Duration = Duration::from_mins(5);

/// Runs the agent until shutdown; the only place that starts tasks.
///
/// # Errors
/// What is missing at start: rights, the state folder, the machine's id, the socket, the metrics port.
pub async fn run(config: Config, shutdown: Shutdown) -> anyhow::Result<()> {
    anyhow::ensure!(
        nix::unistd::geteuid().is_root(),
        "the agent changes the kernel's network: run it as root"
    );
    telemetry::files::raise_limit();
    let _device = lock::DeviceLock::take(&config.device.to_string())?;
    let state = StateDir::open(&config.state_dir, &config.mesh.to_string())?;
    let machine = Machine::observe(&config.machine_id_file, &config.dmi_uuid_file)?;
    let socket = UnixListener::from_std(::config::bind_socket(&config.socket(), "agent")?)?;
    let metrics_listen = config.metrics_listen;
    let agent = Arc::new(Agent::new(config, state, machine, pki::system_time()));
    agent.health.declare(ENFORCEMENT, "starting");

    let events = monitor::Events::default();
    let registry = Arc::new(metrics::registry(agent.clone(), events.clone()));
    let listener = Listener::bind(metrics_listen, registry, agent.health.clone()).await?;
    let (commands, inbox) = mpsc::channel(8);
    let (reconciles, kernels) = mpsc::channel(1);
    let (started, has_started) = oneshot::channel();

    let mut tasks = JoinSet::new();
    let operations = operations::Operations::new(agent.clone(), inbox, reconciles, rng());
    let pulses = Pulses::default();
    let limit = telemetry::service::watchdog_interval().unwrap_or(LONGEST_STEP);
    tasks.spawn(reconciler::run(kernels, pulses.declare("kernel", limit)));
    tasks.spawn(operations.run(started, pulses.declare("operations", LONGEST_OPERATION.max(limit))));
    tasks.spawn(telemetry::service::watch(pulses));
    tasks.spawn(session::run(agent.clone(), rng()));
    tasks.spawn(renewal::run(agent.clone(), rng()));
    tasks.spawn(recorder::run(agent.clone()));
    tasks.spawn(memory::run(agent.clone()));
    tasks.spawn(nic::run(agent.clone()));
    tasks.spawn(probes::run(agent.clone()));
    tasks.spawn(transits::run(agent.clone()));
    tasks.spawn(monitor::run(agent.clone(), events.clone()));
    tasks.spawn(listener.serve(shutdown.clone()));
    let service = admin::Service::new(agent.clone(), commands, events, shutdown.clone());
    tasks.spawn(admin::serve(socket, service, shutdown.clone()));
    tasks.spawn(announce::run(agent, has_started));

    let ended = tokio::select! {
        // First, because tasks end with it.
        biased;
        () = shutdown.wait() => Ok(()),
        // None of them ends before shutdown: one that does has failed, and a restart is better than half an agent.
        ended = end(&mut tasks) => if shutdown.is_triggered() { Ok(()) } else { ended },
    };
    telemetry::service::stopping();
    tasks.shutdown().await;
    ended
}

/// Waits for a task to end that must not.
async fn end(tasks: &mut JoinSet<()>) -> anyhow::Result<()> {
    match tasks.join_next().await {
        Some(Err(error)) => Err(error).context("a task of the agent failed"),
        Some(Ok(())) | None => anyhow::bail!("a task of the agent ended"),
    }
}

/// Decides about waits only, never about keys.
fn rng() -> StdRng {
    StdRng::from_rng(&mut rand::rng())
}
