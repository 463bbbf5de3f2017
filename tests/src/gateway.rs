//! The gateway on a simulated machine, with its folder of manifests.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::binaries::Binary;
use crate::command::Answer;
use crate::daemon::Daemon;
use crate::host::Host;
use crate::json;
use crate::net::Underlay;
use crate::process::Process;
use crate::wait::wait_ok;

pub mod objects;

use objects::Objects;

/// How long the gateway may take to be ready.
const READY: Duration = Duration::from_secs(10);

/// Mesh addresses come from these.
pub const POOLS: [&str; 2] = ["10.244.240.0/20", "fd00:244::/112"];

/// Pods have addresses of these.
pub const POD_PREFIXES: [&str; 2] = ["10.100.0.0/16", "fd00:100::/32"];

/// A gateway.
#[derive(Debug)]
pub struct Gateway {
    host: Host,
    folder: PathBuf,
    objects: Objects,
    daemon: Daemon,
}

impl Gateway {
    /// Starts a gateway on `host` with default settings.
    pub fn start(host: &Host) -> Result<Self> {
        Self::start_with(host, Underlay::Dual, "")
    }

    /// Starts one that agents reach by these families, with further lines of configuration.
    pub fn start_with(host: &Host, advertised: Underlay, settings: &str) -> Result<Self> {
        let mut gateway = Self::configured(host, advertised, settings)?;
        gateway.launch()?;
        Ok(gateway)
    }

    /// A gateway that does not run yet.
    pub fn configured(host: &Host, advertised: Underlay, settings: &str) -> Result<Self> {
        let folder = host.folder().join("gateway");
        let manifests = folder.join("manifests");
        std::fs::create_dir_all(&manifests)?;
        let objects = Objects::try_new(host, &manifests)?;
        Self::with_objects(host, advertised, settings, objects)
    }

    /// The same, with objects in a place of their own.
    pub fn with_objects(host: &Host, advertised: Underlay, settings: &str, objects: Objects) -> Result<Self> {
        let folder = host.folder().join("gateway");
        std::fs::create_dir_all(&folder)?;
        let (v4, v6) = (format!("\"{}:7443\"", host.v4()), format!("\"[{}]:7443\"", host.v6()));
        let advertise = match advertised {
            Underlay::Dual => format!("{v4}, {v6}"),
            Underlay::V4 => v4,
            Underlay::V6 => v6,
        };
        let mut text = String::new();
        text.push_str(&objects.settings());
        writeln!(text, "stateDir: {}", folder.join("state").display())?;
        writeln!(text, "advertise: [{advertise}]")?;
        for (key, prefixes) in [("workloadPools", POOLS), ("podPrefixes", POD_PREFIXES)] {
            if !settings.contains(key) {
                writeln!(text, "{key}: [{}]", prefixes.map(|prefix| format!("\"{prefix}\"")).join(", "))?;
            }
        }
        text.push_str(settings);
        std::fs::write(folder.join("gateway.yaml"), text)?;
        Ok(Self { host: host.clone(), folder, objects, daemon: Daemon::new("gateway") })
    }

    /// Another one of the same mesh on `host`, which does not run yet. Hosts reach both by IPv4, and try that one first.
    pub fn replica(&mut self, host: &Host) -> Result<Self> {
        let folder = host.folder().join("gateway");
        std::fs::create_dir_all(&folder)?;
        let advertise = format!("advertise: [\"{}:7443\", \"{}:7443\"]", host.v4(), self.host.v4());
        let text = std::fs::read_to_string(self.config())?;
        let with = |state: PathBuf| {
            let line = |line: &str| match line.split_once(':') {
                Some(("advertise", _)) => advertise.clone(),
                Some(("stateDir", _)) => format!("stateDir: {}", state.display()),
                _ => line.to_owned(),
            };
            text.lines().map(line).fold(String::new(), |text, line| text + &line + "\n")
        };
        std::fs::write(folder.join("gateway.yaml"), with(folder.join("state")))?;
        std::fs::write(self.config(), with(self.folder.join("state")))?;
        let objects = Objects::Folder(folder.join("manifests"));
        Ok(Self { host: host.clone(), folder, objects, daemon: Daemon::new("gateway") })
    }

    /// Starts the process, which serves once it has the lease.
    pub fn stand_by(&mut self) -> Result<()> {
        let process = self.spawn()?;
        self.daemon.runs(process);
        Ok(())
    }

    /// Starts the process and waits until it has read its manifests.
    pub fn launch(&mut self) -> Result<()> {
        let (process, socket) = (self.spawn()?, self.socket());
        self.daemon.serves(process, &socket)?;
        self.wait_status("a synced gateway", |status| json::flag(status, "synced"))?;
        Ok(())
    }

    /// Starts the process and waits for nothing.
    pub fn spawn(&self) -> Result<Process> {
        Binary::Gateway.path()?;
        let config = self.config().display().to_string();
        self.host.spawn("gateway", &[Binary::Gateway.name(), "serve", "--config", &config])
    }

    /// The machine it is on.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Its configuration file.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.folder.join("gateway.yaml")
    }

    /// Its admin socket, as this process sees it.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        let holder = self.host.namespace().holder();
        PathBuf::from(format!("/proc/{holder}/root/run/outrigger-gateway/admin.sock"))
    }

    /// The file of its audit stream.
    #[must_use]
    pub fn audit_log(&self) -> PathBuf {
        self.folder.join("state/audit.log")
    }

    /// Its folder of manifests.
    #[must_use]
    pub fn manifests(&self) -> PathBuf {
        self.folder.join("manifests")
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

    /// Saves a manifest, as an editor does; returns when, by the monotonic clock.
    pub fn apply(&self, file: &str, yaml: &str) -> Result<u64> {
        self.objects.apply(file, yaml)
    }

    /// Removes a manifest.
    pub fn remove(&self, file: &str) -> Result<()> {
        self.objects.remove(file)
    }

    /// Where its objects are.
    pub fn objects(&mut self) -> &mut Objects {
        &mut self.objects
    }

    /// Runs `outrigger-gateway` with these words, whatever it answers.
    pub fn command(&self, words: &[&str]) -> Result<Answer> {
        let all: Vec<&str> = std::iter::once(Binary::Gateway.name()).chain(words.iter().copied()).collect();
        self.host.run(&all)
    }

    /// What `outrigger-gateway status` says.
    pub fn status(&self) -> Result<Value> {
        self.command(&["status", "-o", "json"])?.json()
    }

    /// Waits until the status satisfies `condition`.
    pub fn wait_status(&self, what: &str, condition: impl Fn(&Value) -> bool) -> Result<Value> {
        wait_ok(what, READY, || {
            let status = self.status()?;
            anyhow::ensure!(condition(&status), "{status:#}");
            Ok(status)
        })
        .with_context(|| self.daemon.output())
    }

    /// A token for a group; `more` are further options.
    pub fn token(&self, group: &str, more: &[&str]) -> Result<Token> {
        self.create(&["--group", group], more)
    }

    /// A token for the transit node of a cluster node.
    pub fn transit_token(&self, node: &str) -> Result<Token> {
        self.create(&["--transit-node", node], &[])
    }

    /// A token for a cluster node that is no transit node.
    pub fn node_token(&self, node: &str) -> Result<Token> {
        self.create(&["--node", node], &[])
    }

    fn create(&self, whom: &[&str], more: &[&str]) -> Result<Token> {
        let words = [&["token", "create"], whom, more, &["-o", "json"]].concat();
        let answer = self.command(&words)?.json()?;
        let token =
            Token { id: json::text(&answer, "id").to_owned(), text: json::text(&answer, "token").to_owned() };
        if token.id.is_empty() || token.text.is_empty() {
            bail!("no id or no token in {answer}");
        }
        Ok(token)
    }

    /// What `workload list` says.
    pub fn workloads(&self) -> Result<Vec<Value>> {
        let answer = self.command(&["workload", "list", "-o", "json"])?.json()?;
        Ok(json::list(&answer, "workloads").to_vec())
    }

    /// The records of the audit stream.
    pub fn audit(&self) -> Result<Vec<Value>> {
        let path = self.audit_log();
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        text.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
    }
}

/// A join token.
#[derive(Clone, Debug)]
pub struct Token {
    /// Its public name.
    pub id: String,
    /// What a host joins with.
    pub text: String,
}
