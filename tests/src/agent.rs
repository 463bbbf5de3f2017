//! The agent of a simulated machine, as its service and its command.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::binaries::Binary;
use crate::command::Answer;
use crate::daemon::Daemon;
use crate::host::Host;
use crate::json;
use crate::process::Process;
use crate::wait::wait_ok;

/// How long the agent may take to serve its socket, or to be in a phase.
const READY: Duration = Duration::from_secs(10);

/// Exit code of commands on a host that has not joined.
pub const NOT_JOINED: i32 = 3;

/// An agent.
#[derive(Debug)]
pub struct Agent {
    host: Host,
    config: PathBuf,
    daemon: Daemon,
    addresses: OnceLock<[IpAddr; 2]>,
}

impl Agent {
    /// Starts the agent of `host` with default settings.
    pub fn start(host: &Host) -> Result<Self> {
        Self::start_with(host, "")
    }

    /// Starts it with further lines of configuration.
    pub fn start_with(host: &Host, settings: &str) -> Result<Self> {
        let mut agent = Self::configured(host, settings)?;
        agent.launch()?;
        Ok(agent)
    }

    /// An agent that does not run yet.
    pub fn configured(host: &Host, settings: &str) -> Result<Self> {
        let folder = host.folder();
        let config = folder.join("agent.yaml");
        let mut text = String::new();
        for (key, file) in
            [("stateDir", "state"), ("machineIdFile", "machine-id"), ("dmiUuidFile", "product_uuid")]
        {
            writeln!(text, "{key}: {}", folder.join(file).display())?;
        }
        text.push_str(settings);
        std::fs::write(&config, text)?;
        Ok(Self { host: host.clone(), config, daemon: Daemon::new("agent"), addresses: OnceLock::new() })
    }

    /// Starts the process and waits until it answers.
    pub fn launch(&mut self) -> Result<()> {
        let (process, socket) = (self.spawn()?, self.socket());
        self.daemon.serves(process, &socket)
    }

    /// Starts the process and waits for nothing.
    pub fn spawn(&self) -> Result<Process> {
        Binary::Agent.path()?;
        let config = self.config.display().to_string();
        self.host.spawn("agent", &[Binary::Agent.name(), "--config", &config])
    }

    /// The machine it is on.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Its configuration file.
    #[must_use]
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// Its admin socket, as this process sees it.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        let holder = self.host.namespace().holder();
        PathBuf::from(format!("/proc/{holder}/root/run/outrigger/default.sock"))
    }

    /// The folder with its keys and its last good state.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.host.folder().join("state/default")
    }

    /// The running process.
    pub fn process(&mut self) -> Result<&mut Process> {
        self.daemon.process()
    }

    /// Kills it (`SIGKILL`).
    pub fn kill(&mut self) -> Result<()> {
        self.daemon.kill()
    }

    /// Stops it as a service manager would.
    pub fn stop(&mut self) -> Result<()> {
        self.daemon.stop()
    }

    /// Runs `outrigger` with these words, whatever it answers.
    pub fn command(&self, words: &[&str]) -> Result<Answer> {
        self.command_with(words, "")
    }

    /// Runs `outrigger` with these words and this input.
    pub fn command_with(&self, words: &[&str], input: &str) -> Result<Answer> {
        Binary::Command.path()?;
        let all: Vec<&str> = std::iter::once(Binary::Command.name()).chain(words.iter().copied()).collect();
        self.host.run_with(&all, input)
    }

    /// Joins with a token.
    pub fn join(&self, token: &str) -> Result<Answer> {
        self.try_join(token)?.ok()
    }

    /// Joins with a token, whatever comes of it.
    pub fn try_join(&self, token: &str) -> Result<Answer> {
        self.command_with(&["join", "--token-stdin"], &format!("{token}\n"))
    }

    /// What `outrigger status` says, also of a host that has not joined.
    pub fn status(&self) -> Result<Value> {
        let answer = self.command(&["status", "-o", "json"])?;
        if answer.code != Some(NOT_JOINED) {
            return answer.json();
        }
        serde_json::from_str(&answer.stdout).with_context(|| format!("no JSON: {answer}"))
    }

    /// Waits until the status satisfies `condition`.
    pub fn wait_status(&self, what: &str, condition: impl Fn(&Value) -> bool) -> Result<Value> {
        wait_ok(what, READY, || {
            let status = self.status()?;
            anyhow::ensure!(condition(&status), "{status:#}");
            Ok(status)
        })
        .with_context(|| format!("agent of {}", self.host.name()))
    }

    /// Waits until it is joined, enforces and is connected.
    pub fn wait_enforcing(&self) -> Result<Value> {
        self.wait_status("an enforcing, connected agent", |status| {
            json::text(status, "phase") == "enforcing" && json::flag(status, "connected")
        })
    }

    /// Waits until it says this is wrong.
    pub fn wait_error(&self, words: &str) -> Result<Value> {
        self.wait_status(words, |status| json::text(status, "last_error").contains(words))
    }

    /// Its mesh addresses, IPv4 first. They stay the same, so they are asked for once and known without the agent.
    pub fn addresses(&self) -> Result<[IpAddr; 2]> {
        if let Some(known) = self.addresses.get() {
            return Ok(*known);
        }
        let found = json::addresses(&self.status()?, "mesh_addresses")?;
        match found.as_slice() {
            [v4, v6] => Ok(*self.addresses.get_or_init(|| [*v4, *v6])),
            other => bail!("expected two mesh addresses of {}: {other:?}", self.host.name()),
        }
    }

    /// Its identity.
    pub fn identity(&self) -> Result<u64> {
        Ok(json::number(&self.status()?, "identity"))
    }

    /// Packets counted under a reason, both directions.
    pub fn counted(&self, reason: &str) -> Result<u64> {
        let status = self.status()?;
        let counters = json::list(json::at(&status, &["counters"]), "counters");
        let ours = counters.iter().filter(|counter| json::text(counter, "reason") == reason);
        Ok(ours.map(|counter| json::number(counter, "packets")).sum())
    }

    /// Starts `outrigger monitor -o json`.
    pub fn monitor(&self, label: &str) -> Result<Process> {
        self.host.spawn(label, &[Binary::Command.name(), "monitor", "-o", "json"])
    }
}

/// The events that a monitor printed so far.
#[must_use]
pub fn events(monitor: &Process) -> Vec<Value> {
    monitor.stdout().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}
