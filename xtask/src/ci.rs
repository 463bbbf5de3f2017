//! What must hold before a change lands, as one list of steps.

use std::time::Duration;

use anyhow::Result;
use clap::{Args, ValueEnum as _};

use crate::{bpf, chart, command, conformance, gate::Gate, openbao, steps::Steps, stress, test};

/// Steps that take this long are marked.
const SLOW: Duration = Duration::from_mins(1);

/// Which steps are run.
#[derive(Args)]
pub(crate) struct Selection {
    /// Only lists the steps.
    #[arg(long)]
    list: bool,
    /// Leaves a step out; may be given more than once.
    #[arg(long, value_name = "STEP")]
    skip: Vec<String>,
    /// Runs only these steps.
    #[arg(value_name = "STEP")]
    only: Vec<String>,
}

/// Something that must hold.
enum Step {
    Gate(Gate),
    Cargo { name: &'static str, arguments: &'static [&'static str], strict_docs: bool },
    Bpf,
    Chart,
    OpenBao,
    Conformance,
    Test,
    Stress,
}

impl Step {
    fn all() -> Vec<Self> {
        let cargo = |name, arguments| Self::Cargo { name, arguments, strict_docs: name == "doc" };
        let mut steps = vec![cargo("fmt", &["fmt", "--all", "--check"])];
        steps.extend(Gate::value_variants().iter().copied().map(Self::Gate));
        steps.push(cargo("deny", &["deny", "--offline", "check", "bans", "licenses", "sources"]));
        steps.push(Self::Bpf);
        steps.push(cargo(
            "clippy",
            &[
                "clippy",
                "--workspace",
                "--all-targets",
                "--features",
                "xtask/load-bpf",
                "--",
                "-D",
                "warnings",
            ],
        ));
        steps.push(cargo("doc", &["doc", "--no-deps"]));
        steps.extend([Self::Chart, Self::OpenBao, Self::Conformance, Self::Test, Self::Stress]);
        steps
    }

    fn name(&self) -> String {
        match self {
            Self::Gate(gate) => gate.name(),
            Self::Cargo { name, .. } => (*name).to_owned(),
            Self::Bpf => "bpf".to_owned(),
            Self::Chart => "chart".to_owned(),
            Self::OpenBao => "openbao".to_owned(),
            Self::Conformance => "conformance".to_owned(),
            Self::Test => "test".to_owned(),
            Self::Stress => "stress".to_owned(),
        }
    }

    /// Why this step cannot run on this machine, if it cannot.
    fn unavailable(&self) -> Option<String> {
        let Self::Cargo { name, .. } = self else { return None };
        let missing = *name != "doc" && command::read(command::cargo().args([name, "--version"])).is_err();
        missing.then(|| format!("cargo {name} is not installed"))
    }

    fn run(&self) -> Result<()> {
        match self {
            Self::Gate(gate) => gate.check(),
            Self::Bpf => bpf::build(),
            Self::Chart => chart::check(),
            Self::OpenBao => openbao::check(),
            Self::Conformance => conformance::run(),
            Self::Test => test::run(),
            Self::Stress => {
                let arguments = ["--seconds", "60"].map(str::to_owned);
                command::run(&mut stress::command(&arguments)?)
            }
            Self::Cargo { arguments, strict_docs, .. } => {
                let mut cargo = command::cargo();
                if *strict_docs {
                    cargo.env("RUSTDOCFLAGS", "-D warnings");
                }
                command::run(cargo.args(*arguments))
            }
        }
    }
}

/// Runs the selected steps to the end, lists them with their times, and fails if one failed.
pub(crate) fn run(selection: &Selection) -> Result<()> {
    let mut steps = Steps::default();
    let all = Step::all();
    let names: Vec<_> = all.iter().map(Step::name).collect();
    if let Some(unknown) = selection.only.iter().chain(&selection.skip).find(|step| !names.contains(step)) {
        anyhow::bail!("no step `{unknown}`; there are {}", names.join(", "));
    }
    for (step, name) in all.iter().zip(&names) {
        if selection.skip.contains(name) || !(selection.only.is_empty() || selection.only.contains(name)) {
            continue;
        }
        match step.unavailable() {
            _ if selection.list => println!("{name}"),
            Some(why) => steps.skip(name, &why),
            None => steps.note(name, |_| step.run()),
        }
    }
    steps.print(SLOW);
    steps.outcome()
}
