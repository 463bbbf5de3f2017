//! Labels of endpoints, and selectors over them.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{items, text};
use crate::fuzz::world::cluster::{Cluster, Kind, Thing};

/// A key that pods' identities lack.
pub(super) fn is_filtered(key: &str) -> bool {
    key == "pod-template-hash"
}

/// The value of a label; `Unknown` where the labels of the namespace cannot be read.
#[derive(Clone, Copy)]
pub(super) enum Label<'a> {
    Known(Option<&'a str>),
    Unknown,
}

/// The label that an endpoint has under this key.
pub(super) fn of_endpoint<'a>(cluster: &'a Cluster, thing: &'a Thing, key: &str) -> Label<'a> {
    Label::Known(match key {
        "io.kubernetes.pod.namespace" => Some(thing.namespace),
        "io.cilium.k8s.policy.cluster" => Some("default"),
        "io.cilium.k8s.policy.serviceaccount" => Some(thing.account),
        _ if thing.kind == Kind::Pod && is_filtered(key) => None,
        _ => match key.strip_prefix("io.cilium.k8s.namespace.labels.") {
            Some(key) => return of_namespace(cluster, thing.namespace, key),
            None => thing.labels.get(key).copied(),
        },
    })
}

pub(super) fn of_namespace<'a>(cluster: &'a Cluster, namespace: &'a str, key: &str) -> Label<'a> {
    let known = match key {
        "kubernetes.io/metadata.name" => Some(namespace),
        "app" => cluster.teams.get(namespace).copied(),
        _ => None,
    };
    if known.is_none() && cluster.unreadable == Some(namespace) {
        Label::Unknown
    } else {
        Label::Known(known)
    }
}

/// Whether somebody is selected, as far as that is known.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Selected {
    No,
    Maybe,
    Yes,
}

pub(super) fn subject<'a>(selector: &Value, label: impl Fn(&str) -> Label<'a>) -> Selected {
    let fulfilled =
        |if_unknown| requirements(selector).all(|found| found.is_fulfilled(label(found.key), if_unknown));
    match (fulfilled(true), fulfilled(false)) {
        (_, true) => Selected::Yes,
        (true, false) => Selected::Maybe,
        (false, false) => Selected::No,
    }
}

/// Whether all requirements are fulfilled. What is unknown is denied, and not allowed.
pub(super) fn selects<'a>(selector: &Value, denies: bool, label: impl Fn(&str) -> Label<'a>) -> bool {
    requirements(selector).all(|requirement| requirement.is_fulfilled(label(requirement.key), denies))
}

/// Whether a peer is meant, by the labels that its identity has. A pod's identity lacks some labels: what a rule says
/// about these allows no pod, and is left out of what is denied.
pub(super) fn selects_peer<'a>(
    selector: &Value,
    denies: bool,
    bare: impl Fn(&str) -> &str,
    label: impl Fn(&str) -> Label<'a>,
) -> bool {
    let is_lacking = |requirement: &Requirement<'_>| is_filtered(bare(requirement.key));
    if !denies && requirements(selector).any(|found| is_lacking(&found) && found.is_negative()) {
        return false;
    }
    requirements(selector)
        .filter(|found| !(denies && is_lacking(found)))
        .all(|found| found.is_fulfilled(label(bare(found.key)), denies))
}

/// Whether a map of labels is selected.
pub(super) fn selects_labels(selector: &Value, labels: &BTreeMap<&str, &str>) -> bool {
    selects(selector, false, |key| Label::Known(labels.get(key).copied()))
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

    fn is_fulfilled(&self, found: Label<'_>, if_unknown: bool) -> bool {
        let Label::Known(found) = found else { return if_unknown };
        let listed = found.is_some_and(|found| self.values.contains(&found));
        match self.operator {
            "In" => listed,
            "NotIn" => !listed,
            "Exists" => found.is_some(),
            _ => found.is_none(),
        }
    }
}
