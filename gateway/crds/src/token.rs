//! `JoinToken`: the right to join a group, for a time and a number of hosts.

#![expect(unreachable_pub, reason = "the derive of schemas repeats each type inside of a function")]
#![expect(clippy::duplicated_attributes, reason = "each column has a name of its own")]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The right to join a group. The secret is made by whoever makes the token and given to the host; only its hash is here.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "outrigger.dev",
    version = "v1alpha1",
    kind = "JoinToken",
    namespaced,
    shortname = "jt",
    status = "JoinTokenStatus",
    derive = "PartialEq",
    doc = "The right of hosts to join a group.",
    printcolumn(name = "GROUP", type_ = "string", json_path = ".spec.group"),
    printcolumn(name = "LEFT", type_ = "integer", json_path = ".status.usesLeft"),
    printcolumn(name = "EXPIRES", type_ = "date", json_path = ".status.expires"),
    printcolumn(name = "REVOKED", type_ = "boolean", json_path = ".spec.revoked", priority = "1"),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.replaces) == has(oldSelf.replaces) && (!has(self.replaces) || self.replaces == oldSelf.replaces)")
        .message("replaces cannot be changed: make another token"),
    validation = Rule::new("has(self.notAfter) == has(oldSelf.notAfter) && (!has(self.notAfter) || self.notAfter == oldSelf.notAfter)")
        .message("notAfter cannot be changed: make another token")
)]
pub struct JoinTokenSpec {
    /// The group, in the token's own namespace.
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("the group cannot be changed: make another token"))]
    pub group: String,
    /// How long it is valid from its creation, in seconds, minutes, hours or days: `90s`, `30m`, `24h`, `7d`.
    #[serde(default = "default_ttl")]
    #[schemars(length(min = 2, max = 8), regex(pattern = "^[1-9][0-9]{0,6}[smhd]$"))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("the time cannot be changed: make another token"))]
    pub ttl: String,
    /// From when it is refused whatever `ttl` says, as RFC 3339 has it: an object that is restored from a backup is a new one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 40),
        regex(
            pattern = "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]+)?(Z|[-+][0-9]{2}:[0-9]{2})$"
        )
    )]
    pub not_after: Option<String>,
    /// How many hosts may join with it.
    #[serde(default = "default_uses")]
    #[schemars(range(min = 1, max = 100_000))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("maxUses cannot be changed: make another token"))]
    pub max_uses: u32,
    /// Where hosts have to come from; none: from anywhere.
    #[serde(default, rename = "sourceCIDRs")]
    #[schemars(length(max = 32))]
    #[x_kube(
        validation = Rule::new("self.all(prefix, isCIDR(prefix))").message("a prefix is one of IPv4 or IPv6, such as 192.0.2.0/24"),
        validation = Rule::new("self == oldSelf").message("sourceCIDRs cannot be changed: make another token")
    )]
    pub source_cidrs: Vec<Prefix>,
    /// Whether hosts that joined with it are forgotten once they are away for long.
    #[serde(default)]
    #[x_kube(validation = Rule::new("self == oldSelf").message("ephemeral cannot be changed: make another token"))]
    pub ephemeral: bool,
    /// SHA-256 of the 32 random bytes that are the secret, in hexadecimal digits.
    #[schemars(length(min = 64, max = 64), regex(pattern = "^[0-9a-f]{64}$"))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("the secret cannot be changed: make another token"))]
    pub secret_hash: String,
    /// The workload that may be taken over with it, and nothing else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<Replaced>,
    /// Nobody joins with it any more; hosts that did stay.
    #[serde(default)]
    #[x_kube(validation = Rule::new("self || !oldSelf").message("a token stays revoked: make another one"))]
    pub revoked: bool,
}

/// A workload that another host takes the place of.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Replaced {
    /// Its name, in the token's own namespace.
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub workload: String,
    /// The hash of the key that it has: whoever has the name later is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 64, max = 64), regex(pattern = "^[0-9a-f]{64}$"))]
    pub key_hash: Option<String>,
}

/// A prefix of addresses.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(transparent)]
pub struct Prefix(#[schemars(length(min = 4, max = 49))] pub String);

/// What became of a token. Written by the gateway.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct JoinTokenStatus {
    /// How many hosts may still join.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses_left: Option<u32>,
    /// The last workloads that joined with it.
    #[serde(default)]
    pub used_by: Vec<String>,
    /// From when it is refused, as RFC 3339 has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub expires: Option<String>,
    /// What hosts are told with it, beside the secret; there while they can join with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bootstrap: Option<Bootstrap>,
    /// What is known about it: `Ready`.
    #[serde(default)]
    #[schemars(
        length(max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"])
    )]
    pub conditions: Vec<Condition>,
}

/// What a token's text carries besides its name and secret. No secret.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Bootstrap {
    /// Where hosts reach gateways, `host:port`.
    pub gateways: Vec<String>,
    /// SHA-256 of the roots' public keys, in hexadecimal digits.
    pub root_pins: Vec<String>,
    /// The trust domain.
    pub trust_domain: String,
}

fn default_ttl() -> String {
    "24h".to_owned()
}

const fn default_uses() -> u32 {
    1
}
