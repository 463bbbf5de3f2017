//! The conformance suite of the policy languages, in the model and with real packets.

use anyhow::Result;

use crate::{bpf, command};

/// Builds what it needs and runs it.
pub(crate) fn run() -> Result<()> {
    bpf::build()?;
    command::run(command::cargo().args(["build", "--bins"]))?;
    let words = ["test", "--test", "conformance", "--", "--nocapture", "--include-ignored"];
    command::run(command::cargo().args(words))
}
