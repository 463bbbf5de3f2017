//! What every object has: its name, its namespace, its labels.

use std::collections::BTreeMap;

use policy::labels;
use serde::Deserialize;

use super::decode::{InvalidField, Step, decode};
use super::fields;
use super::node::Node;

/// The namespace of namespaced objects that name none, as for `kubectl`.
pub(super) const DEFAULT_NAMESPACE: &str = "default";

/// The label of Kubernetes that says in which zone something is.
const ZONE: &str = "topology.kubernetes.io/zone";

/// Kubernetes' `ObjectMeta`, without what means nothing here.
const KNOWN: [&str; 15] = [
    "name",
    "namespace",
    "labels",
    "annotations",
    "uid",
    "resourceVersion",
    "generation",
    "generateName",
    "selfLink",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "finalizers",
    "managedFields",
    "ownerReferences",
];

/// Name, namespace and labels of an object, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Metadata {
    /// The name, a DNS subdomain.
    pub(super) name: String,
    /// The namespace, a DNS label; empty for kinds that have none.
    pub(super) namespace: String,
    /// The labels, of valid syntax; reserved keys are the kinds' business.
    pub(super) labels: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Wire {
    name: String,
    namespace: Option<String>,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
}

impl Metadata {
    /// The zone that the object's own labels say it is in.
    pub(super) fn zone(&self) -> Option<String> {
        self.labels.get(ZONE).filter(|zone| !zone.is_empty()).cloned()
    }

    /// Reads the metadata of an object.
    ///
    /// # Errors
    /// [`InvalidField`] naming the field.
    pub(super) fn decode(object: &Node, namespaced: bool) -> Result<Self, InvalidField> {
        let node =
            object.get("metadata").ok_or_else(|| InvalidField::new(object, "metadata", "is missing"))?;
        let within = |error: InvalidField| error.within(Step::Field("metadata"), node.position);
        fields::only(node, &KNOWN).map_err(within)?;
        let wire: Wire = decode(node).map_err(within)?;
        let at =
            |name: &str, message: String| InvalidField::new(node.get(name).unwrap_or(node), name, message);
        if !labels::is_subdomain(&wire.name) {
            let message =
                format!("{:?} is no valid name: lower-case letters, digits, '-' and '.'", wire.name);
            return Err(within(at("name", message)));
        }
        let namespace = match (namespaced, wire.namespace) {
            (true, None) => DEFAULT_NAMESPACE.to_owned(),
            (true, Some(namespace)) if labels::is_dns_label(&namespace) => namespace,
            (true, Some(namespace)) => {
                return Err(within(at(
                    "namespace",
                    format!("{namespace:?} is no valid name of a namespace"),
                )));
            }
            (false, None) => String::new(),
            (false, Some(namespace)) => {
                return Err(within(at("namespace", format!("{namespace:?}: this kind has no namespace"))));
            }
        };
        Ok(Self { name: wire.name, namespace, labels: wire.labels.unwrap_or_default() })
    }
}

/// Checks labels that an object brings along; they stand in `node` under `labels`.
///
/// # Errors
/// [`InvalidField`] for the first that is of wrong syntax or reserved.
pub(super) fn check_labels(node: &Node, labels: &BTreeMap<String, String>) -> Result<(), InvalidField> {
    for (key, value) in labels {
        if let Err(error) = labels::check_given(key, value) {
            let place = node.get("labels").and_then(|labels| labels.get(key)).unwrap_or(node);
            return Err(InvalidField::new(place, format!("labels[{key}]"), error));
        }
    }
    Ok(())
}
