//! The kinds that are served without a definition, and which kinds are served at all.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::{
    apps::v1 as apps, authentication::v1 as authentication, authorization::v1 as authorization,
    coordination::v1 as coordination, core::v1 as core, discovery::v1 as discovery, events::v1 as events,
    networking::v1 as networking, policy::v1 as policy, rbac::v1 as rbac,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1 as apiextensions;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::kind::{Bucket, Kind, Shape, Typed};

/// The kinds that are served.
#[derive(Debug)]
pub(super) struct Kinds {
    all: BTreeMap<(String, String, String), Arc<Kind>>,
}

/// A kind of the table.
struct Row {
    api: &'static str,
    kind: &'static str,
    plural: &'static str,
    short: &'static str,
    flags: &'static [Flag],
    typed: Typed,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Flag {
    Cluster,
    Status,
    Generation,
    Review,
}

use Flag::{Cluster, Generation, Review, Status};

#[rustfmt::skip]
const TABLE: &[Row] = &[
    row("v1", "Namespace", "namespaces", "ns", &[Cluster, Status], typed::<core::Namespace>),
    row("v1", "Pod", "pods", "po", &[Status, Generation], typed::<core::Pod>),
    row("v1", "Service", "services", "svc", &[Status], typed::<core::Service>),
    row("v1", "Node", "nodes", "no", &[Cluster, Status], typed::<core::Node>),
    row("v1", "Secret", "secrets", "", &[], typed::<core::Secret>),
    row("v1", "ConfigMap", "configmaps", "cm", &[], typed::<core::ConfigMap>),
    row("v1", "ServiceAccount", "serviceaccounts", "sa", &[], typed::<core::ServiceAccount>),
    row("v1", "Event", "events", "ev", &[], typed::<core::Event>),
    row("v1", "PersistentVolumeClaim", "persistentvolumeclaims", "pvc", &[Status], typed::<core::PersistentVolumeClaim>),
    row("apps/v1", "Deployment", "deployments", "deploy", &[Status, Generation], typed::<apps::Deployment>),
    row("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets", "pdb", &[Status, Generation], typed::<policy::PodDisruptionBudget>),
    row("events.k8s.io/v1", "Event", "events", "ev", &[], typed::<events::Event>),
    row("discovery.k8s.io/v1", "EndpointSlice", "endpointslices", "", &[Generation], typed::<discovery::EndpointSlice>),
    row("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies", "netpol", &[Generation], typed::<networking::NetworkPolicy>),
    row("coordination.k8s.io/v1", "Lease", "leases", "", &[], typed::<coordination::Lease>),
    row("rbac.authorization.k8s.io/v1", "Role", "roles", "", &[], typed::<rbac::Role>),
    row("rbac.authorization.k8s.io/v1", "RoleBinding", "rolebindings", "", &[], typed::<rbac::RoleBinding>),
    row("rbac.authorization.k8s.io/v1", "ClusterRole", "clusterroles", "", &[Cluster], typed::<rbac::ClusterRole>),
    row("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "clusterrolebindings", "", &[Cluster], typed::<rbac::ClusterRoleBinding>),
    row("apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions", "crd", &[Cluster, Status, Generation], typed::<apiextensions::CustomResourceDefinition>),
    row("authentication.k8s.io/v1", "TokenReview", "tokenreviews", "", &[Cluster, Review], typed::<authentication::TokenReview>),
    row("authorization.k8s.io/v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews", "", &[Cluster, Review], typed::<authorization::SelfSubjectAccessReview>),
];

const fn row(
    api: &'static str,
    kind: &'static str,
    plural: &'static str,
    short: &'static str,
    flags: &'static [Flag],
    typed: Typed,
) -> Row {
    Row { api, kind, plural, short, flags, typed }
}

impl Kinds {
    /// The kinds of the table.
    pub(super) fn built_in() -> Self {
        let mut kinds = Self { all: BTreeMap::new() };
        for row in TABLE {
            kinds.insert(row.kind());
        }
        kinds
    }

    /// Serves a kind.
    pub(super) fn insert(&mut self, kind: Kind) {
        let key = (kind.group.clone(), kind.version.clone(), kind.plural.clone());
        self.all.insert(key, Arc::new(kind));
    }

    /// Serves a kind no longer, in no version.
    pub(super) fn remove(&mut self, bucket: &Bucket) {
        self.all.retain(|_, kind| kind.bucket() != *bucket);
    }

    /// The kind of a path.
    pub(super) fn get(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Kind>> {
        self.all.get(&(group.to_owned(), version.to_owned(), plural.to_owned())).cloned()
    }

    /// Any version of the kind that is kept there.
    pub(super) fn of(&self, bucket: &Bucket) -> Option<Arc<Kind>> {
        self.all.values().find(|kind| kind.bucket() == *bucket).cloned()
    }

    /// All, by group, version and name.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Kind>> {
        self.all.values()
    }
}

impl Row {
    fn kind(&self) -> Kind {
        let (group, version) = self.api.rsplit_once('/').unwrap_or(("", self.api));
        let has = |flag| self.flags.contains(&flag);
        Kind {
            group: group.to_owned(),
            version: version.to_owned(),
            kind: self.kind.to_owned(),
            plural: self.plural.to_owned(),
            singular: self.kind.to_lowercase(),
            short: if self.short.is_empty() { Vec::new() } else { vec![self.short.to_owned()] },
            categories: Vec::new(),
            namespaced: !has(Cluster),
            status: has(Status),
            generation: has(Generation),
            review: has(Review),
            shape: Shape::Typed(self.typed),
        }
    }
}

/// Reads a value as the type and writes it again: what the type does not know is gone.
fn typed<T: DeserializeOwned + Serialize>(value: Value) -> Result<Value, String> {
    let object: T = serde_json::from_value(value).map_err(|error| error.to_string())?;
    serde_json::to_value(object).map_err(|error| error.to_string())
}
