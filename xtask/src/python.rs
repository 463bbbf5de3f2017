//! Python packages that tests need, each set in an environment of its own under `target`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::command;

/// A Python of the folder that has these packages; made where there is none yet.
pub(crate) fn with(folder: &Path, packages: &[&str]) -> Result<PathBuf> {
    let (python, stamp) = (folder.join("bin/python"), folder.join("packages"));
    let wanted = packages.join("\n");
    if fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) {
        return Ok(python);
    }
    command::run(command::program("python3").args(["-m", "venv", "--clear"]).arg(folder))
        .context("a Python environment (`make deps` installs python3-venv)")?;
    let mut pip = command::program(&python);
    command::run(
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(packages),
    )?;
    fs::write(&stamp, wanted).with_context(|| format!("write {}", stamp.display()))?;
    Ok(python)
}
