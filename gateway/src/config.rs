//! What an administrator may set: one YAML file, every key also a flag and an environment variable.
//!
//! A flag wins over the environment, that over the file, that over the default. Each value is refused where it is
//! read, so that an error names the file, flag or variable it came from. Nothing here is a secret.

use std::net::{Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use pki::TrustDomain;
use serde::Deserialize;
use telemetry::logging::LogFormat;

use crate::backends;
use crate::source::cluster;
use crate::store::Pools;

mod ca;
mod invalid;
mod nodes;
mod value;

use ::config::{HostPort, List};
pub use ca::{Ca, CaSection, Signer};
pub use invalid::InvalidConfig;
pub(crate) use invalid::{DEFAULT_LOG, cluster_name, pools, value};
pub use nodes::Nodes;
pub use value::{InvalidValue, Lasting, Replicas, ServiceAccount, Source, SourceKind, State, StateKind};

/// Where the configuration file is unless `--config` says otherwise. A missing file there is no error.
pub const DEFAULT_FILE: &str = "/etc/outrigger/gateway.yaml";
/// Where manifests are unless something else is said.
const DEFAULT_MANIFESTS: &str = "/etc/outrigger/manifests";
/// Where the socket of the administration is unless something else is said.
pub const DEFAULT_SOCKET: &str = "/run/outrigger-gateway/admin.sock";
/// Where gateways take over connections of each other, unless something else is said.
const REPLICA_PORT: u16 = 7444;
/// The shortest time a certificate may be valid: certificates count in whole seconds.
const MIN_TTL: Duration = Duration::from_secs(1);
/// The longest time a certificate may be valid.
const MAX_TTL: Duration = Duration::from_hours(24);

/// How long an agent may be silent before its workload is no endpoint of Services: by default, and at least.
const DEFAULT_LEASE: Duration = Duration::from_mins(5);
const MIN_LEASE: Duration = Duration::from_secs(30);

/// The options of `serve`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Arguments {
    /// The configuration file. [default: /etc/outrigger/gateway.yaml]
    #[arg(long, env = "OUTRIGGER_GATEWAY_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The keys as flags and environment variables.
    #[command(flatten)]
    pub options: Options,
}

/// Every key, each optional: what one source (the file, or flags and environment) says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, clap::Args)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Options {
    /// Where pods, policies and groups are read: a folder of manifests, or the API of a cluster. [default: files]
    #[arg(long, env = "OUTRIGGER_GATEWAY_SOURCE", value_name = "files|kubernetes")]
    #[serde(deserialize_with = "::config::text")]
    pub source: Option<SourceKind>,
    /// With the source `kubernetes`: how the API is reached. [default: as a pod of the cluster]
    #[arg(long, env = "OUTRIGGER_GATEWAY_KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// With the source `files`: the folder; read again when something in it changes. [default: /etc/outrigger/manifests]
    #[arg(long, env = "OUTRIGGER_GATEWAY_MANIFESTS", value_name = "DIR")]
    pub manifests: Option<PathBuf>,
    /// Where tokens, hosts, identities, addresses and roots are kept: in the state folder, or in the API of the cluster that is
    /// the source. [default: with the source]
    #[arg(long, env = "OUTRIGGER_GATEWAY_STATE", value_name = "folder|kubernetes")]
    #[serde(deserialize_with = "::config::text")]
    pub state: Option<StateKind>,
    /// With the state in `kubernetes`: the namespace of what belongs to no host. [default: the gateway's own]
    #[arg(long, env = "OUTRIGGER_GATEWAY_NAMESPACE", value_name = "NAME")]
    pub namespace: Option<String>,
    /// With the state in `kubernetes`: where the gateway that serves takes over the connections of the others.
    /// [default: as `listen`, port 7444]
    #[arg(long, env = "OUTRIGGER_GATEWAY_REPLICA_LISTEN", value_name = "ADDRESS:PORT")]
    #[serde(deserialize_with = "::config::text")]
    pub replica_listen: Option<SocketAddr>,
    /// With the state in `kubernetes`: where the other gateways reach this one. [default: `replicaListen`, or the address
    /// from which the API is reached]
    #[arg(long, env = "OUTRIGGER_GATEWAY_REPLICA_ADDRESS", value_name = "ADDRESS:PORT")]
    #[serde(deserialize_with = "::config::text")]
    pub replica_address: Option<SocketAddr>,
    /// Folder of the store, which also holds the root's key: back it up. [default: /var/lib/outrigger-gateway]
    #[arg(long, env = "OUTRIGGER_GATEWAY_STATE_DIR", value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Where hosts are served. [default: every address, port 7443]
    #[arg(long, env = "OUTRIGGER_GATEWAY_LISTEN", value_name = "ADDRESS:PORT")]
    #[serde(deserialize_with = "::config::text")]
    pub listen: Option<SocketAddr>,
    /// Where hosts reach gateways; tokens carry it. [default: `listen`, where that is one address]
    #[arg(long, env = "OUTRIGGER_GATEWAY_ADVERTISE", value_name = "HOST:PORT,…")]
    pub advertise: Option<List<HostPort>>,
    /// The trust domain of every certificate; cannot be changed later. [default: outrigger.local]
    #[arg(long, env = "OUTRIGGER_GATEWAY_TRUST_DOMAIN", value_name = "NAME")]
    #[serde(deserialize_with = "::config::text")]
    pub trust_domain: Option<TrustDomain>,
    /// Name of the cluster; a label of every identity. [default: default]
    #[arg(long, env = "OUTRIGGER_GATEWAY_CLUSTER_NAME", value_name = "NAME")]
    pub cluster_name: Option<String>,
    /// Number of the cluster, 0 to 255; part of every identity. [default: 0]
    #[arg(long, env = "OUTRIGGER_GATEWAY_CLUSTER_ID", value_name = "NUMBER")]
    #[serde(deserialize_with = "::config::text")]
    pub cluster_id: Option<u8>,
    /// Prefixes that mesh addresses come from, IPv4, IPv6 or both.
    #[arg(long, env = "OUTRIGGER_GATEWAY_WORKLOAD_POOLS", value_name = "CIDR,…")]
    pub workload_pools: Option<List<IpNet>>,
    /// Prefixes of the pods, which hosts route into the mesh. [default: none]
    #[arg(long, env = "OUTRIGGER_GATEWAY_POD_PREFIXES", value_name = "CIDR,…")]
    pub pod_prefixes: Option<List<IpNet>>,
    /// UDP port of the tunnels, one for the whole mesh. [default: 8479]
    #[arg(long, env = "OUTRIGGER_GATEWAY_TUNNEL_PORT", value_name = "PORT")]
    #[serde(deserialize_with = "::config::text")]
    pub tunnel_port: Option<u16>,
    /// How long hosts' certificates are valid, at most 24h. [default: 24h]
    #[arg(long, env = "OUTRIGGER_GATEWAY_CERTIFICATE_TTL", value_name = "TIME")]
    #[serde(deserialize_with = "::config::text")]
    pub certificate_ttl: Option<Lasting>,
    /// How long after its end a certificate may still be renewed. [default: 90d]
    #[arg(long, env = "OUTRIGGER_GATEWAY_RENEW_GRACE", value_name = "TIME")]
    #[serde(deserialize_with = "::config::text")]
    pub renew_grace: Option<Lasting>,
    /// Socket of the administration. [default: /run/outrigger-gateway/admin.sock]
    #[arg(long, env = "OUTRIGGER_GATEWAY_ADMIN_SOCKET", value_name = "FILE")]
    pub admin_socket: Option<PathBuf>,
    /// Where metrics and health are served. [default: 127.0.0.1:9464]
    #[arg(long, env = "OUTRIGGER_GATEWAY_METRICS_LISTEN", value_name = "ADDRESS:PORT")]
    #[serde(deserialize_with = "::config::text")]
    pub metrics_listen: Option<SocketAddr>,
    /// With the state in `kubernetes`: how long an agent may be silent before its workload is no endpoint of Services any more,
    /// at least 30s. [default: 5m]
    #[arg(long, env = "OUTRIGGER_GATEWAY_ENDPOINT_LEASE", value_name = "TIME")]
    #[serde(deserialize_with = "::config::text")]
    pub endpoint_lease: Option<Lasting>,
    /// The share of a Service's workloads that may be left out for that, in percent. [default: 50]
    #[arg(long, env = "OUTRIGGER_GATEWAY_ENDPOINT_STALE_SHARE", value_name = "PERCENT")]
    #[serde(deserialize_with = "::config::text")]
    pub endpoint_stale_share: Option<u8>,
    /// Connections of hosts and administrators at a time, 1 or more. [default: 16384]
    #[arg(long, env = "OUTRIGGER_GATEWAY_MAX_CONNECTIONS", value_name = "NUMBER")]
    #[serde(deserialize_with = "::config::text")]
    pub max_connections: Option<usize>,
    /// The same from one address (IPv6: /64), except loopback; 0: no limit. [default: 64]
    #[arg(long, env = "OUTRIGGER_GATEWAY_MAX_CONNECTIONS_PER_SOURCE", value_name = "NUMBER")]
    #[serde(deserialize_with = "::config::text")]
    pub max_connections_per_source: Option<usize>,
    /// Proxies and load balancers that hosts come through: where a connection from them starts tells nothing about the
    /// host, and they have no limit of their own. [default: none]
    #[arg(long, env = "OUTRIGGER_GATEWAY_PROXIES", value_name = "CIDR,…")]
    pub proxies: Option<List<IpNet>>,
    /// With the state in `kubernetes`: the service account whose pods make their node a transit node. [default: none]
    #[arg(long, env = "OUTRIGGER_GATEWAY_TRANSIT_ACCOUNT", value_name = "NAMESPACE/NAME")]
    #[serde(deserialize_with = "::config::text")]
    pub transit_account: Option<ServiceAccount>,
    /// The same for cluster nodes whose tunnels go to transit nodes. [default: none]
    #[arg(long, env = "OUTRIGGER_GATEWAY_NODE_ACCOUNT", value_name = "NAMESPACE/NAME")]
    #[serde(deserialize_with = "::config::text")]
    pub node_account: Option<ServiceAccount>,
    /// Where the agents of these nodes reach gateways; in the `ConfigMap` `outrigger-bootstrap`. [default: `advertise`]
    #[arg(long, env = "OUTRIGGER_GATEWAY_NODE_GATEWAYS", value_name = "HOST:PORT,…")]
    pub node_gateways: Option<List<HostPort>>,
    /// The audit log, lines of JSON. [default: audit.log in the state folder]
    #[arg(long, env = "OUTRIGGER_GATEWAY_AUDIT_LOG", value_name = "FILE")]
    pub audit_log: Option<PathBuf>,
    /// Who signs certificates; a section of the file, without flags. [default: the gateway itself]
    #[arg(skip)]
    pub ca: Option<CaSection>,
    /// How logs are written. [default: text]
    #[arg(long, env = "OUTRIGGER_GATEWAY_LOG_FORMAT", value_name = "text|json|journald")]
    #[serde(deserialize_with = "::config::text")]
    pub log_format: Option<LogFormat>,
    /// What is logged: a level, or directives such as `info,gateway=debug`. [default: info, without what the Kubernetes
    /// client says itself]
    #[arg(long, env = "OUTRIGGER_GATEWAY_LOG_LEVEL", value_name = "LEVEL")]
    pub log_level: Option<String>,
}

/// The configuration: every key with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where objects are read.
    pub source: Source,
    /// Where the state of record is.
    pub state: State,
    /// Folder of the store.
    pub state_dir: PathBuf,
    /// Where hosts are served.
    pub listen: SocketAddr,
    /// Where hosts reach gateways, `host:port`; empty: nobody said, and no token can be minted.
    pub advertise: Vec<String>,
    /// The trust domain.
    pub trust_domain: TrustDomain,
    /// Name of the cluster.
    pub cluster_name: String,
    /// Number of the cluster.
    pub cluster_id: u8,
    /// Where mesh addresses come from.
    pub workload_pools: Pools,
    /// Prefixes of the pods.
    pub pod_prefixes: Vec<IpNet>,
    /// UDP port of the tunnels.
    pub tunnel_port: u16,
    /// How long certificates are valid.
    pub certificate_ttl: Duration,
    /// How long after its end a certificate may still be renewed.
    pub renew_grace: Duration,
    /// Socket of the administration.
    pub admin_socket: PathBuf,
    /// Where metrics and health are served.
    pub metrics_listen: SocketAddr,
    /// How long an agent may be silent before its workload is no endpoint of Services.
    pub endpoint_lease: Duration,
    /// The share of a Service's workloads, in percent, that may be left out for that.
    pub endpoint_stale_share: u8,
    /// Connections at a time.
    pub max_connections: usize,
    /// The same from one source; 0: no limit.
    pub max_connections_per_source: usize,
    /// Proxies and load balancers that hosts come through.
    pub proxies: Vec<IpNet>,
    /// How cluster nodes join by the service accounts of their pods.
    pub nodes: Nodes,
    /// The audit log.
    pub audit_log: PathBuf,
    /// Who signs certificates.
    pub ca: Ca,
    /// How logs are written.
    pub log_format: LogFormat,
    /// What is logged.
    pub log_level: String,
}

impl Config {
    /// Reads the file that the arguments name and merges both.
    ///
    /// # Errors
    /// [`InvalidConfig`] if it cannot be read or says something invalid. A missing file is an error only if it was
    /// named.
    pub fn load(arguments: Arguments) -> Result<Self, InvalidConfig> {
        let (path, from_file) = ::config::load(arguments.config, DEFAULT_FILE)?;
        Self::from_options(arguments.options.or(from_file), &path)
    }

    /// Fills in what the options leave open, and checks that they fit together; `path` is for errors only.
    ///
    /// # Errors
    /// [`InvalidConfig`] if they do not.
    pub fn from_options(options: Options, path: &Path) -> Result<Self, InvalidConfig> {
        let folder = |given: Option<PathBuf>, default: &str| given.unwrap_or_else(|| PathBuf::from(default));
        let listen = options.listen.unwrap_or(SocketAddr::from((Ipv6Addr::UNSPECIFIED, 7443)));
        let state = state(&options, listen, path)?;
        let state_dir = folder(options.state_dir.clone(), "/var/lib/outrigger-gateway");
        let pool_prefixes = options.workload_pools.clone().map(|list| list.0).unwrap_or_default();
        let advertise = advertised(options.advertise.as_ref(), listen);
        let config = Self {
            nodes: Nodes::of(&options, &state, &advertise, path)?,
            state,
            source: source(options.source, options.manifests, options.kubeconfig.clone(), path)?,
            advertise,
            listen,
            trust_domain: match options.trust_domain {
                Some(trust_domain) => trust_domain,
                None => TrustDomain::try_new("outrigger.local")
                    .map_err(|e| value(path, "trustDomain", e.to_string()))?,
            },
            cluster_name: cluster_name(options.cluster_name, path)?,
            cluster_id: options.cluster_id.unwrap_or(0),
            workload_pools: pools(&pool_prefixes, path)?,
            pod_prefixes: options.pod_prefixes.map(|list| list.0).unwrap_or_default(),
            tunnel_port: options.tunnel_port.unwrap_or(8479),
            certificate_ttl: options.certificate_ttl.map_or(MAX_TTL, |ttl| ttl.0),
            renew_grace: options.renew_grace.map_or(Duration::from_hours(90 * 24), |grace| grace.0),
            admin_socket: folder(options.admin_socket, DEFAULT_SOCKET),
            metrics_listen: options.metrics_listen.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 9464))),
            endpoint_lease: options.endpoint_lease.map_or(DEFAULT_LEASE, |lease| lease.0),
            endpoint_stale_share: options.endpoint_stale_share.unwrap_or(50),
            max_connections: options.max_connections.unwrap_or(16_384),
            max_connections_per_source: options.max_connections_per_source.unwrap_or(64),
            proxies: options.proxies.map(|list| list.0).unwrap_or_default(),
            ca: Ca::of(options.ca, options.kubeconfig.clone(), path)?,
            audit_log: options.audit_log.unwrap_or_else(|| state_dir.join("audit.log")),
            log_format: options.log_format.unwrap_or_default(),
            log_level: options.log_level.unwrap_or_else(|| DEFAULT_LOG.to_owned()),
            state_dir,
        };
        config.checked(path)
    }

    /// What it says about the endpoints of Services.
    #[must_use]
    pub fn backends(&self) -> backends::Settings {
        backends::Settings {
            lease: self.endpoint_lease,
            stale_share: self.endpoint_stale_share,
            pools: self.workload_pools.clone(),
        }
    }

    fn checked(self, path: &Path) -> Result<Self, InvalidConfig> {
        for pods in &self.pod_prefixes {
            if pods.trunc() != *pods {
                let reason = format!("{pods} has host bits set: {} is the prefix", pods.trunc());
                return Err(value(path, "podPrefixes", reason));
            }
            let overlaps = |pool: &IpNet| pool.contains(pods) || pods.contains(pool);
            if let Some(pool) = self.workload_pools.prefixes().into_iter().find(overlaps) {
                return Err(InvalidConfig::Overlap { path: path.to_owned(), pods: *pods, pool });
            }
        }
        if !(MIN_TTL..=MAX_TTL).contains(&self.certificate_ttl) {
            let reason = format!("certificates are valid for 1s to 24h, not for {:?}", self.certificate_ttl);
            return Err(value(path, "certificateTtl", reason));
        }
        if self.endpoint_lease < MIN_LEASE {
            let reason = format!("an agent that comes back takes its time: at least {MIN_LEASE:?}");
            return Err(value(path, "endpointLease", reason));
        }
        if self.endpoint_stale_share > 100 {
            return Err(value(path, "endpointStaleShare", "a share is 0 to 100 percent".to_owned()));
        }
        if self.max_connections == 0 {
            return Err(value(path, "maxConnections", "nobody could connect: 1 or more".to_owned()));
        }
        if self.tunnel_port == 0 {
            return Err(value(path, "tunnelPort", "a port is 1 to 65535".to_owned()));
        }
        Ok(self)
    }
}

impl Options {
    /// These options, and `other`'s where these say nothing.
    fn or(self, other: Self) -> Self {
        Self {
            source: self.source.or(other.source),
            kubeconfig: self.kubeconfig.or(other.kubeconfig),
            manifests: self.manifests.or(other.manifests),
            state: self.state.or(other.state),
            namespace: self.namespace.or(other.namespace),
            replica_listen: self.replica_listen.or(other.replica_listen),
            replica_address: self.replica_address.or(other.replica_address),
            state_dir: self.state_dir.or(other.state_dir),
            listen: self.listen.or(other.listen),
            advertise: self.advertise.or(other.advertise),
            trust_domain: self.trust_domain.or(other.trust_domain),
            cluster_name: self.cluster_name.or(other.cluster_name),
            cluster_id: self.cluster_id.or(other.cluster_id),
            workload_pools: self.workload_pools.or(other.workload_pools),
            pod_prefixes: self.pod_prefixes.or(other.pod_prefixes),
            tunnel_port: self.tunnel_port.or(other.tunnel_port),
            certificate_ttl: self.certificate_ttl.or(other.certificate_ttl),
            renew_grace: self.renew_grace.or(other.renew_grace),
            admin_socket: self.admin_socket.or(other.admin_socket),
            metrics_listen: self.metrics_listen.or(other.metrics_listen),
            endpoint_lease: self.endpoint_lease.or(other.endpoint_lease),
            endpoint_stale_share: self.endpoint_stale_share.or(other.endpoint_stale_share),
            max_connections: self.max_connections.or(other.max_connections),
            max_connections_per_source: self.max_connections_per_source.or(other.max_connections_per_source),
            proxies: self.proxies.or(other.proxies),
            transit_account: self.transit_account.or(other.transit_account),
            node_account: self.node_account.or(other.node_account),
            node_gateways: self.node_gateways.or(other.node_gateways),
            audit_log: self.audit_log.or(other.audit_log),
            ca: self.ca.or(other.ca),
            log_format: self.log_format.or(other.log_format),
            log_level: self.log_level.or(other.log_level),
        }
    }
}

/// A key of another source is no mistake to pass over: somebody expects something of it.
fn source(
    kind: Option<SourceKind>,
    manifests: Option<PathBuf>,
    kubeconfig: Option<PathBuf>,
    path: &Path,
) -> Result<Source, InvalidConfig> {
    let of_another =
        |key, source: &str| Err(value(path, key, format!("means nothing with the source {source}")));
    match (kind.unwrap_or_default(), manifests, kubeconfig) {
        (SourceKind::Files, _, Some(_)) => of_another("kubeconfig", "files"),
        (SourceKind::Kubernetes, Some(_), _) => of_another("manifests", "kubernetes"),
        (SourceKind::Files, manifests, None) => {
            Ok(Source::Files(manifests.unwrap_or_else(|| PathBuf::from(DEFAULT_MANIFESTS))))
        }
        (SourceKind::Kubernetes, None, kubeconfig) => {
            Ok(Source::Kubernetes(cluster::Settings { kubeconfig }))
        }
    }
}

/// Where the state of record is: with the source, if nobody says something else.
fn state(options: &Options, listen: SocketAddr, path: &Path) -> Result<State, InvalidConfig> {
    let of_source = match options.source.unwrap_or_default() {
        SourceKind::Files => StateKind::Folder,
        SourceKind::Kubernetes => StateKind::Kubernetes,
    };
    let kind = options.state.unwrap_or(of_source);
    let of_cluster = [
        ("namespace", options.namespace.is_some()),
        ("replicaListen", options.replica_listen.is_some()),
        ("replicaAddress", options.replica_address.is_some()),
    ];
    if let Some((key, _)) = of_cluster.into_iter().find(|(_, is_set)| *is_set && kind == StateKind::Folder) {
        return Err(value(path, key, "means nothing with the state in a folder".to_owned()));
    }
    match (kind, of_source, options.namespace.clone()) {
        (StateKind::Kubernetes, StateKind::Folder, _) => {
            let reason =
                "`kubernetes` needs the source kubernetes, which says what cluster that is".to_owned();
            Err(value(path, "state", reason))
        }
        (StateKind::Kubernetes, _, Some(namespace)) if !pki::is_dns1123_label(&namespace) => {
            Err(value(path, "namespace", format!("`{namespace}` is no name of a namespace")))
        }
        (StateKind::Folder, ..) => Ok(State::Folder),
        (StateKind::Kubernetes, _, namespace) => {
            let own = SocketAddr::new(listen.ip(), REPLICA_PORT);
            let listen = options.replica_listen.unwrap_or(own);
            if options.replica_address.is_some_and(|address| address.ip().is_unspecified()) {
                let reason = "is where others reach this gateway: one address".to_owned();
                return Err(value(path, "replicaAddress", reason));
            }
            Ok(State::Kubernetes {
                namespace,
                replicas: Replicas { listen, address: options.replica_address },
            })
        }
    }
}

fn advertised(given: Option<&List<HostPort>>, listen: SocketAddr) -> Vec<String> {
    match given {
        Some(List(given)) => given.iter().map(ToString::to_string).collect(),
        None if listen.ip().is_unspecified() => Vec::new(),
        None => vec![listen.to_string()],
    }
}

#[cfg(test)]
mod tests;
