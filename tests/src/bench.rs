//! `make bench`: what the project costs, as ratios and differences within one run, since absolute numbers of a
//! shared machine say nothing. Prints a table and writes it to `bench/results.json` in the build folder.

mod agent;
mod bed;
mod double;
pub mod gateway;
mod noise;
mod pairs;
mod policy;
mod statistics;
mod traffic;
mod usage;
mod world;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use serde::Serialize;

use crate::prog_test::Cost;

/// Measures what the project costs. Needs root and a quiet machine.
#[derive(Clone, Debug, Parser)]
#[command(name = "bench")]
pub struct Options {
    /// Measure less and more coarsely, in under five minutes.
    #[arg(long)]
    pub quick: bool,
    /// Measure although the machine is busy; the results say so.
    #[arg(long)]
    pub busy: bool,
    /// Only these parts.
    #[arg(long, value_delimiter = ',')]
    pub only: Vec<Part>,
}

/// A part of the measurements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// Nanoseconds a packet in `BPF_PROG_TEST_RUN`.
    Packets,
    /// Our tunnel against the kernel's own, with real processes.
    Traffic,
    /// Compiling the policies of a large cluster.
    Policy,
    /// Memory, CPU and times of an agent, with a large mesh.
    Agent,
    /// A gateway with 1,000 and 10,000 agents.
    Gateway,
    /// A gateway whose source and state are a cluster's API, with 1,000 agents and 20,000 pods.
    Cluster,
}

/// One measured value.
#[derive(Clone, Debug, Serialize)]
pub struct Measurement {
    /// What was measured.
    pub name: String,
    /// The value.
    pub value: f64,
    /// Its unit.
    pub unit: &'static str,
    /// What it should reach, as text; empty where there is only something to know.
    pub target: String,
    /// Whether it does; absent without a target.
    pub met: Option<bool>,
    /// The ends of its 95 % interval, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<[f64; 2]>,
}

impl Measurement {
    /// A value without a target.
    #[must_use]
    pub fn known(name: &str, value: f64, unit: &'static str) -> Self {
        Self { name: name.to_owned(), value, unit, target: String::new(), met: None, interval: None }
    }

    /// A value that should be at least `limit`.
    #[must_use]
    pub fn at_least(name: &str, value: f64, unit: &'static str, limit: f64) -> Self {
        Self { target: format!("≥ {limit}"), met: Some(value >= limit), ..Self::known(name, value, unit) }
    }

    /// A value that should be at most `limit`.
    #[must_use]
    pub fn at_most(name: &str, value: f64, unit: &'static str, limit: f64) -> Self {
        Self { target: format!("≤ {limit}"), met: Some(value <= limit), ..Self::known(name, value, unit) }
    }

    /// The same with its 95 % interval.
    #[must_use]
    pub fn within(self, interval: [f64; 2]) -> Self {
        Self { interval: Some(interval), ..self }
    }
}

impl Options {
    fn includes(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }
}

/// Measures what the options ask for, prints the table and writes the results.
pub fn run(options: &Options) -> Result<()> {
    let quiet = noise::gate(options.busy)?;
    let mut results =
        vec![Measurement::known("machine: quiet at the start", f64::from(u8::from(quiet)), "yes = 1")];
    // What was measured before a failure is told all the same.
    let measured = measure(options, &mut results);
    print(&results);
    let path = write(&results)?;
    println!("\n{}", path.display());
    measured
}

fn measure(options: &Options, results: &mut Vec<Measurement>) -> Result<()> {
    if options.includes(Part::Packets) {
        results.extend(packets(options.quick)?);
    }
    if options.includes(Part::Traffic) {
        results.extend(traffic::measure(options.quick)?);
    }
    if options.includes(Part::Policy) {
        results.extend(policy::measure(options.quick)?);
    }
    if options.includes(Part::Agent) {
        results.extend(agent::measure(options.quick)?);
        results.extend(crate::prog_test::publications(options.quick)?.into_iter().map(packet));
    }
    if options.includes(Part::Gateway) {
        results.extend(gateway::measure(options.quick)?);
    }
    if options.includes(Part::Cluster) {
        results.extend(gateway::cluster::measure(options.quick)?);
    }
    Ok(())
}

/// What a packet costs over an empty program. Packets of established flows are what a host does all day.
fn packets(quick: bool) -> Result<Vec<Measurement>> {
    Ok(crate::prog_test::measure(quick)?.into_iter().map(packet).collect())
}

fn packet(Cost { name, value, unit, limit }: Cost) -> Measurement {
    let name = format!("packet: {name}");
    match limit {
        Some(limit) => Measurement::at_most(&name, value, unit, limit),
        None => Measurement::known(&name, value, unit),
    }
}

#[expect(
    clippy::as_conversions,
    clippy::cast_precision_loss,
    reason = "a measurement has fewer than 52 bits"
)]
pub(crate) const fn float(number: u64) -> f64 {
    number as f64
}

fn print(results: &[Measurement]) {
    let width = results.iter().map(|result| result.name.chars().count()).max().unwrap_or_default();
    println!("\n{:width$}  {:>12}  {:17} {:14} {:8} met", "", "value", "95 % interval", "unit", "target");
    for result in results {
        let met = match result.met {
            Some(true) => "yes",
            Some(false) => "no",
            None => "",
        };
        let interval = result.interval.map(|[low, high]| format!("{low:.3} – {high:.3}")).unwrap_or_default();
        println!(
            "{:width$}  {:>12.3}  {interval:17} {:14} {:8} {met}",
            result.name, result.value, result.unit, result.target
        );
    }
}

fn write(results: &[Measurement]) -> Result<PathBuf> {
    let programs = crate::binaries::folder()?;
    let folder = programs.parent().context("the build folder has no parent")?.join("bench");
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let path = folder.join("results.json");
    std::fs::write(&path, serde_json::to_string_pretty(results)? + "\n")?;
    Ok(path)
}
