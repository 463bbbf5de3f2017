//! `NetworkPolicy` v1 as serde reads it. Absent and empty stay apart; `null` is absent, as in the API server.

use std::fmt;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::object::Metadata;
use crate::selector::LabelSelector;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct NetworkPolicy {
    pub(super) api_version: String,
    pub(super) kind: String,
    pub(super) metadata: Metadata,
    pub(super) spec: Spec,
    #[serde(rename = "status")]
    _status: Option<IgnoredAny>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Spec {
    pub(super) pod_selector: Option<LabelSelector>,
    pub(super) policy_types: Option<Vec<PolicyType>>,
    pub(super) ingress: Option<Vec<IngressRule>>,
    pub(super) egress: Option<Vec<EgressRule>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(super) enum PolicyType {
    Ingress,
    Egress,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct IngressRule {
    pub(super) from: Option<Vec<Peer>>,
    pub(super) ports: Option<Vec<PortItem>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EgressRule {
    pub(super) to: Option<Vec<Peer>>,
    pub(super) ports: Option<Vec<PortItem>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Peer {
    pub(super) pod_selector: Option<LabelSelector>,
    pub(super) namespace_selector: Option<LabelSelector>,
    pub(super) ip_block: Option<IpBlock>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct IpBlock {
    pub(super) cidr: String,
    pub(super) except: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct PortItem {
    pub(super) protocol: Option<Protocol>,
    pub(super) port: Option<PortValue>,
    pub(super) end_port: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

/// `intstr.IntOrString`.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "port is a number or a name")]
pub(super) enum PortValue {
    Number(i64),
    Name(String),
}

impl fmt::Display for PortValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Name(name) => write!(f, "{name:?}"),
        }
    }
}

impl Protocol {
    /// The IP protocol number.
    pub(super) const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}
