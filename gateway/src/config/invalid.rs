//! What cannot be, and the keys that every process of the gateway has.

use std::path::{Path, PathBuf};

use ::config::InvalidFile;
use ipnet::IpNet;

use crate::store::{InvalidPools, Pools};

/// What is logged unless something else is said: the Kubernetes client says much itself.
pub(crate) const DEFAULT_LOG: &str = "info,kube_runtime=off";

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidConfig {
    /// The file.
    #[error(transparent)]
    File(#[from] InvalidFile),
    /// The pools.
    #[error("{}: workloadPools: {reason}", path.display())]
    Pools {
        /// The file that was read.
        path: PathBuf,
        /// What is wrong.
        reason: InvalidPools,
    },
    /// Pods and workloads share addresses.
    #[error("{}: podPrefixes: {pods} overlaps {pool} of workloadPools", path.display())]
    Overlap {
        /// The file that was read.
        path: PathBuf,
        /// The pods' prefix.
        pods: IpNet,
        /// The pool.
        pool: IpNet,
    },
    /// A value that a key cannot have.
    #[error("{}: {key}: {reason}", path.display())]
    Value {
        /// The file that was read.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// What is wrong, with the value.
        reason: String,
    },
}

/// A key that cannot have its value.
pub(crate) fn value(path: &Path, key: &'static str, reason: String) -> InvalidConfig {
    InvalidConfig::Value { path: path.to_owned(), key, reason }
}

/// The name of the cluster.
pub(crate) fn cluster_name(given: Option<String>, path: &Path) -> Result<String, InvalidConfig> {
    let name = given.unwrap_or_else(|| "default".to_owned());
    if pki::is_dns1123_label(&name) {
        return Ok(name);
    }
    Err(value(path, "clusterName", format!("`{name}` is no name: lower-case letters, digits and `-`")))
}

/// The pools of these prefixes.
pub(crate) fn pools(prefixes: &[IpNet], path: &Path) -> Result<Pools, InvalidConfig> {
    Pools::try_new(prefixes).map_err(|reason| InvalidConfig::Pools { path: path.to_owned(), reason })
}
