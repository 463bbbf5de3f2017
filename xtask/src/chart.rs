//! The Helm chart: linted and rendered by Helm's own engine, checked by the schemas of Kubernetes, then by tests of ours,
//! which also install it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::{bpf, command, workspace};

/// What the renderer needs of Python: Helm as a library, and the schemas.
const PACKAGES: [&str; 2] = ["helm-python-sdk==0.2.2", "kubernetes-validate==1.37.0"];

/// Renders the chart for all value sets, and judges what came out.
pub(crate) fn check() -> Result<()> {
    let root = workspace::root();
    let folder = workspace::target().join("chart");
    fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    let (python, answer) = (python(&folder)?, folder.join("rendered.json"));
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

/// A Python that has the packages; made where there is none yet.
fn python(folder: &Path) -> Result<PathBuf> {
    let (venv, stamp) = (folder.join("venv"), folder.join("venv/packages"));
    let python = venv.join("bin/python");
    let wanted = PACKAGES.join("\n");
    if fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) {
        return Ok(python);
    }
    command::run(command::program("python3").args(["-m", "venv", "--clear"]).arg(&venv))
        .context("a Python environment for the chart's renderer (`make deps` installs python3-venv)")?;
    let mut pip = command::program(&python);
    command::run(
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(PACKAGES),
    )?;
    fs::write(&stamp, wanted).with_context(|| format!("write {}", stamp.display()))?;
    Ok(python)
}
