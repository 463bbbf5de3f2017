//! The gateway with many agents, each on its own TCP and TLS connection with its own certificate: what a connection
//! costs in memory, what a change costs in time and CPU, what silence costs, and how long it takes until all are back
//! after the gateway was killed. Gateway and agents share the machine's CPUs.

mod bed;
pub(super) mod cluster;
pub mod swarm;
mod usage;

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::{Measurement, float};
use crate::cluster::allow_ingress;
use crate::wait::{monotonic_ns, wait_for};
use bed::Bed;
use usage::Cpu;

/// Agents.
const FEW: u32 = 1_000;
const MANY: u32 = 10_000;

/// Bytes of a connection in the gateway's own memory.
const MEMORY: f64 = 65_536.0;
/// Milliseconds from a saved file until the gateway has the last agent's acknowledgement, in the median.
const CHANGE_MS: f64 = 250.0;
/// Microseconds of the gateway's CPU for one change on one stream.
const CPU_US: f64 = 10.0;
/// Seconds until all agents are back after the gateway was killed.
const STORM_S: f64 = 10.0;
/// What agents that are up to date are sent when they come back, as a share of the whole state.
const RESUME: f64 = 0.01;

/// Changes that are measured, and those before that are not.
const CHANGES: usize = 60;
const WARM_UP: usize = 4;
/// Changes that come one after the other without a look at who has them, and the time between two.
const RUSH: usize = 500;
const RUSH_PACE: Duration = Duration::from_millis(10);
/// How long the gateway gathers changes at most.
const LAST_OF_RUSH: Duration = Duration::from_millis(200);
/// How long silence is watched: twice the time between keepalives.
const SILENCE: Duration = Duration::from_mins(1);
/// How long a change may take, and the return of all: what is slow is a result, what hangs is an error.
const LIMIT: Duration = Duration::from_mins(5);

/// Measures with few and with many agents; where it shall be quick, with few.
pub(super) fn measure(quick: bool) -> Result<Vec<Measurement>> {
    let counts: &[u32] = if quick { &[FEW] } else { &[FEW, MANY] };
    let measured = counts.iter().map(|agents| measure_with(*agents)).collect::<Result<Vec<_>>>()?;
    Ok(measured.concat())
}

fn measure_with(agents: u32) -> Result<Vec<Measurement>> {
    let mut measured = Measured { agents, results: Vec::new() };
    println!("gateway: {agents} agents join");
    let mut bed = Bed::try_new(agents)?;
    let kernel = (usage::buffers()?, usage::kernel_objects()?);
    let before = usage::rested(bed.pid()?)?;
    println!("gateway: {agents} agents connect");
    let connected = bed.connect()?;
    measured.memory(&mut bed, before, kernel)?;
    println!("gateway: {CHANGES} changes");
    measured.changes(&mut bed)?;
    println!("gateway: {RUSH} changes in a rush");
    measured.rush(&mut bed)?;
    println!("gateway: {} s of silence", SILENCE.as_secs());
    measured.silence(&mut bed)?;
    println!("gateway: killed");
    measured.storm(&mut bed, float(connected.bytes))?;
    Ok(measured.results)
}

struct Measured {
    agents: u32,
    results: Vec<Measurement>,
}

impl Measured {
    fn known(&mut self, name: &str, value: f64, unit: &'static str) {
        self.add(Measurement::known(&self.name(name), value, unit));
    }

    fn at_most(&mut self, name: &str, value: f64, unit: &'static str, limit: f64) {
        self.add(Measurement::at_most(&self.name(name), value, unit, limit));
    }

    /// Shown at once, since all of it takes minutes.
    fn add(&mut self, measurement: Measurement) {
        println!("{}: {:.3} {}", measurement.name, measurement.value, measurement.unit);
        self.results.push(measurement);
    }

    fn name(&self, name: &str) -> String {
        format!("gateway, {} agents: {name}", self.agents)
    }

    fn each(&self, sum: f64) -> f64 {
        sum / f64::from(self.agents)
    }

    fn memory(&mut self, bed: &mut Bed, before: u64, (buffers, objects): (u64, u64)) -> Result<()> {
        let now = usage::rested(bed.pid()?)?;
        self.at_most("memory, all of it, each agent", self.each(float(now)), "bytes", MEMORY);
        let grown = self.each(float(now.saturating_sub(before)));
        self.known("memory by connections, each agent", grown, "bytes");
        let grown = |now: u64, before: u64| self.each(float(now.saturating_sub(before))) / 2.0;
        let buffers = grown(usage::buffers()?, buffers);
        let objects = grown(usage::kernel_objects()?, objects);
        self.known("kernel: socket buffers, each end", buffers, "bytes");
        self.known("kernel: sockets and other objects, each end", objects, "bytes");
        Ok(())
    }

    fn changes(&mut self, bed: &mut Bed) -> Result<()> {
        let (pid, swarm) = (bed.pid()?, bed.swarm());
        for number in 0..WARM_UP {
            change(bed, number)?;
        }
        let before = (Cpu::of(pid)?, Cpu::of(swarm)?);
        let mut times = Vec::new();
        for number in 0..CHANGES {
            times.push(change(bed, WARM_UP + number)?);
        }
        let (own, agents) = (Cpu::of(pid)?.since(before.0), Cpu::of(swarm)?.since(before.1));
        times.sort_by(f64::total_cmp);
        let at = |percent: usize| times.get((times.len() - 1) * percent / 100).copied().unwrap_or_default();
        self.at_most("change to last ack, p50", at(50), "ms", CHANGE_MS);
        self.known("change to last ack, p99", at(99), "ms");
        let share = |time: Duration| time.as_secs_f64() * 1e6 / float_of(CHANGES) / f64::from(self.agents);
        let (total, kernel, others) = (share(own.total()), share(own.kernel), share(agents.total()));
        self.at_most("CPU by change and stream", total, "µs", CPU_US);
        self.known("CPU by change and stream, of it in the kernel", kernel, "µs");
        self.known("CPU by change and stream, of the agents", others, "µs");
        let resident = self.each(float(usage::rested(pid)?));
        self.at_most("memory after the changes, each agent", resident, "bytes", MEMORY);
        Ok(())
    }

    /// What comes faster than it can be told is told together.
    fn rush(&mut self, bed: &mut Bed) -> Result<()> {
        let pid = bed.pid()?;
        let before = (Cpu::of(pid)?, bed.report()?.generation);
        let began = Instant::now();
        for number in 0..RUSH {
            save(bed, WARM_UP + CHANGES + number)?;
            std::thread::sleep(RUSH_PACE);
        }
        let seconds = began.elapsed().as_secs_f64();
        // One more, that is told alone: with it all agents have all of them.
        std::thread::sleep(LAST_OF_RUSH);
        bed.steady(before.1, LIMIT)?;
        change(bed, WARM_UP)?;
        let used = Cpu::of(pid)?.since(before.0).total();
        let told = bed.report()?.generation - before.1;
        let share = used.as_secs_f64() * 1e6 / float_of(RUSH) / f64::from(self.agents);
        self.known("rush: changes by second", float_of(RUSH) / seconds, "1/s");
        self.known("rush: changes told together", float_of(RUSH) / float(told), "");
        self.at_most("rush: CPU by change and stream", share, "µs", CPU_US);
        Ok(())
    }

    fn silence(&mut self, bed: &mut Bed) -> Result<()> {
        let pid = bed.pid()?;
        let before = (Cpu::of(pid)?, usage::loopback(bed.host().namespace())?);
        std::thread::sleep(SILENCE);
        let used = Cpu::of(pid)?.since(before.0).total().as_secs_f64();
        let bytes = usage::loopback(bed.host().namespace())?.saturating_sub(before.1);
        let seconds = SILENCE.as_secs_f64();
        self.known("silence: bytes on the wire, each agent", self.each(float(bytes)) / seconds, "bytes/s");
        self.known("silence: CPU", used / seconds * 100.0, "% of a core");
        Ok(())
    }

    fn storm(&mut self, bed: &mut Bed, snapshots: f64) -> Result<()> {
        let before = (bed.report()?, usage::loopback(bed.host().namespace())?, Cpu::of(bed.swarm())?);
        let killed = monotonic_ns();
        bed.gateway.kill()?;
        wait_for("the sessions to be lost", LIMIT, || {
            bed.report().is_ok_and(|report| report.connected == 0)
        })?;
        bed.gateway.launch()?;
        let launched = monotonic_ns();
        let report = bed.steady(before.0.generation, LIMIT)?;
        let seconds = |ns: u64| float(ns.saturating_sub(killed)) / 1e9;
        self.at_most("killed: all are back after", seconds(report.acked_ns), "s", STORM_S);
        self.known("killed: of it until the next gateway serves", seconds(launched), "s");
        let (pid, agents) = (bed.pid()?, self.agents);
        let own = Cpu::of(pid)?.total().as_secs_f64();
        let others = Cpu::of(bed.swarm())?.since(before.2).total().as_secs_f64();
        self.known("killed: CPU of the next gateway, each agent", own * 1e6 / f64::from(agents), "µs");
        self.known("killed: CPU of the agents, each", others * 1e6 / f64::from(agents), "µs");
        self.known("killed: attempts, each agent", self.each(float(report.sessions - before.0.sessions)), "");
        let resumed = float(report.bytes - before.0.bytes);
        self.at_most("resume: messages, share of a snapshot", resumed / snapshots, "ratio", RESUME);
        self.known("resume: messages, each agent", self.each(resumed), "bytes");
        self.known("snapshot: messages, each agent", self.each(snapshots), "bytes");
        let wire = usage::loopback(bed.host().namespace())?.saturating_sub(before.1);
        self.known("resume: bytes on the wire with handshakes, each agent", self.each(float(wire)), "bytes");
        let resident = self.each(float(usage::rested(pid)?));
        self.at_most("memory after all are back, each agent", resident, "bytes", MEMORY);
        Ok(())
    }
}

/// Makes a change that every agent is told; milliseconds until the gateway has counted the last acknowledgement.
/// Turn by turn a pod gets another address, and a policy of all groups another port.
fn change(bed: &mut Bed, number: usize) -> Result<f64> {
    let before = bed.report()?.generation;
    let saved = save(bed, number)?;
    let report = bed.steady(before, LIMIT).context("a change did not reach all agents")?;
    Ok(float(report.confirmed_ns.saturating_sub(saved)) / 1e6)
}

/// Saves the file of a change; when.
fn save(bed: &Bed, number: usize) -> Result<u64> {
    if number.is_multiple_of(2) {
        let address = format!("10.100.200.{}", number % 250 + 1);
        bed.gateway.apply("moving.yaml", &bed::pod("moving", "web", &address))
    } else {
        let port = u16::try_from(number % 1000)? + 9000;
        let policy = allow_ingress("all", "none", &["web"], Some(port));
        let policy = policy.replace("    matchLabels:\n      app: none\n", "    matchLabels: {}\n");
        bed.gateway.apply("all.yaml", &policy)
    }
}

fn float_of(number: usize) -> f64 {
    float(u64::try_from(number).unwrap_or(u64::MAX))
}
