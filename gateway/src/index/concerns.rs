//! Which rejected objects concern which workload.

use std::sync::Arc;

use policy::labels::Labels;
use policy::rules::PolicyObject;

use super::{Index, parts};
use crate::manifest::{Kind, ObjectKey};
use crate::source::Rejected;
use crate::store::{Target, Workload};

/// Rejected objects, with what is in force in their place.
pub(super) struct Concerns<'a> {
    rejected: Vec<(&'a Rejected, &'a ObjectKey, Vec<&'a Arc<PolicyObject>>)>,
}

impl Index {
    pub(super) fn concerns(&self) -> Concerns<'_> {
        let with_key = self.rejected.iter().filter_map(|rejected| Some((rejected, rejected.key.as_ref()?)));
        let with_policy = with_key.map(|(rejected, key)| {
            let policies = if key.kind.is_policy() {
                parts::of(&self.facts.policies, key).collect()
            } else {
                Vec::new()
            };
            (rejected, key, policies)
        });
        Concerns { rejected: with_policy.collect() }
    }
}

impl Concerns<'_> {
    /// The rejected objects that concern the workload, `Kind/namespace/name: reason`.
    pub(super) fn of(&self, workload: &Workload, labels: &Labels) -> Vec<String> {
        let concerned = self.rejected.iter().filter(|(_, key, policies)| match key.kind {
            Kind::Namespace => key.name == workload.name.namespace,
            Kind::ExternalWorkload => {
                key.namespace == workload.name.namespace && key.name == workload.name.name
            }
            Kind::ExternalWorkloadGroup => match &workload.target {
                Target::Group { namespace, name } => key.namespace == *namespace && key.name == *name,
                Target::TransitNode { .. } | Target::Node { .. } => false,
            },
            Kind::Pod
            | Kind::Service
            | Kind::EndpointSlice
            | Kind::CiliumCidrGroup
            | Kind::NetworkPolicy
            | Kind::CiliumNetworkPolicy
            | Kind::CiliumClusterwideNetworkPolicy
            | Kind::ClusterNetworkPolicy
            | Kind::AdminNetworkPolicy
            | Kind::BaselineAdminNetworkPolicy => {
                policies.iter().any(|policy| policy.subject.matches(labels))
            }
        });
        concerned
            .map(|(rejected, key, _)| {
                let Rejected { file, position, reason, .. } = rejected;
                format!("{key}: {reason} ({file}:{})", position.line)
            })
            .collect()
    }
}
