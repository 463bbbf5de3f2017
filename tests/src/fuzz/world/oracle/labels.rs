//! Labels of endpoints, and selectors over them.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{items, text};
use crate::fuzz::world::cluster::{Cluster, Kind, Thing};

/// A key that pods' identities lack.
pub(super) fn is_filtered(key: &str) -> bool {
    key == "pod-template-hash"
}

/// The label that an endpoint has under this key.
pub(super) fn of_endpoint<'a>(cluster: &'a Cluster, thing: &'a Thing, key: &str) -> Option<&'a str> {
    match key {
        "io.kubernetes.pod.namespace" => Some(thing.namespace),
        "io.cilium.k8s.policy.cluster" => Some("default"),
        "io.cilium.k8s.policy.serviceaccount" => Some(thing.account),
        _ if thing.kind == Kind::Pod && is_filtered(key) => None,
        _ => match key.strip_prefix("io.cilium.k8s.namespace.labels.") {
            Some(key) => of_namespace(cluster, thing.namespace, key),
            None => thing.labels.get(key).copied(),
        },
    }
}

pub(super) fn of_namespace<'a>(cluster: &'a Cluster, namespace: &'a str, key: &str) -> Option<&'a str> {
    match key {
        "kubernetes.io/metadata.name" => Some(namespace),
        "app" => cluster.teams.get(namespace).copied(),
        _ => None,
    }
}

/// Whether all requirements are fulfilled.
pub(super) fn selects<'a>(selector: &Value, label: impl Fn(&str) -> Option<&'a str>) -> bool {
    requirements(selector).all(|requirement| requirement.is_fulfilled(label(requirement.key)))
}

/// Whether a peer is meant, by the labels that its identity has. A pod's identity lacks some labels: what a rule says
/// about these allows no pod, and is left out of what is denied.
pub(super) fn selects_peer<'a>(
    selector: &Value,
    denies: bool,
    bare: impl Fn(&str) -> &str,
    label: impl Fn(&str) -> Option<&'a str>,
) -> bool {
    let is_unknown = |requirement: &Requirement<'_>| is_filtered(bare(requirement.key));
    if !denies && requirements(selector).any(|found| is_unknown(&found) && found.is_negative()) {
        return false;
    }
    requirements(selector)
        .filter(|found| !(denies && is_unknown(found)))
        .all(|found| found.is_fulfilled(label(bare(found.key))))
}

/// Whether a map of labels is selected.
pub(super) fn selects_labels(selector: &Value, labels: &BTreeMap<&str, &str>) -> bool {
    selects(selector, |key| labels.get(key).copied())
}

pub(super) struct Requirement<'a> {
    pub(super) key: &'a str,
    operator: &'a str,
    values: Vec<&'a str>,
}

pub(super) fn requirements(selector: &Value) -> impl Iterator<Item = Requirement<'_>> {
    let exact = selector["matchLabels"].as_object().into_iter().flatten();
    let exact = exact.map(|(key, value)| Requirement { key, operator: "In", values: vec![text(value)] });
    let others = items(&selector["matchExpressions"]).iter().map(|expression| Requirement {
        key: text(&expression["key"]),
        operator: text(&expression["operator"]),
        values: items(&expression["values"]).iter().map(text).collect(),
    });
    exact.chain(others)
}

impl Requirement<'_> {
    pub(super) fn is_negative(&self) -> bool {
        matches!(self.operator, "NotIn" | "DoesNotExist")
    }

    fn is_fulfilled(&self, found: Option<&str>) -> bool {
        let listed = found.is_some_and(|found| self.values.contains(&found));
        match self.operator {
            "In" => listed,
            "NotIn" => !listed,
            "Exists" => found.is_some(),
            _ => found.is_none(),
        }
    }
}
