//! Running other programs and saying which one failed.

use std::{
    env, fmt,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

/// Variables that the cargo around us sets for this process and that would mislead another compiler.
const OF_ANOTHER_COMPILER: [&str; 8] = [
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_TARGET_DIR",
    "RUSTC",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_WRAPPER",
    "RUSTDOCFLAGS",
    "RUSTFLAGS",
    "RUSTUP_TOOLCHAIN",
];

/// Variables that the cargo around us sets and that no other program should inherit.
const OF_CARGO_RUN: [&str; 2] = ["CARGO", "LD_LIBRARY_PATH"];

/// A command line as a person would type it.
struct Line<'a>(&'a Command);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.get_program().display())?;
        self.0.get_args().try_for_each(|argument| write!(f, " {}", argument.display()))
    }
}

/// A command with the environment of the person, not of the cargo around us.
pub(crate) fn program(program: impl AsRef<Path>) -> Command {
    let mut command = Command::new(program.as_ref());
    for variable in OF_CARGO_RUN {
        command.env_remove(variable);
    }
    command
}

/// A command that may be another compiler than the one around us.
pub(crate) fn detached(program: impl AsRef<Path>) -> Command {
    let mut command = self::program(program);
    for variable in OF_ANOTHER_COMPILER {
        command.env_remove(variable);
    }
    command
}

/// Cargo for the host, at the root of the workspace.
pub(crate) fn cargo() -> Command {
    let mut cargo = program("cargo");
    cargo.current_dir(crate::workspace::root());
    cargo
}

/// Runs a command with our standard streams and fails when it fails.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("start `{}`", Line(command)))?;
    if !status.success() {
        bail!("`{}` failed: {status}", Line(command));
    }
    Ok(())
}

/// Becomes a command: it gets the signals of the terminal, and nothing waits behind it. Returns only a failure.
pub(crate) fn replace_by(command: &mut Command) -> Result<()> {
    let error = command.exec();
    Err(error).with_context(|| format!("start `{}`", Line(command)))
}

/// Runs a command and returns what it wrote to standard output.
pub(crate) fn read(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("start `{}`", Line(command)))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`{}` failed: {}\n{said}", Line(command), output.status);
    }
    String::from_utf8(output.stdout).with_context(|| format!("read the output of `{}`", Line(command)))
}

/// The folder that cargo keeps sources and installed programs in.
pub(crate) fn cargo_home() -> Option<PathBuf> {
    let home = || env::home_dir().map(|home| home.join(".cargo"));
    env::var_os("CARGO_HOME").map(PathBuf::from).or_else(home)
}

/// Finds a program in `PATH` and in the places where its installers put it.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(cargo_home().map(|home| home.join("bin")))
        .chain([PathBuf::from("/usr/sbin"), PathBuf::from("/usr/bin")])
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
}
