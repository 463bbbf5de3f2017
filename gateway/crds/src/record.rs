//! `MeshRecord`: what a gateway must not forget and nobody edits.

#![expect(unreachable_pub, reason = "the derive of schemas repeats each type inside of a function")]

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A part of a table of the gateway: numbers of identities, addresses that rest, keys that were revoked. Nobody else's to edit.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "outrigger.dev",
    version = "v1alpha1",
    kind = "MeshRecord",
    namespaced,
    derive = "PartialEq",
    doc = "What a gateway must not forget. It is written by gateways only.",
    printcolumn(name = "TABLE", type_ = "string", json_path = ".spec.table"),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct MeshRecordSpec {
    /// The table.
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("the table cannot be changed"))]
    pub table: String,
    /// Its records in JSON, by their keys.
    #[serde(default)]
    #[schemars(extend("maxProperties" = 16384))]
    pub entries: BTreeMap<String, Entry>,
}

/// A record in JSON.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(transparent)]
pub struct Entry(#[schemars(length(max = 65536))] pub String);
