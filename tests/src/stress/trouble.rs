//! What goes wrong meanwhile: agents and the gateway are killed and stopped.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde::Serialize;

use super::checker::Checker;
use crate::agent::Agent;
use crate::gateway::Gateway;
use crate::wait::monotonic_ns;

/// How often an agent is killed.
const KILL: Duration = Duration::from_secs(1);
/// After so many kills there is peace until all agents have caught up: a window that never closes tells nothing.
const KILLS: usize = 9;
/// How long they may take.
const PEACE: Duration = Duration::from_secs(30);

/// What was done, and when.
#[derive(Debug, Default)]
pub struct Log(Mutex<Vec<Entry>>);

/// One deed.
#[derive(Clone, Debug, Serialize)]
pub struct Entry {
    /// When.
    pub at_ns: u64,
    /// What.
    pub what: String,
}

/// How often what was done.
#[derive(Debug, Default)]
pub struct Counts {
    /// Agents killed.
    pub agents: AtomicU64,
    /// Gateways killed or stopped.
    pub gateways: AtomicU64,
    /// Flows of the flood that nobody answers.
    pub flood: AtomicU64,
    /// Flows of the flood that are answered.
    pub answered: AtomicU64,
    /// Second streams of hosts.
    pub doubles: AtomicU64,
    /// Set while nothing is killed or flooded.
    pub peace: AtomicBool,
}

impl Log {
    /// Notes something.
    pub fn note(&self, what: impl Into<String>) {
        let entry = Entry { at_ns: monotonic_ns(), what: what.into() };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
    }

    /// Everything so far.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Kills agents in turn, one a second, and starts each again at once.
pub fn kill_agents(
    mut agents: Vec<&mut Agent>,
    log: &Log,
    (counts, checker): (&Counts, &Mutex<Checker>),
    stop: &AtomicBool,
) -> Result<()> {
    let mut turn = 0_usize;
    while wait(KILL, stop) {
        if turn > 0 && turn.is_multiple_of(KILLS) {
            log.note("peace");
            counts.peace.store(true, Ordering::Relaxed);
            let late = !catch_up(checker, stop);
            counts.peace.store(false, Ordering::Relaxed);
            log.note(if late { "peace is over before all agents caught up" } else { "peace is over" });
        }
        let count = agents.len();
        let Some(agent) = agents.get_mut(turn % count.max(1)) else { return Ok(()) };
        turn += 1;
        let name = agent.host().name().to_owned();
        if agent.process().is_ok() {
            log.note(format!("kill the agent of {name}"));
            agent.kill()?;
            counts.agents.fetch_add(1, Ordering::Relaxed);
        }
        match agent.launch() {
            Ok(()) => log.note(format!("the agent of {name} is back")),
            Err(error) => log.note(format!("the agent of {name} does not start: {error:#}")),
        }
    }
    for agent in agents {
        if agent.process().is_err() {
            agent.launch()?;
        }
    }
    Ok(())
}

/// Waits until every enforcement point has acknowledged what is the newest revision now; false if it takes too long.
fn catch_up(checker: &Mutex<Checker>, stop: &AtomicBool) -> bool {
    let lock = || checker.lock().unwrap_or_else(PoisonError::into_inner);
    let (newest, since) = (lock().newest(), Instant::now());
    while since.elapsed() < PEACE && wait(Duration::from_millis(100), stop) {
        if lock().all_have(newest) {
            return true;
        }
    }
    false
}

/// Kills and stops the gateway in turn, at times.
pub fn restart_gateway(
    gateway: &mut Gateway,
    seed: u64,
    log: &Log,
    counts: &Counts,
    stop: &AtomicBool,
) -> Result<()> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut kill = true;
    while wait(Duration::from_millis(random.random_range(8000..16_000)), stop) {
        if counts.peace.load(Ordering::Relaxed) {
            continue;
        }
        log.note(if kill { "kill the gateway" } else { "stop the gateway" });
        if gateway.process().is_ok() {
            if kill {
                gateway.kill()?;
            } else {
                gateway.stop()?;
            }
            counts.gateways.fetch_add(1, Ordering::Relaxed);
        }
        kill = !kill;
        match gateway.launch() {
            Ok(()) => log.note("the gateway is back"),
            Err(error) => log.note(format!("the gateway does not start: {error:#}")),
        }
    }
    if gateway.process().is_err() {
        gateway.launch()?;
    }
    Ok(())
}

/// Waits; false if it is the end.
pub fn wait(time: Duration, stop: &AtomicBool) -> bool {
    let until = Instant::now() + time;
    while !stop.load(Ordering::Relaxed) {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return true;
        }
        thread::sleep(left.min(Duration::from_millis(50)));
    }
    false
}
