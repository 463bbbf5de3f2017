//! One run of an emulated machine.

use std::{
    fs,
    path::Path,
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::command;

const QEMU: &str = "qemu-system-x86_64";
/// Many times what a boot with software emulation takes.
const PATIENCE: Duration = Duration::from_mins(10);
const POLL: Duration = Duration::from_millis(100);
const MEMORY: &str = "2048M";
/// When `/init` ends the kernel panics, which reboots at once, which ends QEMU.
const KERNEL_ARGUMENTS: &str = "console=ttyS0 loglevel=3 panic=-1 rdinit=/init";

/// Boots the kernel and returns what it wrote to its console until it stopped.
pub(super) fn run(vmlinuz: &Path, initramfs: &Path, console: &Path) -> Result<String> {
    let qemu = command::find(QEMU)
        .with_context(|| format!("{QEMU} is missing; `make verify-kernel` installs it"))?;
    let log = fs::File::create(console).with_context(|| format!("create {}", console.display()))?;
    let mut machine = command::program(qemu);
    machine
        .args(["-accel", "tcg", "-cpu", "max", "-m", MEMORY, "-nographic", "-no-reboot", "-nodefaults"])
        .args(["-serial", "stdio", "-append", KERNEL_ARGUMENTS, "-kernel"])
        .arg(vmlinuz)
        .arg("-initrd")
        .arg(initramfs);
    let child = machine.stdin(Stdio::null()).stdout(log).spawn().with_context(|| format!("start {QEMU}"))?;
    wait(child)?;
    let written = fs::read(console).with_context(|| format!("read {}", console.display()))?;
    Ok(String::from_utf8_lossy(&written).replace('\r', ""))
}

fn wait(mut child: Child) -> Result<()> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().context("wait for QEMU")? {
            if status.success() {
                return Ok(());
            }
            bail!("QEMU failed: {status}");
        }
        if start.elapsed() > PATIENCE {
            child.kill().context("end QEMU")?;
            child.wait().context("wait for QEMU")?;
            bail!("the machine did not stop within {} s", PATIENCE.as_secs());
        }
        thread::sleep(POLL);
    }
}
