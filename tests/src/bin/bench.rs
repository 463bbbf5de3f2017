//! `make bench`.

use anyhow::Result;
use clap::Parser;
use e2e::bench::Options;

fn main() -> Result<()> {
    e2e::bench::run(&Options::parse())
}
