//! Boots a kernel under QEMU and lets its verifier judge every program of the BPF object.
//!
//! Load only: nothing is attached, no packet runs. The machine is software-emulated, so that it works where nested
//! virtualisation does not. Its whole user space is one static program, `load-bpf`.

mod budget;
mod debian;
mod initramfs;
mod machine;
mod report;

use std::{env::consts::ARCH, fs, path::PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Args, ValueEnum};

use crate::{bpf, command, workspace};
use budget::Budget;
use report::Report;

/// How often a kernel may crash before its user space starts: QEMU 7.2 emulates code that patches itself wrongly now and
/// then (6.12: 7 of 50 boots). It says nothing of our programs, which are not there yet.
const BOOTS: u32 = 6;

/// A kernel that the programs must load on: that of a Debian release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kernel {
    /// The oldest supported one, of Debian 11.
    #[value(name = "5.10")]
    V5_10,
    /// Of Debian 12.
    #[value(name = "6.1")]
    V6_1,
    /// Of Debian 13.
    #[value(name = "6.12")]
    V6_12,
}

/// What is verified.
#[derive(Args)]
pub(crate) struct Selection {
    /// The kernels, one after the other.
    #[arg(required = true, value_name = "VERSION")]
    kernels: Vec<Kernel>,
    /// Another object than the one that `cargo xtask bpf` builds.
    #[arg(long, value_name = "FILE")]
    object: Option<PathBuf>,
    /// Records what the programs take as the new budget.
    #[arg(long)]
    record: bool,
}

impl Kernel {
    /// Major and minor version.
    const fn version(self) -> &'static str {
        match self {
            Self::V5_10 => "5.10",
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
        }
    }

    /// The Debian release that has it.
    const fn suite(self) -> &'static str {
        match self {
            Self::V5_10 => "bullseye",
            Self::V6_1 => "bookworm",
            Self::V6_12 => "trixie",
        }
    }
}

/// Verifies the object on each kernel, and fails if one refuses a program or needs more than was recorded.
pub(crate) fn verify(selection: &Selection) -> Result<()> {
    ensure!(ARCH == "x86_64", "verify-kernel boots x86-64 kernels; this machine is {ARCH}");
    let object = if let Some(object) = &selection.object {
        object.clone()
    } else {
        bpf::build()?;
        workspace::bpf_object()
    };
    let object = fs::read(&object).with_context(|| format!("read {}", object.display()))?;
    let image = initramfs::pack(&fs::read(build_loader()?)?, &object)?;
    let mut budget = Budget::read()?;
    let mut failed = Vec::new();
    for kernel in &selection.kernels {
        let version = kernel.version();
        let report = boot(*kernel, &image).with_context(|| format!("kernel {version}"))?;
        print!("{report}");
        let over = if selection.record { Vec::new() } else { budget.exceeded(version, &report) };
        for line in &over {
            println!("  over budget: {line}");
        }
        if report.accepted() && over.is_empty() {
            println!("OK: {} accepts all {} programs", report.kernel, report.programs.len());
        } else {
            failed.push(version);
        }
        if selection.record {
            budget.record(version, &report);
        }
    }
    if selection.record {
        budget.write()?;
    }
    if failed.is_empty() { Ok(()) } else { bail!("not all programs pass on {}", failed.join(", ")) }
}

fn boot(kernel: Kernel, image: &[u8]) -> Result<Report> {
    let folder = workspace::target().join("kernels").join(kernel.version());
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    let vmlinuz = debian::vmlinuz(kernel, &folder)?;
    let initramfs = folder.join("initramfs.cpio");
    fs::write(&initramfs, image).with_context(|| format!("write {}", initramfs.display()))?;
    for _ in 1..BOOTS {
        let console = machine::run(&vmlinuz, &initramfs, &folder.join("console.log"))?;
        if report::began(&console) {
            return Report::read(&console);
        }
        eprintln!("kernel {} crashed while it booted; again", kernel.version());
    }
    Report::read(&machine::run(&vmlinuz, &initramfs, &folder.join("console.log"))?)
}

/// Builds `load-bpf` as a static program: there is no C library in the machine that it runs in.
fn build_loader() -> Result<PathBuf> {
    let target = format!("{ARCH}-unknown-linux-gnu");
    let folder = workspace::target().join("kernels/build");
    let mut cargo = command::cargo();
    cargo
        .args(["build", "--quiet", "--package", "xtask", "--bin", "load-bpf", "--features", "load-bpf"])
        .args(["--target", &target, "--target-dir"])
        .arg(&folder)
        .env("RUSTFLAGS", "-C target-feature=+crt-static");
    command::run(&mut cargo)?;
    Ok(folder.join(target).join("debug/load-bpf"))
}
