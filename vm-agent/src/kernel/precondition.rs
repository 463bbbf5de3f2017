//! What has to be true of a host before anything is loaded.

use std::fmt;
use std::path::Path;

use aya::maps::MapType;
use aya::programs::ProgramType;
use aya::sys::{is_map_supported, is_program_supported};
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use super::KernelConfig;
use super::error::{KernelError, on_file};

/// Where systemd mounts the BPF file system.
const DEFAULT_BPFFS: &str = "/sys/fs/bpf";

/// One thing that was looked at.
#[derive(Debug)]
pub struct Precondition {
    /// What was looked at.
    pub what: &'static str,
    /// Whether it is as it has to be.
    pub result: Result<(), KernelError>,
}

/// Looks at every precondition, without changing anything.
#[must_use]
pub fn preflight(config: &KernelConfig) -> Vec<Precondition> {
    let permitted = permission();
    let may_probe = permitted.is_ok();
    let mut found = vec![Precondition { what: "permission", result: permitted }];
    if may_probe {
        found.push(Precondition { what: "kernel features", result: features() });
    }
    found.push(Precondition { what: "BPF file system", result: bpffs(&config.bpffs) });
    found
}

/// Requires every precondition. Mounts the BPF file system at its usual place if the configured folder is there and
/// nothing is mounted.
pub(super) fn require(config: &KernelConfig) -> Result<(), KernelError> {
    permission()?;
    features()?;
    match bpffs(&config.bpffs) {
        Err(KernelError::NoBpffs { .. }) if config.bpffs.starts_with(DEFAULT_BPFFS) => {
            tracing::info!(path = DEFAULT_BPFFS, "mounting the BPF file system");
            let none: Option<&str> = None;
            mount(Some("bpf"), DEFAULT_BPFFS, Some("bpf"), MsFlags::empty(), none)
                .map_err(|errno| on_file("mount the BPF file system at", DEFAULT_BPFFS)(errno.into()))?;
            bpffs(&config.bpffs)
        }
        result => result,
    }
}

/// The capabilities this process needs, by their bits (capabilities(7)).
fn permission() -> Result<(), KernelError> {
    const NET_ADMIN: u32 = 12;
    const SYS_ADMIN: u32 = 21;
    const PERFMON: u32 = 38;
    const BPF: u32 = 39;
    let path = "/proc/self/status";
    let status = std::fs::read_to_string(path).map_err(on_file("read", path))?;
    let effective = effective_capabilities(&status).unwrap_or(0);
    let has = |bit: u32| effective & (1 << bit) != 0;
    if !has(NET_ADMIN) {
        return Err(KernelError::NotPermitted("CAP_NET_ADMIN"));
    }
    let may_load = has(SYS_ADMIN) || (has(BPF) && has(PERFMON));
    if !may_load {
        return Err(KernelError::NotPermitted("CAP_BPF"));
    }
    Ok(())
}

fn effective_capabilities(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

/// Probes what a kernel may lack. What cannot be probed shows when the programs are loaded.
fn features() -> Result<(), KernelError> {
    const FLOOR: Version = Version(5, 10);
    const MAPS: [(MapType, &str, &str); 6] = [
        (MapType::RingBuf, "BPF ring buffer (CONFIG_BPF_SYSCALL)", "5.8"),
        (MapType::LpmTrie, "BPF longest-prefix trie", "4.11"),
        (MapType::LruHash, "BPF LRU hash", "4.10"),
        (MapType::ArrayOfMaps, "BPF array of maps", "4.12"),
        (MapType::ProgramArray, "BPF tail calls", "4.2"),
        (MapType::PerCpuArray, "BPF per-CPU array", "4.6"),
    ];
    let release = nix::sys::utsname::uname()
        .map_or_else(|_| String::new(), |name| name.release().to_string_lossy().into_owned());
    if is_realtime(&std::fs::read_to_string(REALTIME).unwrap_or_default()) {
        return Err(KernelError::Realtime(release));
    }
    if Version::of(&release).is_some_and(|version| version < FLOOR) {
        let feature = "support for this agent's programs";
        return Err(KernelError::MissingFeature { feature, since: "5.10", running: release });
    }
    let missing = |feature, since| KernelError::MissingFeature { feature, since, running: release.clone() };
    if !is_program_supported(ProgramType::SchedClassifier).unwrap_or(true) {
        return Err(missing("traffic classification by BPF (CONFIG_NET_CLS_BPF)", "4.1"));
    }
    match MAPS.into_iter().find(|(kind, ..)| !is_map_supported(*kind).unwrap_or(true)) {
        Some((_, feature, since)) => Err(missing(feature, since)),
        None => Ok(()),
    }
}

/// Where a kernel built with `PREEMPT_RT` says so.
const REALTIME: &str = "/sys/kernel/realtime";

fn is_realtime(text: &str) -> bool {
    text.trim() == "1"
}

/// Whether the folder, or the nearest one above it that exists, is on a BPF file system.
fn bpffs(folder: &Path) -> Result<(), KernelError> {
    let nearest = folder.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(folder);
    let is_bpffs = statfs(nearest).is_ok_and(|found| found.filesystem_type() == BPF_FS_MAGIC);
    if is_bpffs { Ok(()) } else { Err(KernelError::NoBpffs { path: nearest.to_owned() }) }
}

/// The first two numbers of a kernel's version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Version(u32, u32);

impl Version {
    fn of(release: &str) -> Option<Self> {
        let mut numbers = release.split(|c: char| !c.is_ascii_digit());
        Some(Self(numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    }
}

impl fmt::Display for Precondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.result {
            Ok(()) => write!(f, "{}: ok", self.what),
            Err(error) => write!(f, "{}: {error}", self.what),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_says_so_is_realtime() {
        assert!(is_realtime("1\n"));
        assert!(!is_realtime("0\n") && !is_realtime(""));
    }

    #[test]
    fn versions_compare_by_number() {
        assert_eq!(Version::of("6.18.44-fc-v657"), Some(Version(6, 18)));
        assert!(Version::of("5.9.16") < Version::of("5.10.0-28-amd64"));
        assert_eq!(Version::of("strange"), None);
    }

    #[test]
    fn capabilities_are_read_from_the_status() {
        assert_eq!(effective_capabilities("Name:\tx\nCapEff:\t0000000000001000\n"), Some(1 << 12));
        assert_eq!(effective_capabilities("Name:\tx\n"), None);
    }
}
