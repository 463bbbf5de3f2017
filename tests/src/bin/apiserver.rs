//! A double of the Kubernetes API server, as a program that tests start.

use anyhow::Result;
use clap::Parser;

fn main() -> Result<()> {
    e2e::apiserver::run(&e2e::apiserver::Arguments::parse())
}
