//! The types of values: each refuses what is invalid, saying which value and why.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use jiff::{Span, SpanRelativeTo};

use crate::source::cluster;

/// Where objects are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A folder of manifests.
    Files(PathBuf),
    /// The API of a cluster.
    Kubernetes(cluster::Settings),
}

/// The kinds of sources.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SourceKind {
    /// A folder of manifests.
    #[default]
    Files,
    /// The API of a cluster.
    Kubernetes,
}

impl FromStr for SourceKind {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "files" => Ok(Self::Files),
            "kubernetes" => Ok(Self::Kubernetes),
            _ => Err(InvalidValue::Source),
        }
    }
}

/// Where tokens, hosts, identities, addresses and roots are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// In the state folder.
    Folder,
    /// In the API of the cluster that is the source.
    Kubernetes {
        /// The namespace of what belongs to no host; `None`: the gateway's own.
        namespace: Option<String>,
        /// How gateways reach each other.
        replicas: Replicas,
    },
}

/// How the gateways of a mesh reach each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replicas {
    /// Where the one that serves takes connections over.
    pub listen: SocketAddr,
    /// Where the others reach it; `None`: `listen`, or the address from which the API server is reached.
    pub address: Option<SocketAddr>,
}

/// The kinds of places of the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateKind {
    /// In the state folder.
    Folder,
    /// In the API of the cluster.
    Kubernetes,
}

impl FromStr for StateKind {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "folder" => Ok(Self::Folder),
            "kubernetes" => Ok(Self::Kubernetes),
            _ => Err(InvalidValue::State),
        }
    }
}

/// A value that a key cannot have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidValue {
    /// No time.
    #[error("a time is a number and a unit, such as 45s, 30m, 24h or 90d")]
    Lasting,
    /// No place of the state.
    #[error("the state is in a `folder` or in `kubernetes`")]
    State,
    /// No source.
    #[error("a source is `files` or `kubernetes`")]
    Source,
    /// No account.
    #[error("a service account is `namespace/name`")]
    ServiceAccount,
}

/// A service account of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceAccount {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl FromStr for ServiceAccount {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (namespace, name) = text.split_once('/').ok_or(InvalidValue::ServiceAccount)?;
        if !pki::is_dns1123_label(namespace) || !pki::is_dns1123_subdomain(name) {
            return Err(InvalidValue::ServiceAccount);
        }
        Ok(Self { namespace: namespace.to_owned(), name: name.to_owned() })
    }
}

impl fmt::Display for ServiceAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A length of time: `45s`, `24h`, `90d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lasting(pub Duration);

impl FromStr for Lasting {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let span: Span = text.parse().map_err(|_malformed| InvalidValue::Lasting)?;
        let lasting = span.to_duration(SpanRelativeTo::days_are_24_hours());
        let lasting = lasting.map_err(|_months| InvalidValue::Lasting)?;
        Duration::try_from(lasting).map(Self).map_err(|_negative| InvalidValue::Lasting)
    }
}
