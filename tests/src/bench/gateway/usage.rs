//! What a process and its connections use, as the kernel counts it.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::namespace::Namespace;
use crate::wait::wait_for;

/// Ticks a second of `/proc/<pid>/stat`; fixed by the kernel's interface.
const TICKS: u64 = 100;
/// Longer than a gateway waits until it gives memory back.
const REST: Duration = Duration::from_secs(7);
/// Bytes of a page.
const PAGE: u64 = 4096;

/// CPU time that a process used since its start, in user and in kernel mode.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cpu {
    pub(super) user: Duration,
    pub(super) kernel: Duration,
}

impl Cpu {
    pub(super) fn of(pid: u32) -> Result<Self> {
        let text = read(format!("/proc/{pid}/stat"))?;
        // What is in parentheses is the program's name.
        let (_, fields) = text.rsplit_once(')').context("no name in stat")?;
        let field = |index: usize| -> Result<Duration> {
            let ticks: u64 =
                fields.split_whitespace().nth(index).context("too few fields in stat")?.parse()?;
            Ok(Duration::from_millis(ticks * 1000 / TICKS))
        };
        Ok(Self { user: field(11)?, kernel: field(12)? })
    }

    pub(super) fn since(self, before: Self) -> Self {
        Self {
            user: self.user.saturating_sub(before.user),
            kernel: self.kernel.saturating_sub(before.kernel),
        }
    }

    pub(super) fn total(self) -> Duration {
        self.user + self.kernel
    }
}

/// Resident memory of a process, in bytes.
pub(super) fn resident(pid: u32) -> Result<u64> {
    let status = read(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}

/// The same once it rests: a gateway gives memory back every few seconds while connections or the state change.
pub(super) fn rested(pid: u32) -> Result<u64> {
    let (mut last, mut since) = (resident(pid)?, Instant::now());
    wait_for("memory to rest", Duration::from_mins(1), || {
        let now = resident(pid).unwrap_or_default();
        if now.abs_diff(last) > last / 100 {
            (last, since) = (now, Instant::now());
        }
        since.elapsed() > REST
    })?;
    resident(pid)
}

/// Memory in the buffers of all TCP sockets of the machine, in bytes; both ends of each connection are here.
pub(super) fn buffers() -> Result<u64> {
    let text = read("/proc/net/sockstat")?;
    let line = text.lines().find(|line| line.starts_with("TCP:")).context("no TCP in sockstat")?;
    let pages = line.split_whitespace().last().context("no memory in sockstat")?;
    Ok(pages.parse::<u64>()? * PAGE)
}

/// Memory of the machine in kernel objects (sockets among them), in bytes.
pub(super) fn kernel_objects() -> Result<u64> {
    let text = read("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("Slab:")).context("no Slab in meminfo")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}

/// Bytes that went over a namespace's loopback device, headers included.
pub(super) fn loopback(namespace: &Namespace) -> Result<u64> {
    let text = read(format!("/proc/{}/net/dev", namespace.holder()))?;
    let line = text.lines().find_map(|line| line.trim().strip_prefix("lo:")).context("no lo")?;
    Ok(line.split_whitespace().next().context("no bytes of lo")?.parse()?)
}

fn read(path: impl AsRef<Path>) -> Result<String> {
    let path = path.as_ref();
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}
