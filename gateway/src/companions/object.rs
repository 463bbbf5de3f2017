//! A companion as it is written. What makes an object one says `manifest::companion`.

use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicySpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource as _;

use crate::manifest::companion::{COMPANION, name_of};

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
