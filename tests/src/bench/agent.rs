//! What an agent takes on its host: memory and CPU with a large mesh, and how long things take.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::double::Double;
use super::statistics::Median;
use super::usage::{self, Memory};
use super::world::World;
use super::{Measurement, float};
use crate::agent::Agent;
use crate::host::Host;
use crate::net::Net;
use crate::process::Process;
use crate::wait::wait_for;

mod reach;

/// Targets, in megabytes (10⁶ bytes), and as a ratio.
const IDLE: f64 = 20.0;
const LARGE: f64 = 40.0;
const FLAT: f64 = 1.2;
/// Endpoints that one update changes where many change.
const CROWD: usize = 500;
/// For everything that takes long with a large mesh on a slow machine.
const LONG: Duration = Duration::from_mins(1);

/// How much there is and how much is changed.
struct Extent {
    pods: usize,
    identities: u32,
    /// Changes of single endpoints, each awaited.
    single: usize,
    /// Changes of endpoints in all.
    changes: usize,
    starts: usize,
    edits: usize,
}

pub(super) fn measure(quick: bool) -> Result<Vec<Measurement>> {
    let extent = if quick {
        Extent { pods: 100_000, identities: 10_000, single: 20, changes: 100_000, starts: 1, edits: 10 }
    } else {
        Extent { pods: 100_000, identities: 10_000, single: 100, changes: 1_000_000, starts: 5, edits: 40 }
    };
    let mut rows = with_double(&extent)?;
    rows.extend(reach::measure(extent.edits)?);
    Ok(rows)
}

/// An agent on a host, and the double that it joined.
struct Stage {
    _net: Net,
    host: Host,
    agent: Agent,
    process: Process,
    double: Double,
}

impl Stage {
    /// An agent that did not join, and a double that has this mesh.
    fn try_new(pods: usize, identities: u32) -> Result<Self> {
        let net = Net::try_new()?;
        let gateway = net.host("gateway")?;
        let host = net.host("db-1")?;
        let double = Double::start(&gateway, World::new(host.v4(), pods, identities))?;
        let agent = Agent::configured(&host, "")?;
        let process = agent.spawn()?;
        let stage = Self { _net: net, host, agent, process, double };
        wait_for("the agent's socket", LONG, || {
            std::os::unix::net::UnixStream::connect(stage.agent.socket()).is_ok()
        })?;
        Ok(stage)
    }

    fn join(&self) -> Result<()> {
        self.agent.join(self.double.token())?;
        self.double.wait_ack(1, LONG)?;
        Ok(())
    }

    /// Makes a change and waits until it is acknowledged; returns how long that took.
    fn change(&self, change: impl FnOnce(&mut World) -> proto::v1::ResourceSet) -> Result<Duration> {
        let began = Instant::now();
        let generation = self.double.change(change)?;
        Ok(self.double.wait_ack(generation, LONG)?.saturating_duration_since(began))
    }

    /// Ends the agent and starts it again; returns how long it took until it enforced.
    fn restart(&mut self, is_cold: bool) -> Result<Duration> {
        let ended = self.process.stop()?;
        ensure!(ended.success(), "the agent ended with {ended}: {}", self.process.output());
        if is_cold {
            // As after a boot: nothing is pinned, and the device is gone.
            self.host.run(&["ip", "link", "delete", "ogr0"])?.ok()?;
            self.host.run(&["rm", "-r", "/sys/fs/bpf/outrigger"])?.ok()?;
        }
        let began = Instant::now();
        self.process = self.agent.spawn()?;
        wait_for("an agent that enforces", LONG, || usage::is_ready(&self.host))
            .with_context(|| self.process.output())?;
        Ok(began.elapsed())
    }

    fn memory(&self) -> Result<Memory> {
        usage::settled(self.process.id())
    }
}

fn with_double(extent: &Extent) -> Result<Vec<Measurement>> {
    let small = Stage::try_new(10, 2)?;
    let mut rows = memory_rows("idle, not joined", small.memory()?, Some(IDLE));
    small.join()?;
    rows.extend(memory_rows("idle, 12 endpoints", small.memory()?, Some(IDLE)));
    rows.extend(small.cpu_rows("12 endpoints", extent.single)?);
    drop(small);

    let mut large = Stage::try_new(extent.pods, extent.identities)?;
    let began = Instant::now();
    large.join()?;
    let joined = began.elapsed();
    let name = format!("{} endpoints, {} identities", extent.pods, extent.identities);
    rows.push(Measurement::known(&format!("agent, {name}: join to acknowledged"), ms(joined), "ms"));
    let before = large.memory()?;
    rows.extend(memory_rows(&name, before, Some(LARGE)));
    rows.push(Measurement::known(
        &format!("agent, {name}: kernel memory of the maps"),
        usage::map_memory(&large.host)? / 1e6,
        "MB",
    ));
    rows.extend(large.cpu_rows(&name, extent.single)?);
    rows.extend(large.flood(extent.changes)?);
    let after = large.memory()?;
    rows.extend(memory_rows(&format!("after {} changes", extent.changes), after, None));
    rows.push(Measurement::at_most(
        &format!("agent memory: after {} changes / before", extent.changes),
        float(after.rss) / float(before.rss),
        "ratio",
        FLAT,
    ));
    for (what, is_cold) in [("adopting", false), ("cold", true)] {
        let times: Result<Vec<f64>> = (0..extent.starts).map(|_| large.restart(is_cold).map(ms)).collect();
        let median = Median::of(&times?);
        let name = format!("agent, {name}: start to enforcing, {what}");
        rows.push(Measurement::known(&name, median.value, "ms").within([median.low, median.high]));
    }
    rows.extend(memory_rows("restarted", large.memory()?, Some(LARGE)));
    Ok(rows)
}

impl Stage {
    /// CPU and time of changes of one endpoint and of the policy, one after the other.
    fn cpu_rows(&self, name: &str, count: usize) -> Result<Vec<Measurement>> {
        let mut rows = Vec::new();
        for (what, is_policy) in [("one endpoint", false), ("the policy", true)] {
            let before = usage::cpu(self.process.id())?;
            let mut times = Vec::new();
            for number in 0..count {
                let time = self.change(|world| {
                    if is_policy { world.edit_policy() } else { world.relabel(number * 997, 1) }
                })?;
                times.push(ms(time));
            }
            let used = usage::cpu(self.process.id())?.saturating_sub(before);
            // What changes need of the program and the heap, before any of it is given back.
            let busy = format!("agent memory: {name}, right after {count} changes of {what}");
            rows.push(Measurement::known(&busy, float(usage::memory(self.process.id())?.rss) / 1e6, "MB"));
            let median = Median::of(&times);
            let name = format!("agent, {name}: change of {what}");
            let each = ms(used) / float(u64::try_from(count.max(1))?);
            rows.push(Measurement::known(&format!("{name}, CPU"), each, "ms"));
            rows.push(
                Measurement::known(&format!("{name}, sent to acknowledged"), median.value, "ms")
                    .within([median.low, median.high]),
            );
        }
        Ok(rows)
    }

    /// Changes many endpoints as fast as the agent takes them.
    fn flood(&self, changes: usize) -> Result<Vec<Measurement>> {
        let (before, began) = (usage::cpu(self.process.id())?, Instant::now());
        for first in (0..changes).step_by(CROWD) {
            let generation = self.double.change(|world| world.relabel(first, CROWD))?;
            // So many are under way at most: what waits in buffers would be the double's memory, and at last the agent's.
            if generation % 16 == 0 {
                self.double.wait_ack(generation, LONG)?;
            }
        }
        self.double.wait_ack(self.double.generation(), LONG)?;
        let used = usage::cpu(self.process.id())?.saturating_sub(before);
        let count = float(u64::try_from(changes)?);
        Ok(vec![
            Measurement::known(
                &format!("agent: changes of endpoints in updates of {CROWD}, taken"),
                count / began.elapsed().as_secs_f64(),
                "1/s",
            ),
            Measurement::known(
                "agent: CPU per change of an endpoint in these",
                ms(used) * 1000.0 / count,
                "µs",
            ),
        ])
    }
}

fn memory_rows(what: &str, memory: Memory, limit: Option<f64>) -> Vec<Measurement> {
    let megabytes = |bytes: u64| float(bytes) / 1e6;
    let name = format!("agent memory: {what}");
    let resident = match limit {
        Some(limit) => Measurement::at_most(&name, megabytes(memory.rss), "MB", limit),
        None => Measurement::known(&name, megabytes(memory.rss), "MB"),
    };
    vec![
        resident,
        Measurement::known(&format!("{name}, proportional"), megabytes(memory.pss), "MB"),
        Measurement::known(&format!("{name}, without files"), megabytes(memory.anonymous), "MB"),
        Measurement::known(&format!("{name}, peak"), megabytes(memory.peak), "MB"),
    ]
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
