//! `make bench`.

use anyhow::Result;
use clap::Parser;
use e2e::bench::Options;

/// Measures what the datapath costs. Needs root and a quiet machine.
#[derive(Debug, Parser)]
#[command(name = "bench")]
struct Arguments {
    /// Blocks of four cells of the tunnel comparison.
    #[arg(long, default_value_t = 8)]
    blocks: u32,
    /// Milliseconds of a cell.
    #[arg(long, default_value_t = 2000)]
    cell_ms: u64,
}

fn main() -> Result<()> {
    let Arguments { blocks, cell_ms } = Arguments::parse();
    e2e::bench::run(Options { blocks, cell_ms })
}
