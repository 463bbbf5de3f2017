//! Policies of every language: the languages are the policy crate's; here their refusals get their lines.

use std::sync::Arc;

use policy::rules::PolicyObject;
use policy::{InvalidObject, cilium, clusternetworkpolicy, networkpolicy};
use serde_json::Value;

use super::decode::InvalidField;
use super::node::Node;
use super::{Kind, Object, companion};

/// The language of a kind of policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Language {
    NetworkPolicy,
    Cilium(cilium::Kind),
    Cluster(clusternetworkpolicy::Kind),
}

impl Language {
    /// `None` of kinds that are no policies.
    pub(super) const fn of(kind: Kind) -> Option<Self> {
        Some(match kind {
            Kind::NetworkPolicy => Self::NetworkPolicy,
            Kind::CiliumNetworkPolicy => Self::Cilium(cilium::Kind::Namespaced),
            Kind::CiliumClusterwideNetworkPolicy => Self::Cilium(cilium::Kind::Clusterwide),
            Kind::ClusterNetworkPolicy => Self::Cluster(clusternetworkpolicy::Kind::Cluster),
            Kind::AdminNetworkPolicy => Self::Cluster(clusternetworkpolicy::Kind::Admin),
            Kind::BaselineAdminNetworkPolicy => Self::Cluster(clusternetworkpolicy::Kind::Baseline),
            Kind::Namespace
            | Kind::Pod
            | Kind::Service
            | Kind::EndpointSlice
            | Kind::CiliumCidrGroup
            | Kind::ExternalWorkloadGroup
            | Kind::ExternalWorkload => return None,
        })
    }

    /// Decodes an object.
    ///
    /// # Errors
    /// The first thing that is wrong with its place, and the others with their lines.
    pub(super) fn decode(self, node: &Node) -> Result<Object, InvalidField> {
        self.parse(&node.to_json()).map(of).map_err(|invalid| placed(node, &invalid))
    }

    /// What is in force in the place of an object that was never valid.
    pub(super) fn stand_in(self, node: &Node) -> Option<Object> {
        let raw = node.to_json();
        let policies: Vec<PolicyObject> = match self {
            Self::NetworkPolicy => networkpolicy::isolation_of(&raw).into_iter().collect(),
            Self::Cilium(kind) => cilium::isolation_of(kind, &raw),
            Self::Cluster(kind) => clusternetworkpolicy::isolation_of(kind, &raw).into_iter().collect(),
        };
        (!policies.is_empty()).then(|| of(policies))
    }

    fn parse(self, raw: &Value) -> Result<Vec<PolicyObject>, InvalidObject> {
        let one = |policy| vec![policy];
        match self {
            Self::NetworkPolicy => {
                let mut policy = networkpolicy::parse(raw)?;
                policy.warnings.extend(companion::why_none(raw));
                Ok(one(policy))
            }
            Self::Cilium(kind) => cilium::parse(kind, raw),
            Self::Cluster(kind) => clusternetworkpolicy::parse(kind, raw).map(one),
        }
    }
}

fn of(policies: Vec<PolicyObject>) -> Object {
    Object::Policies(policies.into_iter().map(Arc::new).collect())
}

fn placed(node: &Node, invalid: &InvalidObject) -> InvalidField {
    let Some((first, others)) = invalid.errors.split_first() else {
        return InvalidField::new(node, "", "is refused");
    };
    let mut message = first.message.clone();
    for other in others {
        let line = node.position_of(&other.path).line;
        message = format!("{message}; and at line {line}: {other}");
    }
    InvalidField { position: node.position_of(&first.path), field: first.path.clone(), message }
}
