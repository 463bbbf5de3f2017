//! Labels in Cilium's serialised form: `source:key=value`, sorted, each ended by `;`. Owns which labels make an
//! identity and which keys nobody but the gateway may give; knows nothing of numbers.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub(crate) mod syntax;
#[cfg(test)]
mod tests;

pub use syntax::{InvalidLabel, check_given, check_key, check_value, is_dns_label, is_subdomain};

/// The labels of an identity: `source:key` → value. Sources are `k8s` and `reserved`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Labels(pub BTreeMap<String, String>);

/// `source:key` of the namespace.
pub const NAMESPACE: &str = "k8s:io.kubernetes.pod.namespace";
/// `source:key` of the service account.
pub const SERVICE_ACCOUNT: &str = "k8s:io.cilium.k8s.policy.serviceaccount";
/// `source:key` of the cluster.
pub const CLUSTER: &str = "k8s:io.cilium.k8s.policy.cluster";
/// What stands before the key of a label of an object.
pub const OBJECT_PREFIX: &str = "k8s:";
/// What stands before the key of a label of the object's namespace.
pub const NAMESPACE_LABEL_PREFIX: &str = "k8s:io.cilium.k8s.namespace.labels.";
/// The namespace label that always holds the namespace's name.
pub const NAMESPACE_NAME_KEY: &str = "kubernetes.io/metadata.name";
/// `source:key` that marks a namespace whose labels cannot be read: nothing is known to be absent among them.
pub const UNREADABLE_NAMESPACE: &str = "reserved:unreadable-namespace";
/// `source:key` of the identity of transit nodes.
pub const REMOTE_NODE: &str = "reserved:remote-node";

/// Starts of the keys of pod labels that take no part in identities: Cilium's default filter. They differ from pod
/// to pod of one deployment, and would give each its own identity.
const FILTERED: [&str; 14] = [
    "io.kubernetes",
    "kubernetes.io",
    "statefulset.kubernetes.io/pod-name",
    "apps.kubernetes.io/pod-index",
    "batch.kubernetes.io/job-completion-index",
    "batch.kubernetes.io/controller-uid",
    "k8s.io",
    "pod-template-generation",
    "pod-template-hash",
    "controller-revision-hash",
    "controller-uid",
    "annotation",
    "etcd_node",
    "topology.kubernetes.io",
];

/// Whether a pod label with this key takes no part in the pod's identity (Cilium's default label filter).
#[must_use]
pub fn is_filtered(key: &str) -> bool {
    key.contains("beta.kubernetes.io") || FILTERED.iter().any(|start| key.starts_with(start))
}

/// What places a workload beside its own labels: all of it is given by the cluster, never by the workload.
#[derive(Clone, Copy, Debug)]
pub struct Placement<'a> {
    /// The namespace.
    pub namespace: &'a str,
    /// The labels of the namespace object; `kubernetes.io/metadata.name` need not be among them.
    pub namespace_labels: &'a BTreeMap<String, String>,
    /// The service account.
    pub service_account: &'a str,
    /// The cluster.
    pub cluster: &'a str,
}

impl Labels {
    /// The identity labels of a pod: its own without the filtered ones, and those of its placement.
    #[must_use]
    pub fn of_pod(labels: &BTreeMap<String, String>, placement: Placement<'_>) -> Self {
        Self::placed(labels.iter().filter(|(key, _)| !is_filtered(key)), placement)
    }

    /// The identity labels of an external workload: all labels of its group, and those of its placement.
    #[must_use]
    pub fn of_workload(labels: &BTreeMap<String, String>, placement: Placement<'_>) -> Self {
        Self::placed(labels.iter(), placement)
    }

    /// The identity labels of transit nodes.
    #[must_use]
    pub fn of_remote_node() -> Self {
        Self(BTreeMap::from([(REMOTE_NODE.to_owned(), String::new())]))
    }

    /// The labels of the placement are written last: none of the object's own can replace one of them.
    fn placed<'a>(own: impl Iterator<Item = (&'a String, &'a String)>, placement: Placement<'_>) -> Self {
        let mut labels: BTreeMap<String, String> =
            own.map(|(key, value)| (format!("{OBJECT_PREFIX}{key}"), value.clone())).collect();
        for (key, value) in placement.namespace_labels {
            labels.insert(format!("{NAMESPACE_LABEL_PREFIX}{key}"), value.clone());
        }
        labels
            .insert(format!("{NAMESPACE_LABEL_PREFIX}{NAMESPACE_NAME_KEY}"), placement.namespace.to_owned());
        labels.insert(NAMESPACE.to_owned(), placement.namespace.to_owned());
        labels.insert(SERVICE_ACCOUNT.to_owned(), placement.service_account.to_owned());
        labels.insert(CLUSTER.to_owned(), placement.cluster.to_owned());
        Self(labels)
    }

    /// The same in a namespace whose labels cannot be read.
    #[must_use]
    pub(crate) fn in_unreadable_namespace(mut self) -> Self {
        self.0.insert(UNREADABLE_NAMESPACE.to_owned(), String::new());
        self
    }

    /// Whether it is not known if there is a label, by `source:key`: one of a namespace whose labels cannot be read.
    pub(crate) fn may_have(&self, source_and_key: &str) -> bool {
        // Most selectors name no label of a namespace: this comes first.
        source_and_key.starts_with(NAMESPACE_LABEL_PREFIX)
            && self.0.contains_key(UNREADABLE_NAMESPACE)
            && !self.0.contains_key(source_and_key)
    }

    /// The value of a label, by `source:key`.
    #[must_use]
    pub fn get(&self, source_and_key: &str) -> Option<&str> {
        self.0.get(source_and_key).map(String::as_str)
    }

    /// The namespace; `None` for reserved identities.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        self.get(NAMESPACE)
    }
}

impl fmt::Display for Labels {
    /// The serialised form, sorted by key and not by source, as Cilium sorts.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sorted: Vec<_> = self.0.iter().collect();
        sorted.sort_by_key(|(label, _)| label.split_once(':').map(|(source, key)| (key, source)));
        sorted.iter().try_for_each(|(label, value)| write!(f, "{label}={value};"))
    }
}

/// Text that is no serialised label set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLabels {
    /// The last label is not ended.
    #[error("labels {0:?} do not end with ';'")]
    Unterminated(String),
    /// A part is not `source:key=value`.
    #[error("label {0:?} is not of the form source:key=value")]
    Malformed(String),
    /// The source is none that identities have.
    #[error("label {0:?} has an unknown source: it is k8s or reserved")]
    UnknownSource(String),
    /// A key occurs twice.
    #[error("label {0:?} occurs twice")]
    Duplicate(String),
}

impl FromStr for Labels {
    type Err = InvalidLabels;

    fn from_str(text: &str) -> Result<Self, InvalidLabels> {
        let mut labels = BTreeMap::new();
        if text.is_empty() {
            return Ok(Self(labels));
        }
        let body = text.strip_suffix(';').ok_or_else(|| InvalidLabels::Unterminated(text.to_owned()))?;
        for part in body.split(';') {
            let malformed = || InvalidLabels::Malformed(part.to_owned());
            let (label, value) = part.split_once('=').ok_or_else(malformed)?;
            let (source, key) = label.split_once(':').ok_or_else(malformed)?;
            if key.is_empty() {
                return Err(malformed());
            }
            if !matches!(source, "k8s" | "reserved") {
                return Err(InvalidLabels::UnknownSource(part.to_owned()));
            }
            if labels.insert(label.to_owned(), value.to_owned()).is_some() {
                return Err(InvalidLabels::Duplicate(label.to_owned()));
            }
        }
        Ok(Self(labels))
    }
}
