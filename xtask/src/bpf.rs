//! Builds the package `ebpf` into one BPF object.
//!
//! The object has its own target folder, so that the compiler for BPF and the compiler of the host never invalidate
//! each other's results.

mod toolchain;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use cargo_metadata::Message;

use crate::{command, workspace};
use toolchain::Toolchain;

const TARGET: &str = "bpfel-unknown-none";
/// The newest instruction set that the oldest supported kernel (5.10) runs.
const CPU: &str = "v3";

/// Builds the object, and replaces the previous one only if it differs.
pub(crate) fn build() -> Result<()> {
    let toolchain = Toolchain::detect()?;
    let built = compile(&toolchain)?;
    let object = workspace::bpf_object();
    if replace(&built, &object)? {
        let size = fs::metadata(&object)?.len();
        eprintln!("{} ({} KiB, {toolchain})", object.display(), size / 1024);
    }
    Ok(())
}

fn compile(toolchain: &Toolchain) -> Result<PathBuf> {
    let mut cargo = toolchain.cargo();
    cargo
        .args(["build", "--package", "ebpf", "--bins", "--profile", "bpf", "--target", TARGET])
        .args(["--message-format", "json-render-diagnostics", "--target-dir"])
        .arg(workspace::target().join("bpf-build"))
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags(&toolchain.linker))
        .current_dir(workspace::root())
        .stdout(Stdio::piped());
    executable(&mut cargo)
}

/// Flags for the BPF target: the linker, type information, the host whose kernel structures tracing would read, and
/// names for files that are the same on every machine.
fn rustflags(linker: &Path) -> String {
    let cargo_home = command::cargo_home().unwrap_or_default();
    [
        format!("--cfg=bpf_target_arch=\"{}\"", std::env::consts::ARCH),
        format!("--remap-path-prefix={}=/cargo", cargo_home.display()),
        format!("--remap-path-prefix={}=/outrigger", workspace::root().display()),
        format!("-Ctarget-cpu={CPU}"),
        format!("-Clinker={}", linker.display()),
        "-Clink-arg=--btf".to_owned(),
    ]
    .join("\x1f")
}

/// Runs cargo and returns the one program it built.
fn executable(cargo: &mut Command) -> Result<PathBuf> {
    let output = cargo.stderr(Stdio::inherit()).output().context("start cargo for the BPF object")?;
    let mut executables = Vec::new();
    for message in Message::parse_stream(output.stdout.as_slice()) {
        if let Message::CompilerArtifact(artifact) = message.context("read cargo's messages")? {
            executables.extend(artifact.executable);
        }
    }
    if !output.status.success() {
        bail!("the BPF object was not built: cargo {}", output.status);
    }
    match executables.as_slice() {
        [one] => Ok(one.clone().into_std_path_buf()),
        other => bail!("package `ebpf` has {} programs; expected one `[[bin]]`", other.len()),
    }
}

/// Puts `new` in the place of `current` and returns whether they differed.
fn replace(new: &Path, current: &Path) -> Result<bool> {
    let bytes = fs::read(new).with_context(|| format!("read {}", new.display()))?;
    if fs::read(current).is_ok_and(|present| present == bytes) {
        return Ok(false);
    }
    if let Some(folder) = current.parent() {
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    }
    let partial = current.with_extension("partial");
    fs::write(&partial, bytes).with_context(|| format!("write {}", partial.display()))?;
    fs::rename(&partial, current).with_context(|| format!("write {}", current.display()))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_equal_object_is_left_alone() {
        let folder = std::env::temp_dir().join(format!("outrigger-xtask-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let (new, current) = (folder.join("new"), folder.join("sub/current"));
        fs::write(&new, b"one").unwrap();
        assert!(replace(&new, &current).unwrap());
        assert!(!replace(&new, &current).unwrap());
        fs::write(&new, b"two").unwrap();
        assert!(replace(&new, &current).unwrap());
        assert_eq!(fs::read(&current).unwrap(), b"two");
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn flags_name_the_linker_and_ask_for_type_information() {
        let flags = rustflags(Path::new("/opt/bpf-linker"));
        assert!(flags.split('\x1f').any(|flag| flag == "-Clinker=/opt/bpf-linker"));
        assert!(flags.split('\x1f').any(|flag| flag == "-Clink-arg=--btf"));
    }
}
