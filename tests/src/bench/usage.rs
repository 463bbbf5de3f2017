//! What a process and its kernel maps use.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::host::Host;
use crate::wait::wait_for;

/// Where the agent serves its metrics, on its own machine.
const METRICS: ([u8; 4], u16) = ([127, 0, 0, 1], 9465);
/// Freed memory goes back to the system a second after the last change.
const REST: Duration = Duration::from_millis(1500);
/// Ticks a second of `/proc/PID/stat`; fixed by the kernel's interface.
const TICKS: u64 = 100;

/// Memory of a process, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Memory {
    /// Resident.
    pub(super) rss: u64,
    /// The same with shared pages in parts.
    pub(super) pss: u64,
    /// Of the resident, what is no file.
    pub(super) anonymous: u64,
    /// The most that was resident.
    pub(super) peak: u64,
}

/// Reads it now.
pub(super) fn memory(pid: u32) -> Result<Memory> {
    let status = read(&format!("/proc/{pid}/status"))?;
    let rollup = read(&format!("/proc/{pid}/smaps_rollup"))?;
    let of = |text: &str, name: &str| -> Result<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_suffix(" kB"));
        let kilobytes: u64 = line.with_context(|| format!("no {name}"))?.trim().parse()?;
        Ok(kilobytes * 1024)
    };
    Ok(Memory {
        rss: of(&status, "VmRSS:")?,
        pss: of(&rollup, "Pss:")?,
        anonymous: of(&status, "RssAnon:")?,
        peak: of(&status, "VmHWM:")?,
    })
}

/// Reads it once it rests.
pub(super) fn settled(pid: u32) -> Result<Memory> {
    let mut last = memory(pid)?;
    let mut since = Instant::now();
    wait_for("memory to rest", Duration::from_secs(20), || {
        let now = memory(pid).unwrap_or_default();
        if now.rss.abs_diff(last.rss) > 64 * 1024 {
            (last, since) = (now, Instant::now());
        }
        since.elapsed() > REST
    })?;
    memory(pid)
}

/// CPU time of a process so far, in user mode and in the kernel.
pub(super) fn cpu(pid: u32) -> Result<Duration> {
    let text = read(&format!("/proc/{pid}/stat"))?;
    // The name of the program, in parentheses, may hold anything.
    let (_, fields) = text.rsplit_once(") ").context("no name")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    let ticks = |at: usize| -> Result<u64> { Ok(fields.get(at).context("a field")?.parse()?) };
    Ok(Duration::from_millis((ticks(11)? + ticks(12)?) * 1000 / TICKS))
}

/// What the agent of a host answers to a request of its metrics port.
fn ask(host: &Host, path: &str) -> Result<String> {
    host.namespace().inside(|| {
        let mut stream = TcpStream::connect(SocketAddr::from(METRICS))?;
        write!(stream, "GET {path} HTTP/1.1\r\nhost: agent\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    })
}

/// Whether it enforces.
pub(super) fn is_ready(host: &Host) -> bool {
    ask(host, "/readyz").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}

/// Kernel memory of its maps, in bytes.
pub(super) fn map_memory(host: &Host) -> Result<f64> {
    let metrics = ask(host, "/metrics")?;
    let lines = metrics.lines().filter(|line| line.starts_with("outrigger_agent_map_memory_bytes{"));
    let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    Ok(values.sum())
}

fn read(path: &str) -> Result<String> {
    std::fs::read_to_string(Path::new(path)).with_context(|| format!("cannot read {path}"))
}
