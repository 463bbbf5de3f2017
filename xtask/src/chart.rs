//! The Helm chart: linted and rendered by Helm's own engine, checked by the schemas of Kubernetes, then by tests of ours,
//! which also install it.

use std::fs;

use anyhow::{Context as _, Result};

use crate::{bpf, command, python, workspace};

/// What the renderer needs of Python: Helm as a library, and the schemas.
const PACKAGES: [&str; 2] = ["helm-python-sdk==0.2.2", "kubernetes-validate==1.37.0"];

/// Renders the chart for all value sets, and judges what came out.
pub(crate) fn check() -> Result<()> {
    let root = workspace::root();
    let folder = workspace::target().join("chart");
    fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    let python = python::with(&folder.join("venv"), &PACKAGES)?;
    let answer = folder.join("rendered.json");
    let mut renderer = command::program(&python);
    renderer.arg(root.join("xtask/helm.py")).arg("render").arg(root.join("packaging/helm/outrigger"));
    // Helm tells of every link that it follows and every refusal; who wants to know it is not here, unless it fails.
    command::read(renderer.arg(root.join("tests/chart/cases.yaml")).arg(&answer))?;
    // The gateway is started with what was installed.
    bpf::build()?;
    command::run(command::cargo().args(["build", "--bins"]))?;
    let mut tests = command::cargo();
    tests.args(["test", "--test", "chart", "--", "--include-ignored"]);
    command::run(tests.env("OUTRIGGER_RENDERED_CHART", answer).env("OUTRIGGER_CHART_PYTHON", python))
}
