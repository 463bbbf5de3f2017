//! `v1 Namespace`: its labels, which namespace selectors see.

use policy::facts::Namespace;

use super::decode::{InvalidField, Step};
use super::fields;
use super::metadata::{Metadata, check_labels};
use super::node::Node;

pub(super) fn decode(node: &Node, metadata: Metadata) -> Result<Namespace, InvalidField> {
    fields::only(node, &["apiVersion", "kind", "metadata", "spec", "status"])?;
    fields::only_in(node, "spec", &["finalizers"])?;
    fields::only_in(node, "status", &["phase", "conditions"])?;
    if let Some(place) = node.get("metadata") {
        check_labels(place, &metadata.labels)
            .map_err(|error| error.within(Step::Field("metadata"), place.position))?;
    }
    Ok(Namespace { labels: metadata.labels, unreadable: false })
}
