//! A simulated machine on the underlay, with the files that make it a machine of its own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::binaries::{self, Binary};
use crate::command::{Answer, run};
use crate::namespace::Namespace;
use crate::net::{Net, Underlay};
use crate::process::Process;

/// How long a command may take that is not expected to.
const LIMIT: Duration = Duration::from_secs(20);

/// A simulated machine; clones are handles to the same one.
#[derive(Clone, Debug)]
pub struct Host(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: String,
    namespace: Namespace,
    v4: Ipv4Addr,
    v6: Ipv6Addr,
    families: Underlay,
    folder: PathBuf,
    net: Net,
}

impl Host {
    pub(crate) fn try_new(
        net: Net,
        name: &str,
        namespace: Namespace,
        (v4, v6): (Ipv4Addr, Ipv6Addr),
        families: Underlay,
    ) -> Result<Self> {
        let folder = net.folder().join(name);
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let seed = v4.to_bits();
        std::fs::write(folder.join("machine-id"), format!("{seed:032x}\n"))?;
        std::fs::write(folder.join("product_uuid"), format!("{seed:08x}-0000-4000-8000-{seed:012x}\n"))?;
        Ok(Self(Arc::new(Inner { name: name.to_owned(), namespace, v4, v6, families, folder, net })))
    }

    /// Its name, also its hostname.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Its IPv4 underlay address.
    #[must_use]
    pub fn v4(&self) -> Ipv4Addr {
        self.0.v4
    }

    /// Its IPv6 underlay address.
    #[must_use]
    pub fn v6(&self) -> Ipv6Addr {
        self.0.v6
    }

    /// An underlay address that it has, IPv4 if it has both.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        match self.0.families {
            Underlay::Dual | Underlay::V4 => self.0.v4.into(),
            Underlay::V6 => self.0.v6.into(),
        }
    }

    /// Its own files.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.0.folder
    }

    /// The network it is in.
    #[must_use]
    pub fn net(&self) -> &Net {
        &self.0.net
    }

    /// Its namespaces.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.0.namespace
    }

    /// A command that will run on it, with the project's programs in its path.
    pub fn command(&self, program: &str) -> Result<Command> {
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = self.0.namespace.command(program);
        command.env("PATH", format!("{}:{path}", binaries::folder()?.display()));
        // The programs take their settings from variables too, and curl its proxy; those of the tester's shell are
        // not meant.
        let ours = |name: &str| name.starts_with("OUTRIGGER_") || name.to_lowercase().ends_with("_proxy");
        for (name, _) in std::env::vars_os().filter(|(name, _)| ours(&name.to_string_lossy())) {
            command.env_remove(name);
        }
        Ok(command)
    }

    /// Runs a command to its end, whatever it answers.
    pub fn run(&self, words: &[&str]) -> Result<Answer> {
        self.run_with(words, "")
    }

    /// Runs a command that reads `input`.
    pub fn run_with(&self, words: &[&str], input: &str) -> Result<Answer> {
        let (program, args) = words.split_first().context("no program named")?;
        let mut answer = run(self.command(program)?.args(args), input.as_bytes(), LIMIT)?;
        answer.line = format!("{}# {}", self.name(), words.join(" "));
        Ok(answer)
    }

    /// Starts a command that stays.
    pub fn spawn(&self, label: &str, words: &[&str]) -> Result<Process> {
        let (program, args) = words.split_first().context("no program named")?;
        let label = format!("{}-{label}", self.name());
        Process::start(&label, self.command(program)?.args(args), &self.0.net.logs())
    }

    /// Starts one of this package's traffic tools.
    pub fn traffic(&self, label: &str, args: &str) -> Result<Process> {
        Binary::Traffic.path()?;
        let words: Vec<&str> = std::iter::once("traffic").chain(args.split_whitespace()).collect();
        self.spawn(label, &words)
    }

    /// The routes of both families, as `ip` lists them.
    pub fn routes(&self) -> Result<String> {
        let v4 = self.run(&["ip", "-4", "route", "show", "table", "all"])?.ok()?.stdout;
        let v6 = self.run(&["ip", "-6", "route", "show", "table", "all"])?.ok()?.stdout;
        Ok(v4 + &v6)
    }

    /// The devices and their addresses.
    pub fn devices(&self) -> Result<Value> {
        self.run(&["ip", "-j", "address", "show"])?.json()
    }
}
