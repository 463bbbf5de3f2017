//! `ExternalWorkloadGroup`: what external workloads have in common, and what tokens are made against.

#![expect(unreachable_pub, reason = "the derive of schemas repeats each type inside of a function")]
#![expect(clippy::duplicated_attributes, reason = "each column has a name of its own")]

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Probe;

/// What its external workloads have in common. Hosts join with a token of their group; nothing that a host says about
/// itself becomes a label.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "outrigger.dev",
    version = "v1alpha1",
    kind = "ExternalWorkloadGroup",
    namespaced,
    shortname = "ewg",
    derive = "PartialEq",
    doc = "A group of hosts outside of the cluster, as a Deployment is one of pods.",
    printcolumn(name = "SCOPE", type_ = "string", json_path = ".spec.scope"),
    printcolumn(name = "MODE", type_ = "string", json_path = ".spec.mode"),
    printcolumn(name = "NIC", type_ = "string", json_path = ".spec.nicMode", priority = "1"),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct ExternalWorkloadGroupSpec {
    /// What each workload of the group is to policies.
    pub template: Template,
    /// Whether what policy denies is dropped in the mesh (`enforce`), or only reported (`audit`).
    #[serde(default)]
    pub mode: Mode,
    /// Which traffic of a host policy governs: that of the mesh (`mesh`), that of its other interfaces too as far as policies
    /// select hosts (`host`), or all (`all`).
    #[serde(default)]
    pub scope: Scope,
    /// The same as `mode`, for the host's other interfaces.
    #[serde(default = "Mode::audit")]
    pub nic_mode: Mode,
    /// How its hosts find out whether their workload serves, for Services that lead to it; all of them have to succeed. Without
    /// any it serves while its host is connected.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub probes: Vec<Probe>,
}

/// What a workload is to policies.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Template {
    /// The labels that policies select its workloads by.
    #[serde(default)]
    #[schemars(extend("maxProperties" = 64))]
    #[x_kube(
        validation = Rule::new("self.all(key, key.matches('^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$'))")
            .message("a key of a label is a name of up to 63 letters, digits, '-', '_' and '.', with or without a domain and '/' before it"),
        validation = Rule::new("self.all(key, self[key].matches('^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$'))")
            .message("a value of a label is empty, or up to 63 letters, digits, '-', '_' and '.'"),
        validation = Rule::new("self.all(key, !key.lowerAscii().matches('^io[.](kubernetes|cilium)([./].*)?$'))")
            .message("keys of io.kubernetes and io.cilium are given by the gateway only")
    )]
    pub labels: BTreeMap<String, LabelValue>,
    /// The service account of its workloads.
    #[serde(default = "default_service_account")]
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub service_account_name: String,
    /// Ports that policies may mean by name.
    #[serde(default)]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub ports: Vec<Port>,
}

/// A value of a label.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(transparent)]
pub struct LabelValue(#[schemars(length(max = 63))] pub String);

/// A port with a name.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Port {
    /// Its name, as of a container's port.
    #[schemars(length(min = 1, max = 15), regex(pattern = "^[a-z0-9]+(-[a-z0-9]+)*$"))]
    #[x_kube(validation = Rule::new("self.matches('[a-z]')").message("a port's name has at least one letter"))]
    pub name: String,
    /// Its number.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    /// Its protocol.
    #[serde(default)]
    pub protocol: Protocol,
}

/// Whether what policy denies is dropped (`enforce`) or only reported (`audit`).
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// What it denies is dropped.
    #[default]
    Enforce,
    /// It is only reported.
    Audit,
}

/// Which traffic of a host policy governs: that of the mesh (`mesh`), that of its other interfaces too by policies that select
/// hosts (`host`), or that of all interfaces by every policy that selects it (`all`).
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// That of the mesh.
    #[default]
    Mesh,
    /// That of the host's other interfaces too, by policies that select hosts.
    Host,
    /// That of all interfaces, by every policy that selects the workload.
    All,
}

/// A protocol that has ports: `TCP`, `UDP` or `SCTP`.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Mode {
    /// What an administrator did not ask for must not cut a host off.
    const fn audit() -> Self {
        Self::Audit
    }
}

fn default_service_account() -> String {
    "default".to_owned()
}
