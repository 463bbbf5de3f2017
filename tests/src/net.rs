//! A simulated network: an underlay that every machine is attached to, IPv4 and IPv6.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};

use crate::host::Host;
use crate::namespace::Namespace;
use crate::node::Node;
use crate::sweep;

/// The underlay's networks, also routed to each other and to nowhere else.
const UNDERLAY_V4: [u8; 3] = [172, 31, 0];
const UNDERLAY_V6: [u16; 4] = [0xfd31, 0, 0, 0];

/// Which families a machine's underlay addresses have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Underlay {
    /// Both.
    Dual,
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
}

/// A simulated network. Its machines are gone when it and their handles are.
#[derive(Clone, Debug)]
pub struct Net(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    serial: u32,
    underlay: Namespace,
    folder: PathBuf,
    next: AtomicU32,
}

impl Net {
    /// Makes a network; needs root.
    pub fn try_new() -> Result<Self> {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        if !nix::unistd::geteuid().is_root() {
            bail!(
                "these tests make network namespaces and load BPF programs, which needs root: run them with sudo"
            );
        }
        sweep::start()?;
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let folder = sweep::folder(serial);
        std::fs::create_dir_all(folder.join("logs"))
            .with_context(|| format!("cannot make {}", folder.display()))?;
        let underlay = Namespace::try_new(&sweep::name(serial, "underlay"), "underlay")?;
        underlay.ip(&format!(
            "link add br0 type bridge\nlink set br0 up\naddr add {}/24 dev br0\naddr add {}/64 dev br0 nodad",
            v4(1),
            v6(1)
        ))?;
        underlay.sysctl("net/ipv4/ip_forward", "1")?;
        underlay.sysctl("net/ipv6/conf/all/forwarding", "1")?;
        Ok(Self(Arc::new(Inner { serial, underlay, folder, next: AtomicU32::new(10) })))
    }

    /// A machine on the underlay with both families.
    pub fn host(&self, name: &str) -> Result<Host> {
        self.host_with(name, Underlay::Dual)
    }

    /// A machine on the underlay.
    pub fn host_with(&self, name: &str, families: Underlay) -> Result<Host> {
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        let namespace = Namespace::try_new(&sweep::name(self.0.serial, name), name)?;
        let (port, bridge) = (format!("port{number}"), self.0.underlay.name());
        let mut batch =
            format!("link add eth0 type veth peer name {port} netns {bridge}\nlink set eth0 up\n");
        let (a4, a6) = (v4(number), v6(number));
        if families != Underlay::V6 {
            let _ = writeln!(batch, "addr add {a4}/24 dev eth0\nroute add default via {} dev eth0", v4(1));
        }
        if families != Underlay::V4 {
            let _ =
                writeln!(batch, "addr add {a6}/64 dev eth0 nodad\nroute add default via {} dev eth0", v6(1));
        }
        namespace.ip(&batch)?;
        self.0.underlay.ip(&format!("link set {port} master br0\nlink set {port} up"))?;
        Host::try_new(self.clone(), name, namespace, (a4, a6), families)
    }

    /// A cluster node on the underlay, the `number`th of this network, to which pods can be added.
    pub fn node(&self, name: &str, number: u8) -> Result<Node> {
        Node::try_new(self.host(name)?, number)
    }

    /// Namespaces of a pod.
    pub(crate) fn namespace(&self, name: &str) -> Result<Namespace> {
        Namespace::try_new(&sweep::name(self.0.serial, name), name)
    }

    /// Where its machines' files are; removed with it.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.0.folder
    }

    /// Where its processes' outputs are.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.0.folder.join("logs")
    }

    /// Prints the ends of all outputs, for the reader of a failed test.
    pub fn show_logs(&self) {
        let entries = std::fs::read_dir(self.logs()).into_iter().flatten().flatten();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            if !lines.is_empty() {
                eprintln!("── {}", path.file_name().unwrap_or_default().to_string_lossy());
            }
            for line in lines.iter().skip(lines.len().saturating_sub(25)) {
                eprintln!("{line}");
            }
        }
    }

    /// The router's namespaces, through which everything that leaves by a default route comes.
    #[must_use]
    pub fn underlay(&self) -> &Namespace {
        &self.0.underlay
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The underlay's IPv4 address with this number.
fn v4(number: u32) -> Ipv4Addr {
    let [a, b, c] = UNDERLAY_V4;
    Ipv4Addr::new(a, b, c, u8::try_from(number).unwrap_or(u8::MAX))
}

/// The underlay's IPv6 address with this number.
fn v6(number: u32) -> Ipv6Addr {
    let [a, b, c, d] = UNDERLAY_V6;
    Ipv6Addr::new(a, b, c, d, 0, 0, 0, u16::try_from(number).unwrap_or(u16::MAX))
}
