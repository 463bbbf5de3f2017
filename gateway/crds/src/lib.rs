//! Outrigger's custom resources, `outrigger.dev/v1alpha1`: their types and the definitions that a cluster is given.
//!
//! Which values are refused, and with which words, is said here once: the API server checks it before anything is stored,
//! by the schema and by CEL rules. Everything that a rule walks over has a limit, since rules have a budget.

mod group;
mod probe;
mod record;
mod token;
mod workload;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;

pub use group::{ExternalWorkloadGroup, ExternalWorkloadGroupSpec, Mode, Port, Protocol, Scope, Template};
pub use probe::{ExecProbe, HttpProbe, Probe, TcpProbe};
pub use record::{Entry, MeshRecord, MeshRecordSpec};
pub use token::{Bootstrap, JoinToken, JoinTokenSpec, JoinTokenStatus, Prefix, Replaced};
pub use workload::{
    Address, Claim, ExternalWorkload, ExternalWorkloadSpec, ExternalWorkloadStatus, RELEASE, Recorded,
};

/// The API group of all kinds.
pub const GROUP: &str = "outrigger.dev";
/// Its version.
pub const VERSION: &str = "v1alpha1";

/// The definitions of all kinds, by name.
#[must_use]
pub fn definitions() -> Vec<CustomResourceDefinition> {
    let mut all =
        vec![ExternalWorkload::crd(), ExternalWorkloadGroup::crd(), JoinToken::crd(), MeshRecord::crd()];
    for definition in &mut all {
        // An upgrade or removal of a chart never takes the objects along.
        let annotations = definition.metadata.annotations.get_or_insert_default();
        annotations.insert("helm.sh/resource-policy".to_owned(), "keep".to_owned());
    }
    all.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    all
}

/// The definition as YAML, and the name of its file.
///
/// # Errors
/// What cannot be written as YAML.
pub fn file(definition: &CustomResourceDefinition) -> Result<(String, String), serde_saphyr::ser::Error> {
    let name = definition.metadata.name.clone().unwrap_or_default();
    let text = serde_saphyr::to_string(definition)?;
    Ok((format!("{name}.yaml"), format!("# Written by `cargo xtask crds`.\n{text}")))
}

#[cfg(test)]
mod tests;
