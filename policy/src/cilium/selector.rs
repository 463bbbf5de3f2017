//! Selectors as Cilium reads them: keys may carry the source of the label, and a peer without a namespace is one of the
//! policy's own.

use crate::labels::{self, InvalidLabel};
use crate::selector::{FieldError, LabelSelector, Requirement, Selector};

/// Where an object's peers are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope<'a> {
    /// A namespace: unless the selector names another.
    Namespace(&'a str),
    /// The cluster: every namespace.
    Cluster,
}

const RESERVED: &str = "reserved:";

/// The `source:key` of a label that a selector names. Without a source, or with `any`, it is a Kubernetes label: other
/// sources give no labels to identities here, but for the reserved ones, which have to be named so.
fn name_of_label(key: &str) -> Result<String, InvalidLabel> {
    let key = match key.split_once(':') {
        Some(("k8s" | "any", key)) => key,
        Some(("reserved", name)) => {
            return labels::check_key(name).map(|()| format!("{RESERVED}{name}"));
        }
        _ => key,
    };
    labels::check_key(key).map(|()| format!("{}{key}", labels::OBJECT_PREFIX))
}

/// The selector as it stands.
pub(super) fn plain(selector: &LabelSelector, path: &str, errors: &mut Vec<FieldError>) -> Selector {
    selector.compile_by(&name_of_label, path, errors)
}

/// The selector of a peer: within the scope, unless it says itself where. One that wants a reserved label means
/// identities without a namespace, wherever the policy is; one that only excludes some is as any other.
pub(super) fn peer(
    selector: &LabelSelector,
    scope: Scope<'_>,
    path: &str,
    errors: &mut Vec<FieldError>,
) -> Selector {
    let compiled = plain(selector, path, errors);
    if compiled.wanted().any(|label| label.starts_with(RESERVED)) {
        return compiled.and(Requirement::absent(labels::NAMESPACE));
    }
    let names = |wanted: fn(&str) -> bool| compiled.labels().any(wanted);
    let has_namespace = names(|label| label == labels::NAMESPACE);
    let has_namespace_label = names(|label| label.starts_with(labels::NAMESPACE_LABEL_PREFIX));
    match scope {
        Scope::Namespace(namespace) if !has_namespace && !has_namespace_label => {
            compiled.and(Requirement::is(labels::NAMESPACE, namespace))
        }
        // However negative, a selector chooses no reserved identity.
        Scope::Namespace(_) | Scope::Cluster => compiled.and(Requirement::exists(labels::NAMESPACE)),
    }
}
