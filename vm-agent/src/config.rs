//! What an administrator may set: one YAML file, every key also a flag and an environment variable.
//!
//! A flag wins over the environment, that over the file, that over the default. The types of the values refuse
//! what is invalid where it is read, so that an error names the file, flag or variable it came from. Nothing here
//! is a secret, and nothing a gateway says ends up here.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;
use ipnet::IpNet;
use serde::Deserialize;
use telemetry::logging::LogFormat;

mod value;

use crate::failsafe::{Failsafe, Failsafes};
use ::config::{HostPort, InvalidFile, List};
pub use value::{DeviceName, MeshName, Mtu, Seconds};

/// Where the configuration file is unless `--config` says otherwise. A missing file there is no error.
pub const DEFAULT_FILE: &str = "/etc/outrigger/agent.yaml";

/// The command line of the agent.
#[derive(Clone, Debug, clap::Parser)]
#[command(
    name = "outrigger-agent",
    version,
    about = "Enforces and forwards for this host. Started by systemd; the command `outrigger` talks to it.",
    after_help = "Every option is also a key of the configuration file (camelCase) and an environment variable.\n\
                  A flag wins over the environment, the environment over the file, the file over the default."
)]
pub struct Arguments {
    /// The configuration file.
    #[arg(long, env = "OUTRIGGER_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The keys as flags and environment variables.
    #[command(flatten)]
    pub options: Options,
}

/// Every key, each optional: what one source (the file, or flags and environment) says.
#[expect(clippy::doc_markdown, reason = "the text of a field is the help of its flag")]
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, clap::Args)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Options {
    /// Name of the mesh; part of the paths of state, socket and pins. [default: default]
    #[arg(long, env = "OUTRIGGER_MESH", value_name = "NAME")]
    #[serde(deserialize_with = "::config::text")]
    pub mesh: Option<MeshName>,
    /// Name of the mesh device. [default: ogr0]
    #[arg(long, env = "OUTRIGGER_DEVICE", value_name = "NAME")]
    #[serde(deserialize_with = "::config::text")]
    pub device: Option<DeviceName>,
    /// Folder of keys, certificates and the last good state. [default: /var/lib/outrigger]
    #[arg(long, env = "OUTRIGGER_STATE_DIR", value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Folder of the socket of the `outrigger` command. [default: /run/outrigger]
    #[arg(long, env = "OUTRIGGER_RUN_DIR", value_name = "DIR")]
    pub run_dir: Option<PathBuf>,
    /// Folder of the pinned programs and maps, on a bpffs. [default: /sys/fs/bpf/outrigger]
    #[arg(long, env = "OUTRIGGER_BPFFS", value_name = "DIR")]
    pub bpffs: Option<PathBuf>,
    /// Underlay addresses of this host, preferred first, instead of the discovered ones.
    #[arg(long, env = "OUTRIGGER_UNDERLAY_ADDRESSES", value_name = "ADDRESS,…")]
    pub underlay_addresses: Option<List<IpAddr>>,
    /// MTU of the mesh device, instead of the one derived from the underlay.
    #[arg(long, env = "OUTRIGGER_MTU", value_name = "BYTES")]
    #[serde(deserialize_with = "::config::text")]
    pub mtu: Option<Mtu>,
    /// The prefixes a gateway may have routed into the mesh; an empty list allows none. [default: any that
    /// passes the safety checks]
    #[arg(long, env = "OUTRIGGER_ALLOWED_CIDRS", value_name = "CIDR,…")]
    #[serde(rename = "allowedCIDRs")]
    pub allowed_cidrs: Option<List<IpNet>>,
    /// Gateways (`host:port`), instead of those the token and the gateway name.
    #[arg(long, env = "OUTRIGGER_GATEWAYS", value_name = "HOST:PORT,…")]
    pub gateways: Option<List<HostPort>>,
    /// The HTTP proxy (`host:port`) that connects to gateways, by CONNECT and without authentication. [default: none]
    #[arg(long, env = "OUTRIGGER_PROXY", value_name = "HOST:PORT")]
    #[serde(deserialize_with = "::config::text")]
    pub proxy: Option<HostPort>,
    /// On a cluster node: the token of the pod's service account, for the audience `outrigger`. The agent joins by itself with
    /// it. [default: none]
    #[arg(long, env = "OUTRIGGER_ACCOUNT_TOKEN_FILE", value_name = "FILE")]
    pub account_token_file: Option<PathBuf>,
    /// The file of the `ConfigMap` `outrigger-bootstrap`, which says where gateways are then, and which roots to trust. Needed
    /// with `accountTokenFile`. [default: none]
    #[arg(long, env = "OUTRIGGER_BOOTSTRAP_FILE", value_name = "FILE")]
    pub bootstrap_file: Option<PathBuf>,
    /// Where metrics and health are served. [default: 127.0.0.1:9465]
    #[arg(long, env = "OUTRIGGER_METRICS_LISTEN", value_name = "ADDRESS:PORT")]
    #[serde(deserialize_with = "::config::text")]
    pub metrics_listen: Option<SocketAddr>,
    /// The machine id that the state is bound to. [default: /etc/machine-id]
    #[arg(long, env = "OUTRIGGER_MACHINE_ID_FILE", value_name = "FILE")]
    pub machine_id_file: Option<PathBuf>,
    /// The hardware's UUID that the state is bound to. [default: /sys/class/dmi/id/product_uuid]
    #[arg(long, env = "OUTRIGGER_DMI_UUID_FILE", value_name = "FILE")]
    pub dmi_uuid_file: Option<PathBuf>,
    /// Name reported to the gateway and proposed at join. [default: the system's host name]
    #[arg(long, env = "OUTRIGGER_HOSTNAME", value_name = "NAME")]
    pub hostname: Option<String>,
    /// How logs are written. [default: text]
    #[arg(long, env = "OUTRIGGER_LOG_FORMAT", value_name = "text|json|journald")]
    #[serde(deserialize_with = "::config::text")]
    pub log_format: Option<LogFormat>,
    /// What is logged: a level, or directives such as `info,vm_agent=debug`. [default: info]
    #[arg(long, env = "OUTRIGGER_LOG_LEVEL", value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// What holds on the NICs when the last good state cannot be enforced: the last policy that was confirmed there, or
    /// none. The mesh is unreachable either way. [default: failsafe]
    #[arg(long, env = "OUTRIGGER_ON_FAILURE", value_name = "MODE")]
    pub on_failure: Option<OnFailure>,
    /// What policy on the NICs never closes: ssh, gateway, dhcp, ntp, dns, tunnel. [default: all of them]
    #[arg(long, env = "OUTRIGGER_FAILSAFE", value_name = "KIND,…")]
    pub failsafe: Option<List<Failsafe>>,
    /// TCP ports that it never closes, beside those of sshd. [default: none]
    #[arg(long, env = "OUTRIGGER_FAILSAFE_PORTS", value_name = "PORT,…")]
    pub failsafe_ports: Option<List<NonZeroU16>>,
    /// From where these and sshd's are never closed. [default: anywhere]
    #[arg(long, env = "OUTRIGGER_FAILSAFE_SOURCES", value_name = "CIDR,…")]
    pub failsafe_sources: Option<List<IpNet>>,
    /// Seconds for which a new policy on the NICs is tried before it stays. [default: 30]
    #[arg(long, env = "OUTRIGGER_CONFIRM_WITHIN", value_name = "SECONDS")]
    #[serde(deserialize_with = "::config::text")]
    pub confirm_within: Option<Seconds>,
    /// Whether the workload's probes may run programs of this host, those in `probesDir`. [default: false]
    #[arg(long, env = "OUTRIGGER_EXEC_PROBES", value_name = "BOOL")]
    pub exec_probes: Option<bool>,
    /// As whom these run; not root. [default: nobody]
    #[arg(long, env = "OUTRIGGER_EXEC_PROBE_USER", value_name = "USER")]
    pub exec_probe_user: Option<String>,
    /// Where these are: a folder of root's. [default: /etc/outrigger/probes.d]
    #[arg(long, env = "OUTRIGGER_PROBES_DIR", value_name = "DIR")]
    pub probes_dir: Option<PathBuf>,
}

/// What holds on the NICs when the last good state cannot be enforced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// The last policy that was confirmed there.
    #[default]
    Failsafe,
    /// None.
    Open,
}

/// What a cluster gives to the pod of an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountFiles {
    /// The token of its service account.
    pub token: PathBuf,
    /// Where gateways are, and which roots to trust.
    pub bootstrap: PathBuf,
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidConfig {
    /// The file.
    #[error(transparent)]
    File(#[from] InvalidFile),
    /// One file is of no use without the other.
    #[error("{}: {key} needs {other} beside it", path.display())]
    Alone {
        /// The one.
        key: &'static str,
        /// The other.
        other: &'static str,
        /// The configuration file.
        path: PathBuf,
    },
}

/// The configuration: every key with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Name of the mesh.
    pub mesh: MeshName,
    /// Name of the mesh device.
    pub device: DeviceName,
    /// Folder of state; the mesh has a folder in it.
    pub state_dir: PathBuf,
    /// Folder of the socket.
    pub run_dir: PathBuf,
    /// Folder of pins.
    pub bpffs: PathBuf,
    /// Underlay addresses instead of the discovered ones; empty: discover.
    pub underlay_addresses: Vec<IpAddr>,
    /// MTU instead of the derived one.
    pub mtu: Option<Mtu>,
    /// What a gateway may have routed; `None`: whatever passes the safety checks.
    pub allowed_cidrs: Option<Vec<IpNet>>,
    /// Gateways instead of the known ones; empty: the known ones.
    pub gateways: Vec<HostPort>,
    /// The HTTP proxy that connects to gateways.
    pub proxy: Option<HostPort>,
    /// By what a cluster node joins by itself; `None`: somebody hands a token over.
    pub account: Option<AccountFiles>,
    /// Where metrics and health are served.
    pub metrics_listen: SocketAddr,
    /// File of the machine id.
    pub machine_id_file: PathBuf,
    /// File of the hardware's UUID.
    pub dmi_uuid_file: PathBuf,
    /// Host name; `None`: the system's.
    pub hostname: Option<String>,
    /// How logs are written.
    pub log_format: LogFormat,
    /// What is logged.
    pub log_level: String,
    /// What happens when the last good state cannot be enforced.
    pub on_failure: OnFailure,
    /// What policy on the NICs never closes.
    pub failsafes: Failsafes,
    /// How long a new policy on the NICs is tried.
    pub confirm_within: Duration,
    /// Whether probes may run programs.
    pub exec_probes: bool,
    /// As whom.
    pub exec_probe_user: String,
    /// Where these are.
    pub probes_dir: PathBuf,
}

impl Config {
    /// Reads the file that the arguments name and merges both.
    ///
    /// # Errors
    /// [`InvalidConfig`] if it cannot be read or says something invalid. A missing file is an error only if it was
    /// named.
    pub fn load(arguments: Arguments) -> Result<Self, InvalidConfig> {
        let (path, from_file) = ::config::load(arguments.config, DEFAULT_FILE)?;
        let options = arguments.options.or(from_file);
        match (&options.account_token_file, &options.bootstrap_file) {
            (Some(_), None) => {
                Err(InvalidConfig::Alone { key: "accountTokenFile", other: "bootstrapFile", path })
            }
            (None, Some(_)) => {
                Err(InvalidConfig::Alone { key: "bootstrapFile", other: "accountTokenFile", path })
            }
            (Some(_), Some(_)) | (None, None) => Ok(Self::from(options)),
        }
    }

    /// The socket of the `outrigger` command.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.run_dir.join(format!("{}.sock", self.mesh))
    }
}

impl Options {
    /// These options, and `other`'s where these say nothing.
    fn or(self, other: Self) -> Self {
        Self {
            mesh: self.mesh.or(other.mesh),
            device: self.device.or(other.device),
            state_dir: self.state_dir.or(other.state_dir),
            run_dir: self.run_dir.or(other.run_dir),
            bpffs: self.bpffs.or(other.bpffs),
            underlay_addresses: self.underlay_addresses.or(other.underlay_addresses),
            mtu: self.mtu.or(other.mtu),
            allowed_cidrs: self.allowed_cidrs.or(other.allowed_cidrs),
            gateways: self.gateways.or(other.gateways),
            proxy: self.proxy.or(other.proxy),
            account_token_file: self.account_token_file.or(other.account_token_file),
            bootstrap_file: self.bootstrap_file.or(other.bootstrap_file),
            metrics_listen: self.metrics_listen.or(other.metrics_listen),
            machine_id_file: self.machine_id_file.or(other.machine_id_file),
            dmi_uuid_file: self.dmi_uuid_file.or(other.dmi_uuid_file),
            hostname: self.hostname.or(other.hostname),
            log_format: self.log_format.or(other.log_format),
            log_level: self.log_level.or(other.log_level),
            on_failure: self.on_failure.or(other.on_failure),
            failsafe: self.failsafe.or(other.failsafe),
            failsafe_ports: self.failsafe_ports.or(other.failsafe_ports),
            failsafe_sources: self.failsafe_sources.or(other.failsafe_sources),
            confirm_within: self.confirm_within.or(other.confirm_within),
            exec_probes: self.exec_probes.or(other.exec_probes),
            exec_probe_user: self.exec_probe_user.or(other.exec_probe_user),
            probes_dir: self.probes_dir.or(other.probes_dir),
        }
    }
}

impl From<Options> for Config {
    fn from(options: Options) -> Self {
        let path =
            |given: Option<PathBuf>, default: &str| given.unwrap_or_else(|| Path::new(default).to_owned());
        Self {
            mesh: options.mesh.unwrap_or_default(),
            device: options.device.unwrap_or_default(),
            state_dir: path(options.state_dir, "/var/lib/outrigger"),
            run_dir: path(options.run_dir, "/run/outrigger"),
            bpffs: path(options.bpffs, "/sys/fs/bpf/outrigger"),
            underlay_addresses: options.underlay_addresses.map(|list| list.0).unwrap_or_default(),
            mtu: options.mtu,
            allowed_cidrs: options.allowed_cidrs.map(|list| list.0),
            gateways: options.gateways.map(|list| list.0).unwrap_or_default(),
            proxy: options.proxy,
            account: options
                .account_token_file
                .zip(options.bootstrap_file)
                .map(|(token, bootstrap)| AccountFiles { token, bootstrap }),
            metrics_listen: options.metrics_listen.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 9465))),
            machine_id_file: path(options.machine_id_file, "/etc/machine-id"),
            dmi_uuid_file: path(options.dmi_uuid_file, "/sys/class/dmi/id/product_uuid"),
            hostname: options.hostname.filter(|name| !name.is_empty()),
            log_format: options.log_format.unwrap_or_default(),
            log_level: options.log_level.unwrap_or_else(|| "info".to_owned()),
            on_failure: options.on_failure.unwrap_or_default(),
            failsafes: Failsafes {
                kinds: options.failsafe.map_or_else(|| Failsafes::default().kinds, |list| list.0),
                ports: options
                    .failsafe_ports
                    .map(|list| list.0.into_iter().map(NonZeroU16::get).collect())
                    .unwrap_or_default(),
                sources: options.failsafe_sources.map(|list| list.0),
            },
            confirm_within: options.confirm_within.unwrap_or_default().into(),
            exec_probes: options.exec_probes.unwrap_or_default(),
            exec_probe_user: options.exec_probe_user.unwrap_or_else(|| "nobody".to_owned()),
            probes_dir: path(options.probes_dir, "/etc/outrigger/probes.d"),
        }
    }
}

#[cfg(test)]
mod tests;
