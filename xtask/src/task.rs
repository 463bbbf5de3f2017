//! What can be asked of the runner.

use anyhow::Result;
use clap::Parser;

use crate::{bpf, ci, command, conformance, fuzz, gate, kernel, mutants, stress, test, workspace};

/// Builds, checks and runs Outrigger.
#[derive(Parser)]
#[command(name = "cargo xtask")]
pub(crate) enum Task {
    /// Builds for release and runs the benchmarks; what follows is passed to them.
    Bench {
        /// Arguments of the benchmarks.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Builds the BPF object `target/bpf/outrigger.bpf.o`.
    Bpf,
    /// Runs all steps that a change must pass, or those that are named.
    Ci(ci::Selection),
    /// Builds and runs the conformance suite of the policy languages.
    Conformance,
    /// Writes the definitions of the custom resources to `packaging/crds`.
    Crds,
    /// Builds and runs the demo; what follows is passed to it.
    Demo {
        /// Arguments of the demo.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Installs what this machine lacks.
    Deps {
        /// Also what `verify-kernel` needs.
        #[arg(long)]
        qemu: bool,
    },
    /// Runs a fuzz target; what follows `--` is passed to libFuzzer.
    Fuzz(fuzz::Selection),
    /// Checks one rule of the house.
    Gate {
        /// The rule.
        gate: gate::Gate,
    },
    /// Plants bugs one by one and expects the tests of the threat catalogue to notice each.
    Mutants(mutants::Selection),
    /// Builds and runs the stress checker; what follows is passed to it.
    Stress {
        /// Arguments of the stress checker.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Builds everything and runs all tests.
    Test,
    /// Boots kernels under QEMU and lets their verifiers judge the BPF object.
    VerifyKernel(kernel::Selection),
}

impl Task {
    /// Does what was asked.
    pub(crate) fn run(self) -> Result<()> {
        match self {
            Self::Bench { arguments } => bench(&arguments),
            Self::Bpf => bpf::build(),
            Self::Ci(selection) => ci::run(&selection),
            Self::Conformance => conformance::run(),
            Self::Crds => crds(),
            Self::Demo { arguments } => demo(&arguments),
            Self::Deps { qemu } => deps(qemu),
            Self::Fuzz(selection) => fuzz::run(&selection),
            Self::Gate { gate } => gate.check(),
            Self::Mutants(selection) if selection.check => gate::Gate::Mutants.check(),
            Self::Mutants(selection) => mutants::run(&selection),
            Self::Stress { arguments } => command::replace_by(&mut stress::command(&arguments)?),
            Self::Test => test::run(),
            Self::VerifyKernel(selection) => kernel::verify(&selection),
        }
    }
}

fn crds() -> Result<()> {
    let folder = workspace::root().join("packaging/crds");
    command::run(command::cargo().args(["run", "--package", "crds", "--bin", "crds", "--"]).arg(folder))
}

fn deps(qemu: bool) -> Result<()> {
    let mut script = command::program("sh");
    script.arg(workspace::root().join("xtask/deps.sh"));
    if qemu {
        script.arg("qemu");
    }
    command::run(&mut script)
}

/// Builds with the profile of the tests, so that whoever ran one has built the other.
fn demo(arguments: &[String]) -> Result<()> {
    bpf::build()?;
    command::run(command::cargo().args(["build", "--bins"]))?;
    command::replace_by(command::program(workspace::target().join("debug/demo")).args(arguments))
}

/// Measures with the profile of a release.
fn bench(arguments: &[String]) -> Result<()> {
    bpf::build()?;
    command::run(command::cargo().args(["build", "--release", "--bins"]))?;
    command::replace_by(command::program(workspace::target().join("release/bench")).args(arguments))
}
