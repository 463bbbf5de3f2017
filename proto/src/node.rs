//! A node's slice of the state as it accumulates from updates: whole or not at all, with a canonical encoding for
//! digests and snapshots that both ends compute alike.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use policy::identity::Identity;
use policy::labels::Labels;
use policy::state::{Endpoint, NodeSettings, NodeState, Policy};
use prost::Message as _;
use sha2::{Digest as _, Sha256};

use crate::convert::{
    InvalidResource, address_from_wire, address_to_wire, endpoint_from_wire, endpoint_to_wire,
    labels_from_wire, labels_to_wire, policy_from_wire, policy_to_wire, settings_from_wire, settings_to_wire,
};
use crate::v1;

/// What was received so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    endpoints: BTreeMap<IpAddr, Arc<Endpoint>>,
    owners: BTreeMap<IpAddr, Arc<str>>,
    identities: BTreeMap<Identity, Arc<Labels>>,
    policy: Option<Arc<Policy>>,
    settings: Option<NodeSettings>,
    gateways: Vec<String>,
}

/// An update that was refused as a whole: everything in it that cannot be converted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("update refused: {}", summary(.0))]
pub struct InvalidUpdate(pub Vec<InvalidResource>);

/// A digest of a canonical encoding.
pub type StateDigest = [u8; 32];

/// One update, converted and not yet applied.
#[derive(Default)]
struct Change {
    endpoints: Vec<(IpAddr, Option<Endpoint>)>,
    owners: Vec<(IpAddr, Option<Arc<str>>)>,
    identities: Vec<(Identity, Option<Labels>)>,
    policy: Option<Policy>,
    settings: Option<NodeSettings>,
    gateways: Option<Vec<String>>,
}

impl Node {
    /// Applies the encoded [`v1::ResourceSet`]s of an update in order. For a snapshot, start from an empty node.
    ///
    /// # Errors
    /// [`InvalidUpdate`] with every resource that cannot be converted; the node is then unchanged.
    pub fn apply<B: AsRef<[u8]>>(&mut self, parts: &[B]) -> Result<(), InvalidUpdate> {
        let mut change = Change::default();
        let mut errors = Vec::new();
        for part in parts {
            match v1::ResourceSet::decode(part.as_ref()) {
                Ok(set) => change.convert(set, &mut errors),
                Err(error) => errors.push(InvalidResource::new("resource set", error.to_string())),
            }
        }
        if !errors.is_empty() {
            return Err(InvalidUpdate(errors));
        }
        self.commit(change);
        Ok(())
    }

    /// The state; `None` until policy and settings were received.
    #[must_use]
    pub fn state(&self) -> Option<NodeState> {
        Some(NodeState {
            endpoints: self.endpoints.clone(),
            identities: self.identities.clone(),
            policy: self.policy.clone()?,
            settings: self.settings.clone()?,
        })
    }

    /// Where gateways listen, as last told; empty when never told.
    #[must_use]
    pub fn gateways(&self) -> &[String] {
        &self.gateways
    }

    /// The canonical encoding, one part per audience: everyone, the identity's, the workload's. Applying the parts
    /// to an empty node gives this node.
    #[must_use]
    pub fn parts(&self) -> [Vec<u8>; 3] {
        [
            everyone_part(&self.endpoints).encode_to_vec(),
            audience_part(self.policy.as_deref(), &self.identities, &self.owners).encode_to_vec(),
            self.settings
                .as_ref()
                .map_or_else(Vec::new, |settings| workload_part(settings, &self.gateways).encode_to_vec()),
        ]
    }

    /// The digest of the canonical encoding.
    #[must_use]
    pub fn digest(&self) -> StateDigest {
        combined_digest(&self.parts().map(|part| part_digest(&part)))
    }

    fn commit(&mut self, change: Change) {
        let Change { endpoints, owners, identities, policy, settings, gateways } = change;
        for (address, endpoint) in endpoints {
            match endpoint {
                Some(mut endpoint) => {
                    endpoint.owner = self.owners.get(&address).cloned();
                    self.endpoints.insert(address, Arc::new(endpoint));
                }
                None => drop(self.endpoints.remove(&address)),
            }
        }
        for (address, owner) in owners {
            if let Some(endpoint) = self.endpoints.get_mut(&address) {
                Arc::make_mut(endpoint).owner.clone_from(&owner);
            }
            match owner {
                Some(owner) => drop(self.owners.insert(address, owner)),
                None => drop(self.owners.remove(&address)),
            }
        }
        for (identity, labels) in identities {
            match labels {
                Some(labels) => drop(self.identities.insert(identity, Arc::new(labels))),
                None => drop(self.identities.remove(&identity)),
            }
        }
        if let Some(policy) = policy {
            self.policy = Some(Arc::new(policy));
        }
        if let Some(settings) = settings {
            self.settings = Some(settings);
        }
        if let Some(gateways) = gateways {
            self.gateways = gateways;
        }
    }
}

impl Change {
    fn convert(&mut self, set: v1::ResourceSet, errors: &mut Vec<InvalidResource>) {
        let v1::ResourceSet {
            endpoints,
            removed_endpoints,
            identities,
            removed_identities,
            policy,
            settings,
            owners,
        } = set;
        for endpoint in &endpoints {
            match endpoint_from_wire(endpoint) {
                Ok((address, endpoint)) => self.endpoints.push((address, Some(endpoint))),
                Err(error) => errors.push(error),
            }
        }
        for address in &removed_endpoints {
            match address_from_wire(address) {
                Ok(address) => self.endpoints.push((address, None)),
                Err(error) => errors.push(error),
            }
        }
        for owner in &owners {
            match address_from_wire(&owner.address) {
                Ok(address) => {
                    let name = Some(owner.owner.as_str()).filter(|name| !name.is_empty()).map(Arc::from);
                    self.owners.push((address, name));
                }
                Err(error) => errors.push(error),
            }
        }
        for labels in &identities {
            match labels_from_wire(labels) {
                Ok((identity, labels)) => self.identities.push((identity, Some(labels))),
                Err(error) => errors.push(error),
            }
        }
        for number in removed_identities {
            match crate::convert::identity_from_wire(number) {
                Ok(identity) => self.identities.push((identity, None)),
                Err(error) => errors.push(error),
            }
        }
        self.convert_own(policy.as_ref(), settings.as_ref(), errors);
    }

    fn convert_own(
        &mut self,
        policy: Option<&v1::Policy>,
        settings: Option<&v1::Settings>,
        errors: &mut Vec<InvalidResource>,
    ) {
        match policy.map(policy_from_wire).transpose() {
            Ok(policy) => self.policy = policy.or(self.policy.take()),
            Err(error) => errors.push(error),
        }
        match settings.map(settings_from_wire).transpose() {
            Ok(converted) => {
                self.settings = converted.or(self.settings.take());
                let told = settings.map(|settings| settings.gateways.clone()).filter(|told| !told.is_empty());
                self.gateways = told.or(self.gateways.take());
            }
            Err(error) => errors.push(error),
        }
    }
}

/// What everyone gets: the endpoints, without names.
#[must_use]
pub fn everyone_part(endpoints: &BTreeMap<IpAddr, Arc<Endpoint>>) -> v1::ResourceSet {
    v1::ResourceSet {
        endpoints: endpoints.iter().map(|(&address, endpoint)| endpoint_to_wire(address, endpoint)).collect(),
        ..v1::ResourceSet::default()
    }
}

/// What the workloads of one identity and namespace get: policy, labels and names.
#[must_use]
pub fn audience_part(
    policy: Option<&Policy>,
    identities: &BTreeMap<Identity, Arc<Labels>>,
    owners: &BTreeMap<IpAddr, Arc<str>>,
) -> v1::ResourceSet {
    v1::ResourceSet {
        identities: identities.iter().map(|(&identity, labels)| labels_to_wire(identity, labels)).collect(),
        policy: policy.map(policy_to_wire),
        owners: owners
            .iter()
            .map(|(&address, owner)| v1::Owner {
                address: address_to_wire(address),
                owner: owner.to_string(),
            })
            .collect(),
        ..v1::ResourceSet::default()
    }
}

/// What one workload gets: its settings.
#[must_use]
pub fn workload_part(settings: &NodeSettings, gateways: &[String]) -> v1::ResourceSet {
    v1::ResourceSet { settings: Some(settings_to_wire(settings, gateways)), ..v1::ResourceSet::default() }
}

/// The digest of one canonical part; a gateway computes it once for all receivers of the part.
#[must_use]
pub fn part_digest(part: &[u8]) -> StateDigest {
    Sha256::digest(part).into()
}

/// The digest of a node's state, from the digests of its three parts in the order of [`Node::parts`].
#[must_use]
pub fn combined_digest(parts: &[StateDigest; 3]) -> StateDigest {
    Sha256::digest(parts.as_flattened()).into()
}

fn summary(errors: &[InvalidResource]) -> String {
    const SHOWN: usize = 3;
    let mut lines: Vec<_> = errors.iter().take(SHOWN).map(ToString::to_string).collect();
    if errors.len() > SHOWN {
        lines.push(format!("and {} more", errors.len() - SHOWN));
    }
    lines.join("; ")
}

#[cfg(test)]
mod tests;
