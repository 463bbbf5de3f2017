//! A companion as an object: whose it is, what it is called, and what tells it from everybody else's.

use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicySpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource as _;
use sha2::{Digest as _, Sha256};

use crate::manifest::COMPANION;

/// What names begin with.
const PREFIX: &str = "outrigger-companion-";
/// Bytes of the longest name.
const LONGEST: usize = 253;

/// What the companion of a policy is called.
pub(super) fn name_of(original: &str) -> String {
    let name = format!("{PREFIX}{original}");
    if name.len() <= LONGEST {
        return name;
    }
    format!("{PREFIX}{}", hex::encode(Sha256::digest(original)))
}

/// Whether an object is a companion: nothing else is ever touched. Both, since a label is easily copied.
pub(super) fn is_own(metadata: &ObjectMeta) -> bool {
    is_labelled(metadata) && metadata.name.as_ref().is_some_and(|name| name.starts_with(PREFIX))
}

/// Whether an object says to be a companion: then it is no policy of anybody.
pub(super) fn is_labelled(metadata: &ObjectMeta) -> bool {
    let labels = metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(COMPANION.0)).is_some_and(|value| value == COMPANION.1)
}

/// The policy that owns it; `None`: none does, or not alone.
pub(super) fn owner_of(metadata: &ObjectMeta) -> Option<&str> {
    match metadata.owner_references.as_deref()? {
        [only] if only.kind == NetworkPolicy::kind(&()) && only.controller == Some(true) => Some(&only.uid),
        _ => None,
    }
}

/// The companion of a policy; with the version of the one whose place it takes.
pub(super) fn companion(
    (namespace, original): (&str, &str),
    uid: &str,
    spec: NetworkPolicySpec,
    version: Option<&str>,
) -> NetworkPolicy {
    let owner = OwnerReference {
        api_version: NetworkPolicy::api_version(&()).into_owned(),
        kind: NetworkPolicy::kind(&()).into_owned(),
        name: original.to_owned(),
        uid: uid.to_owned(),
        controller: Some(true),
        block_owner_deletion: None,
    };
    NetworkPolicy {
        metadata: ObjectMeta {
            name: Some(name_of(original)),
            namespace: Some(namespace.to_owned()),
            labels: Some([(COMPANION.0.to_owned(), COMPANION.1.to_owned())].into()),
            owner_references: Some(vec![owner]),
            resource_version: version.map(str::to_owned),
            ..ObjectMeta::default()
        },
        spec: Some(spec),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_never_too_long_and_never_two_policies() {
        assert_eq!(name_of("db"), "outrigger-companion-db");
        let (long, other) = ("a".repeat(253), "a".repeat(252));
        assert!(name_of(&long).len() <= LONGEST);
        assert_ne!(name_of(&long), name_of(&other));
    }

    #[test]
    fn label_and_name_tell_what_is_its_own() {
        let mut made = companion(("shop", "db"), "1", NetworkPolicySpec::default(), None).metadata;
        assert!(is_own(&made));
        assert_eq!(owner_of(&made), Some("1"));
        made.name = Some("db".to_owned());
        assert!(!is_own(&made) && is_labelled(&made));
        made.labels = None;
        assert!(!is_labelled(&made));
    }
}
