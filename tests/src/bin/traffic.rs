//! The traffic tools of the tests, as a program that the fixtures run inside namespaces.

use anyhow::Result;
use clap::Parser;

fn main() -> Result<()> {
    e2e::traffic::run(&e2e::traffic::Arguments::parse())
}
