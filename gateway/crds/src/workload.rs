//! `ExternalWorkload`: a host outside of the cluster, the counterpart of a Pod.

#![expect(unreachable_pub, reason = "the derive of schemas repeats each type inside of a function")]
#![expect(clippy::duplicated_attributes, reason = "each column has a name of its own")]

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Mode, Scope};

/// A host that is to join under this name. Who joins under it must do so through its group, and gets its addresses.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "outrigger.dev",
    version = "v1alpha1",
    kind = "ExternalWorkload",
    namespaced,
    shortname = "ew",
    derive = "PartialEq",
    doc = "A host outside of the cluster, declared before it joins.",
    printcolumn(name = "GROUP", type_ = "string", json_path = ".spec.group"),
    printcolumn(name = "ADDRESSES", type_ = "string", json_path = ".spec.addresses"),
    printcolumn(name = "SCOPE", type_ = "string", json_path = ".spec.scope", priority = "1"),
    printcolumn(name = "NIC", type_ = "string", json_path = ".spec.nicMode", priority = "1"),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(oldSelf.addresses) || oldSelf.addresses.size() == 0 || (has(self.addresses) && self.addresses == oldSelf.addresses)")
        .message("addresses cannot be changed: peers may still send to them")
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
}

/// An address.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(transparent)]
pub struct Address(#[schemars(length(min = 2, max = 45))] pub String);
