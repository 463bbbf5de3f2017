//! The objects as serde reads them: the three kinds differ in a few fields, which are checked when they are compiled.

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::object::Metadata;
use crate::selector::LabelSelector;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Object {
    pub(super) api_version: String,
    pub(super) kind: String,
    pub(super) metadata: Metadata,
    pub(super) spec: Spec,
    #[serde(rename = "status")]
    _status: Option<IgnoredAny>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Spec {
    pub(super) tier: Option<Tier>,
    pub(super) priority: Option<i64>,
    pub(super) subject: Pods,
    pub(super) ingress: Option<Vec<Rule>>,
    pub(super) egress: Option<Vec<Rule>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(super) enum Tier {
    Admin,
    Baseline,
}

/// A subject, and a peer that is made of pods. One of the fields is given.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pods {
    pub(super) namespaces: Option<LabelSelector>,
    pub(super) pods: Option<NamespacedPod>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct NamespacedPod {
    #[serde(default)]
    pub(super) namespace_selector: LabelSelector,
    pub(super) pod_selector: LabelSelector,
}

/// A rule of either direction.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rule {
    pub(super) name: Option<String>,
    pub(super) action: Action,
    pub(super) from: Option<Vec<Peer>>,
    pub(super) to: Option<Vec<Peer>>,
    /// Of v1alpha2.
    pub(super) protocols: Option<Vec<Protocol>>,
    /// Of v1alpha1.
    pub(super) ports: Option<Vec<OldPort>>,
}

/// `Accept` is v1alpha2's word, `Allow` that of v1alpha1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(super) enum Action {
    Accept,
    Allow,
    Deny,
    Pass,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Peer {
    pub(super) namespaces: Option<LabelSelector>,
    pub(super) pods: Option<NamespacedPod>,
    pub(super) nodes: Option<LabelSelector>,
    pub(super) networks: Option<Vec<String>>,
    pub(super) domain_names: Option<Vec<String>>,
}

/// One of the fields is given.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Protocol {
    pub(super) tcp: Option<Transport>,
    pub(super) udp: Option<Transport>,
    pub(super) sctp: Option<Transport>,
    pub(super) destination_named_port: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Transport {
    pub(super) destination_port: Option<Port>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Port {
    pub(super) number: Option<i64>,
    pub(super) range: Option<Range>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Range {
    pub(super) start: i64,
    pub(super) end: i64,
}

/// One of the fields is given.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct OldPort {
    pub(super) port_number: Option<OldNumber>,
    pub(super) named_port: Option<String>,
    pub(super) port_range: Option<OldRange>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OldNumber {
    pub(super) protocol: Option<String>,
    pub(super) port: i64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OldRange {
    pub(super) protocol: Option<String>,
    pub(super) start: i64,
    pub(super) end: i64,
}
