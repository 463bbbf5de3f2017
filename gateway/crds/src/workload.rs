//! `ExternalWorkload`: a host outside of the cluster, the counterpart of a Pod.

#![expect(unreachable_pub, reason = "the derive of schemas repeats each type inside of a function")]
#![expect(clippy::duplicated_attributes, reason = "each column has a name of its own")]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Mode, Probe, Scope};

/// The finalizer of workloads that joined: they go once their key is revoked and their addresses rest.
pub const RELEASE: &str = "outrigger.dev/release";

/// A host: declared before it joins, or made when it did. Who joins under its name must do so through its group, and gets its
/// addresses.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "outrigger.dev",
    version = "v1alpha1",
    kind = "ExternalWorkload",
    namespaced,
    shortname = "ew",
    status = "ExternalWorkloadStatus",
    derive = "PartialEq",
    doc = "A host outside of the cluster, as a Pod is one inside of it.",
    printcolumn(name = "GROUP", type_ = "string", json_path = ".spec.group"),
    printcolumn(name = "ADDRESSES", type_ = "string", json_path = ".spec.addresses"),
    printcolumn(name = "SCOPE", type_ = "string", json_path = ".spec.scope", priority = "1"),
    printcolumn(name = "NIC", type_ = "string", json_path = ".spec.nicMode", priority = "1"),
    printcolumn(name = "IDENTITY", type_ = "integer", json_path = ".status.identity", priority = "1"),
    printcolumn(name = "VERSION", type_ = "string", json_path = ".status.agentVersion", priority = "1"),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(oldSelf.addresses) || oldSelf.addresses.size() == 0 || (has(self.addresses) && oldSelf.addresses.all(address, address in self.addresses))")
        .message("addresses cannot be changed: peers may still send to them"),
    validation = Rule::new("!has(oldSelf.recorded) || has(self.recorded)")
        .message("recorded cannot be removed: the host joined; delete the object to revoke it")
)]
pub struct ExternalWorkloadSpec {
    /// The name of its group, in its own namespace.
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("the group cannot be changed: it is a part of the host's identity"))]
    pub group: String,
    /// Its mesh addresses, at most one of each family; a family without one is allocated from the gateway's pools.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2))]
    #[x_kube(
        validation = Rule::new("self.all(address, isIP(address))").message("an address is one of IPv4 or IPv6"),
        validation = Rule::new("self.size() < 2 || !self.all(address, isIP(address)) || ip(self[0]).family() != ip(self[1]).family()")
            .message("at most one address of each family")
    )]
    pub addresses: Vec<Address>,
    /// Which of its traffic policy governs, where that is not as its group says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<Scope>,
    /// Whether policy is enforced on its other interfaces, where that is not as its group says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nic_mode: Option<Mode>,
    /// How it finds out whether its workload serves, where that is not as its group says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8))]
    pub probes: Option<Vec<Probe>>,
    /// The host that joined; absent before that. Written by the gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(
        validation = Rule::new("self.keyHash == oldSelf.keyHash || (has(self.previousKeyHash) && self.previousKeyHash == oldSelf.keyHash)")
            .message("the key of a host that joined cannot be changed: make a token that replaces it")
    )]
    pub recorded: Option<Recorded>,
}

/// A host that joined.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Recorded {
    /// SHA-256 of its public key.
    #[schemars(length(min = 1, max = 64))]
    pub key_hash: String,
    /// The same of the host that it replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub previous_key_hash: Option<String>,
    /// SHA-256 of its machine's numbers.
    #[schemars(length(max = 128))]
    pub machine: String,
    /// When it joined, as RFC 3339 has it.
    #[schemars(
        length(max = 40),
        regex(
            pattern = "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]+)?(Z|[-+][0-9]{2}:[0-9]{2})$"
        )
    )]
    pub joined_at: String,
    /// The token that it joined with.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 512))]
    pub joined_with: String,
    /// Whether it is forgotten once it is away for long.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ephemeral: bool,
}

/// What is known of a host now. Written by the gateway; can be found out again.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ExternalWorkloadStatus {
    /// The number that stands for its labels, as `outrigger monitor` shows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<u32>,
    /// The version of its agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_version: Option<String>,
    /// Where its tunnel packets come from, preferred first.
    #[serde(default)]
    pub underlay: Vec<Claim>,
    /// When its certificate ends, as RFC 3339 has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub certificate_expires: Option<String>,
    /// When its session ended last, as RFC 3339 has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub last_seen: Option<String>,
    /// What is known about it.
    #[serde(default)]
    #[schemars(
        length(max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"])
    )]
    pub conditions: Vec<Condition>,
}

/// An address that a host says to have.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Claim {
    /// The address.
    pub address: String,
    /// Whether a connection of the host came from it.
    #[serde(default)]
    pub proved: bool,
    /// When it was claimed, counted over all claims.
    #[serde(default)]
    pub order: u64,
}

/// An address.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(transparent)]
pub struct Address(#[schemars(length(min = 2, max = 45))] pub String);
