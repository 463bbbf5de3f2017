//! How a host finds out by itself whether its workload serves. Decides nothing about traffic.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One thing that is tried again and again.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Probe {
    /// What is tried.
    pub kind: ProbeKind,
    /// How often, in seconds.
    pub period_s: u32,
    /// How long it may take, in seconds.
    pub timeout_s: u32,
    /// How many successes in a row mean that it serves.
    pub successes: u32,
    /// How many failures in a row mean that it does not.
    pub failures: u32,
}

/// What is tried.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ProbeKind {
    /// Whether the host takes a connection.
    Tcp {
        /// The port.
        port: u16,
    },
    /// Whether the host answers a request with success.
    Http {
        /// The port.
        port: u16,
        /// What is asked for, from `/`.
        path: String,
        /// What the header `Host` says; empty: the address.
        host: String,
    },
    /// Whether a program that the host's administrator put there ends with success.
    Exec {
        /// The name of its file.
        name: String,
    },
    /// Something that this build does not know: it never succeeds.
    Unknown(String),
}

impl fmt::Display for ProbeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { port } => write!(f, "tcp {port}"),
            Self::Http { port, path, host } if host.is_empty() => write!(f, "http {port} {path}"),
            Self::Http { port, path, host } => write!(f, "http {port} {path} of {host}"),
            Self::Exec { name } => write!(f, "exec {name}"),
            Self::Unknown(kind) => f.write_str(kind),
        }
    }
}
