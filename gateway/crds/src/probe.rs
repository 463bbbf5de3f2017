//! How a host finds out whether its workload serves.

#![expect(unreachable_pub, reason = "the derive of schemas repeats each type inside of a function")]

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Something that the agent tries again and again: one of `tcp`, `http` and `exec`.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("(has(self.tcp) ? 1 : 0) + (has(self.http) ? 1 : 0) + (has(self.exec) ? 1 : 0) == 1")
        .message("a probe is one of tcp, http and exec"),
    validation = Rule::new("self.timeoutSeconds <= self.periodSeconds")
        .message("a probe takes no longer than until the next one: timeoutSeconds is at most periodSeconds")
)]
pub struct Probe {
    /// Whether one of the host's mesh addresses takes a connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<TcpProbe>,
    /// Whether one of the host's mesh addresses answers a request with 2xx. Redirects are not followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpProbe>,
    /// Whether a program of the host ends with 0, where its administrator allows that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<ExecProbe>,
    /// How often, in seconds.
    #[serde(default = "period")]
    #[schemars(range(min = 1, max = 3600))]
    pub period_seconds: u32,
    /// How long it may take, in seconds.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 60))]
    pub timeout_seconds: u32,
    /// How many successes in a row mean that the workload serves.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 100))]
    pub success_threshold: u32,
    /// How many failures in a row mean that it does not.
    #[serde(default = "failures")]
    #[schemars(range(min = 1, max = 100))]
    pub failure_threshold: u32,
}

/// A connection.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct TcpProbe {
    /// The port.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
}

/// A request.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct HttpProbe {
    /// The port.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    /// What is asked for.
    #[serde(default = "root")]
    #[schemars(length(min = 1, max = 1024), regex(pattern = "^/[!-~]*$"))]
    pub path: String,
    /// What the header `Host` says; absent: the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[A-Za-z0-9._:-]+$"))]
    pub host: Option<String>,
}

/// A program in `/etc/outrigger/probes.d` of the host.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct ExecProbe {
    /// The name of its file.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"))]
    pub name: String,
}

const fn period() -> u32 {
    10
}

const fn one() -> u32 {
    1
}

const fn failures() -> u32 {
    3
}

fn root() -> String {
    "/".to_owned()
}
