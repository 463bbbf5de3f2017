//! `make bench`: what the datapath costs, as ratios and differences within one run, since absolute numbers of a
//! shared machine say nothing. Writes a table and `target/bench/results.json`.

mod noise;
mod statistics;
mod tunnel;

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::prog_test::Cost;

/// What a packet of an established flow may cost.
const PACKET_LIMIT_NS: f64 = 100.0;

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
}

impl Measurement {
    /// A value without a target.
    #[must_use]
    pub fn known(name: &str, value: f64, unit: &'static str) -> Self {
        Self { name: name.to_owned(), value, unit, target: String::new(), met: None }
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
}

/// What to measure.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Blocks of four cells (ABBA) of the tunnel comparison.
    pub blocks: u32,
    /// Milliseconds of a cell.
    pub cell_ms: u64,
}

/// Measures everything, prints the table and writes the results.
pub fn run(options: Options) -> Result<()> {
    noise::warn();
    let mut results = packets()?;
    results.extend(tunnel::measure(options)?);
    print(&results);
    let path = write(&results)?;
    println!("\n{}", path.display());
    Ok(())
}

/// What a packet costs over an empty program. Packets of established flows are what a host does all day.
fn packets() -> Result<Vec<Measurement>> {
    let measured = crate::prog_test::measure()?;
    let of = |cost: &Cost| {
        let name = format!("packet: {}", cost.name);
        let ns = float(if cost.name == "empty program" { cost.ns } else { cost.over_empty_ns });
        if cost.name.starts_with("established") {
            Measurement::at_most(&name, ns, "ns over empty", PACKET_LIMIT_NS)
        } else {
            Measurement::known(&name, ns, if cost.name == "empty program" { "ns" } else { "ns over empty" })
        }
    };
    Ok(measured.iter().map(of).collect())
}

#[expect(
    clippy::as_conversions,
    clippy::cast_precision_loss,
    reason = "a measurement has fewer than 52 bits"
)]
const fn float(number: u64) -> f64 {
    number as f64
}

fn print(results: &[Measurement]) {
    let width = results.iter().map(|result| result.name.chars().count()).max().unwrap_or_default();
    println!("\n{:width$}  {:>12}  {:14} {:8} met", "", "value", "unit", "target");
    for result in results {
        let met = match result.met {
            Some(true) => "yes",
            Some(false) => "no",
            None => "",
        };
        println!(
            "{:width$}  {:>12.3}  {:14} {:8} {met}",
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
