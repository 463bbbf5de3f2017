//! Simulated agents in numbers, as a program that the benchmarks run beside a gateway.

use anyhow::Result;
use clap::Parser;

fn main() -> Result<()> {
    e2e::bench::gateway::swarm::run(&e2e::bench::gateway::swarm::Arguments::parse())
}
