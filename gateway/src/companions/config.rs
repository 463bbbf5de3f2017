//! What an administrator may set for the companions: one YAML file, every key also a flag and an environment variable.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use ::config::List;
use ipnet::IpNet;
use serde::Deserialize;
use telemetry::logging::LogFormat;

use crate::config::{DEFAULT_LOG, InvalidConfig, cluster_name, pools, value};
use crate::source::cluster;
use crate::store::Pools;

/// Where the configuration file is unless `--config` says otherwise. A missing file there is no error.
pub const DEFAULT_FILE: &str = "/etc/outrigger/companions.yaml";
/// Blocks of a companion at most: by default, and what may be set.
const DEFAULT_BLOCKS: usize = 1000;
const MAX_BLOCKS: usize = 10_000;

/// The options of `companions`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Arguments {
    /// The configuration file. [default: /etc/outrigger/companions.yaml]
    #[arg(long, env = "OUTRIGGER_COMPANIONS_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The keys as flags and environment variables.
    #[command(flatten)]
    pub options: Options,
}

/// Every key, each optional: what one source (the file, or flags and environment) says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, clap::Args)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Options {
    /// How the API is reached. [default: as a pod of the cluster]
    #[arg(long, env = "OUTRIGGER_COMPANIONS_KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Needed: the namespaces in which policies get companions; nothing is written elsewhere.
    #[arg(long, env = "OUTRIGGER_COMPANIONS_NAMESPACES", value_name = "NAME,…")]
    pub namespaces: Option<List<String>>,
    /// Needed: whether the addresses that the cluster's CNI sees are those of pods and external workloads, or whether something
    /// masquerades the traffic between them: then nothing is written.
    #[arg(long, env = "OUTRIGGER_COMPANIONS_SOURCE_ADDRESSES", value_name = "preserved|masqueraded")]
    #[serde(deserialize_with = "::config::text")]
    pub source_addresses: Option<SourceAddresses>,
    /// Needed: the gateway's `workloadPools`; companions have addresses of these only.
    #[arg(long, env = "OUTRIGGER_COMPANIONS_WORKLOAD_POOLS", value_name = "CIDR,…")]
    pub workload_pools: Option<List<IpNet>>,
    /// The gateway's `clusterName`, which selectors may name. [default: default]
    #[arg(long, env = "OUTRIGGER_COMPANIONS_CLUSTER_NAME", value_name = "NAME")]
    pub cluster_name: Option<String>,
    /// `ipBlock`s of a companion at most, 1 to 10000. [default: 1000]
    #[arg(long, env = "OUTRIGGER_COMPANIONS_MAX_BLOCKS", value_name = "NUMBER")]
    #[serde(deserialize_with = "::config::text")]
    pub max_blocks: Option<usize>,
    /// Where metrics and health are served. [default: 127.0.0.1:9466]
    #[arg(long, env = "OUTRIGGER_COMPANIONS_METRICS_LISTEN", value_name = "ADDRESS:PORT")]
    #[serde(deserialize_with = "::config::text")]
    pub metrics_listen: Option<SocketAddr>,
    /// How logs are written. [default: text]
    #[arg(long, env = "OUTRIGGER_COMPANIONS_LOG_FORMAT", value_name = "text|json|journald")]
    #[serde(deserialize_with = "::config::text")]
    pub log_format: Option<LogFormat>,
    /// What is logged: a level, or directives such as `info,gateway=debug`. [default: info, without what the Kubernetes
    /// client says itself]
    #[arg(long, env = "OUTRIGGER_COMPANIONS_LOG_LEVEL", value_name = "LEVEL")]
    pub log_level: Option<String>,
}

/// Whose addresses the cluster's CNI sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceAddresses {
    /// Those of the pod and of the external workload.
    Preserved,
    /// A node's, in one direction or the other.
    Masqueraded,
}

/// A word that says nothing about addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("source addresses are `preserved` or `masqueraded`")]
pub struct InvalidSourceAddresses;

impl FromStr for SourceAddresses {
    type Err = InvalidSourceAddresses;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "preserved" => Ok(Self::Preserved),
            "masqueraded" => Ok(Self::Masqueraded),
            _ => Err(InvalidSourceAddresses),
        }
    }
}

/// The configuration: every key with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Which cluster.
    pub cluster: cluster::Settings,
    /// The namespaces in which policies get companions, at least one.
    pub namespaces: BTreeSet<String>,
    /// Whose addresses the cluster's CNI sees.
    pub source_addresses: SourceAddresses,
    /// Where mesh addresses come from.
    pub workload_pools: Pools,
    /// Name of the cluster.
    pub cluster_name: String,
    /// Blocks of a companion at most.
    pub max_blocks: usize,
    /// Where metrics and health are served.
    pub metrics_listen: SocketAddr,
    /// How logs are written.
    pub log_format: LogFormat,
    /// What is logged.
    pub log_level: String,
}

impl Config {
    /// Reads the file that the arguments name and merges both.
    ///
    /// # Errors
    /// [`InvalidConfig`] if it cannot be read or says something invalid. A missing file is an error only if it was named.
    pub fn load(arguments: Arguments) -> Result<Self, InvalidConfig> {
        let (path, from_file) = ::config::load(arguments.config, DEFAULT_FILE)?;
        Self::from_options(arguments.options.or(from_file), &path)
    }

    /// Fills in what the options leave open; `path` is for errors only.
    ///
    /// # Errors
    /// [`InvalidConfig`] where something is missing or cannot be.
    pub fn from_options(options: Options, path: &Path) -> Result<Self, InvalidConfig> {
        let refused = |key, reason: String| Err(value(path, key, reason));
        let namespaces: BTreeSet<String> =
            options.namespaces.map(|list| list.0).unwrap_or_default().into_iter().collect();
        if namespaces.is_empty() {
            return refused(
                "namespaces",
                "needed: where policies get companions; there is no `all`".to_owned(),
            );
        }
        if let Some(odd) = namespaces.iter().find(|name| !pki::is_dns1123_label(name)) {
            return refused("namespaces", format!("`{odd}` is no name of a namespace"));
        }
        let Some(source_addresses) = options.source_addresses else {
            let reason = "needed: `preserved` where pods and external workloads see each other's own addresses, \
                          `masqueraded` where the CNI or a transit node puts another in their place";
            return refused("sourceAddresses", reason.to_owned());
        };
        let cluster_name = cluster_name(options.cluster_name, path)?;
        let max_blocks = options.max_blocks.unwrap_or(DEFAULT_BLOCKS);
        if !(1..=MAX_BLOCKS).contains(&max_blocks) {
            return refused("maxBlocks", format!("1 to {MAX_BLOCKS}, not {max_blocks}"));
        }
        let prefixes = options.workload_pools.map(|list| list.0).unwrap_or_default();
        Ok(Self {
            cluster: cluster::Settings { kubeconfig: options.kubeconfig },
            namespaces,
            source_addresses,
            workload_pools: pools(&prefixes, path)?,
            cluster_name,
            max_blocks,
            metrics_listen: options.metrics_listen.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 9466))),
            log_format: options.log_format.unwrap_or_default(),
            log_level: options.log_level.unwrap_or_else(|| DEFAULT_LOG.to_owned()),
        })
    }
}

impl Options {
    /// These options, and `other`'s where these say nothing.
    fn or(self, other: Self) -> Self {
        Self {
            kubeconfig: self.kubeconfig.or(other.kubeconfig),
            namespaces: self.namespaces.or(other.namespaces),
            source_addresses: self.source_addresses.or(other.source_addresses),
            workload_pools: self.workload_pools.or(other.workload_pools),
            cluster_name: self.cluster_name.or(other.cluster_name),
            max_blocks: self.max_blocks.or(other.max_blocks),
            metrics_listen: self.metrics_listen.or(other.metrics_listen),
            log_format: self.log_format.or(other.log_format),
            log_level: self.log_level.or(other.log_level),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Config, String> {
        let path = Path::new("companions.yaml");
        let options = ::config::parse(path, text).map_err(|error| error.to_string())?;
        Config::from_options(options, path).map_err(|error| error.to_string())
    }

    const WHOLE: &str =
        "namespaces: [shop, web]\nsourceAddresses: preserved\nworkloadPools: [10.244.240.0/20]\n";

    #[test]
    fn what_is_needed_has_no_default() {
        let config = read(WHOLE).unwrap();
        assert_eq!(config.namespaces, BTreeSet::from(["shop".to_owned(), "web".to_owned()]));
        assert_eq!((config.source_addresses, config.max_blocks), (SourceAddresses::Preserved, 1000));
        for key in ["namespaces", "sourceAddresses", "workloadPools"] {
            let without: String = WHOLE
                .lines()
                .filter(|line| !line.starts_with(key))
                .fold(String::new(), |text, line| text + line + "\n");
            let error = read(&without).unwrap_err();
            assert!(error.starts_with(&format!("companions.yaml: {key}: ")), "{error}");
        }
    }

    #[test]
    fn bad_values_are_refused_with_key_and_value() {
        for (line, says) in [
            ("namespaces: []", "namespaces: needed"),
            ("namespaces: ['*']", "`*` is no name of a namespace"),
            ("sourceAddresses: maybe", "`preserved` or `masqueraded`"),
            ("clusterName: A", "clusterName: `A`"),
            ("maxBlocks: 0", "maxBlocks: 1 to 10000"),
            ("nothing: 1", "nothing"),
        ] {
            let key = line.split(':').next().unwrap();
            let others: String = WHOLE
                .lines()
                .filter(|known| !known.starts_with(key))
                .fold(String::new(), |text, line| text + line + "\n");
            let error = read(&format!("{others}{line}\n")).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }
}
