//! The compilers that can build for BPF: a distribution's with a prebuilt `core`, or rustup's nightly that builds it.

use std::{
    fmt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::command;

/// A compiler for BPF with the linker that fits it.
#[derive(Debug)]
pub(crate) struct Toolchain {
    compiler: Compiler,
    /// Path of bpf-linker.
    pub(crate) linker: PathBuf,
    llvm: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compiler {
    /// `/usr/bin/rustc`, with `core` for BPF from a package.
    Distribution,
    /// `rustup run nightly`, which builds `core` from rust-src.
    Nightly,
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let compiler = match self.compiler {
            Compiler::Distribution => "the distribution's rustc",
            Compiler::Nightly => "rustup's nightly",
        };
        write!(f, "{compiler} with LLVM {}", self.llvm)
    }
}

impl Toolchain {
    /// Finds a compiler, and a linker of the same LLVM.
    pub(crate) fn detect() -> Result<Self> {
        let compiler = Compiler::detect().context(
            "no compiler has `core` for bpfel-unknown-none: neither a distribution's (/usr/bin/rustc) nor rustup's \
             nightly with rust-src; `make deps` installs one",
        )?;
        let version = command::read(&mut compiler.rustc_version())?;
        let llvm = llvm_of_compiler(&version).context("`rustc -vV` names no LLVM version")?;
        let linker = command::find("bpf-linker").context("bpf-linker is missing; `make deps` installs it")?;
        check_linker(&linker, llvm)?;
        Ok(Self { compiler, linker, llvm })
    }

    /// Cargo of this toolchain, free of the toolchain around us.
    pub(crate) fn cargo(&self) -> Command {
        let mut cargo = self.compiler.program("cargo");
        match self.compiler {
            Compiler::Distribution => cargo.env("RUSTC", "/usr/bin/rustc").env("RUSTC_BOOTSTRAP", "1"),
            Compiler::Nightly => cargo.args(["-Z", "build-std=core"]),
        };
        cargo
    }
}

impl Compiler {
    fn detect() -> Option<Self> {
        [Self::Distribution, Self::Nightly].into_iter().find(|compiler| compiler.has_core())
    }

    fn program(self, name: &str) -> Command {
        match self {
            Self::Distribution => command::detached(Path::new("/usr/bin").join(name)),
            Self::Nightly => {
                let mut rustup = command::detached("rustup");
                rustup.args(["run", "nightly", name]);
                rustup
            }
        }
    }

    fn rustc_version(self) -> Command {
        let mut rustc = self.program("rustc");
        rustc.arg("-vV");
        rustc
    }

    fn has_core(self) -> bool {
        let print = |arguments: &[&str]| command::read(self.program("rustc").args(arguments));
        match self {
            Self::Distribution => {
                Path::new("/usr/bin/cargo").is_file()
                    && print(&["--print", "target-libdir", "--target", super::TARGET])
                        .is_ok_and(|folder| holds_core(Path::new(folder.trim())))
            }
            Self::Nightly => print(&["--print", "sysroot"]).is_ok_and(|sysroot| {
                Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core").is_dir()
            }),
        }
    }
}

fn holds_core(folder: &Path) -> bool {
    folder.read_dir().is_ok_and(|mut entries| {
        entries
            .any(|entry| entry.is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with("libcore-")))
    })
}

/// Fails unless the linker reads the bitcode that the compiler writes: both must be of one LLVM major version.
fn check_linker(linker: &Path, llvm: u32) -> Result<()> {
    let libraries = command::read(Command::new("ldd").arg(linker)).unwrap_or_default();
    match llvm_of_linker(&libraries) {
        Some(other) if other != llvm => bail!(
            "{} is linked with LLVM {other}, the compiler writes LLVM {llvm}; `make deps` rebuilds it",
            linker.display()
        ),
        // Linked dynamically: what it was linked with must still be there.
        Some(_) if libraries.contains("not found") => {
            bail!("{} misses its LLVM {llvm}; `make deps` installs it", linker.display())
        }
        Some(_) | None => Ok(()),
    }
}

fn llvm_of_compiler(version: &str) -> Option<u32> {
    let line = version.lines().find_map(|line| line.strip_prefix("LLVM version: "))?;
    line.split('.').next()?.trim().parse().ok()
}

fn llvm_of_linker(libraries: &str) -> Option<u32> {
    let (_, rest) = libraries.split_once("libLLVM")?;
    let digits = rest.trim_start_matches(|c: char| !c.is_ascii_digit());
    digits.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llvm_versions_are_read() {
        assert_eq!(llvm_of_compiler("rustc 1.96.0\nLLVM version: 22.1.8\n"), Some(22));
        assert_eq!(llvm_of_compiler("rustc 1.96.0\n"), None);
        assert_eq!(
            llvm_of_linker("\tlibLLVM.so.22.1 => /usr/lib/llvm-22/lib/libLLVM.so.22.1 (0x0)"),
            Some(22)
        );
        assert_eq!(llvm_of_linker("\tlibLLVM-19.so => not found"), Some(19));
        assert_eq!(llvm_of_linker("\tlibc.so.6 => /lib/libc.so.6"), None);
    }
}
