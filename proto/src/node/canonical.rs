//! The canonical encoding: what everyone, an identity and a workload get, as both ends encode it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use policy::identity::Identity;
use policy::labels::Labels;
use policy::state::{Endpoint, NodeSettings, Policy};
use prost::Message as _;

use super::Node;
use crate::convert::{self, address_to_wire, endpoint_to_wire, policy_to_wire, settings_to_wire};
use crate::v1;

/// Resources that are encoded at once: as messages of their own they take many times the memory.
const BATCH: usize = 256;

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
        identities: identities
            .iter()
            .map(|(&identity, labels)| convert::labels_to_wire(identity, labels))
            .collect(),
        policy: policy.map(policy_to_wire),
        owners: owners.iter().map(|(address, owner)| owner_to_wire(*address, owner)).collect(),
        ..v1::ResourceSet::default()
    }
}

/// What one workload gets: its settings.
#[must_use]
pub fn workload_part(settings: &NodeSettings, gateways: &[String]) -> v1::ResourceSet {
    v1::ResourceSet { settings: Some(settings_to_wire(settings, gateways)), ..v1::ResourceSet::default() }
}

pub(super) fn owner_to_wire(address: IpAddr, owner: &str) -> v1::Owner {
    v1::Owner { address: address_to_wire(address), owner: owner.to_owned() }
}

pub(super) fn labels_to_wire((identity, labels): (&Identity, &Arc<str>)) -> v1::IdentityLabels {
    v1::IdentityLabels { identity: identity.get(), labels: labels.to_string() }
}

impl Node {
    /// The canonical encoding, one part per audience: everyone, the identity's, the workload's. Applying the parts
    /// to an empty node gives this node.
    #[must_use]
    pub fn parts(&self) -> [Vec<u8>; 3] {
        let workload = |settings| workload_part(settings, &self.gateways).encode_to_vec();
        [self.everyone(), self.audience(), self.settings.as_ref().map(workload).unwrap_or_default()]
    }

    fn everyone(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let endpoints = self.endpoints.iter().map(|(address, endpoint)| endpoint_to_wire(*address, endpoint));
        encode(&mut bytes, endpoints, |set| &mut set.endpoints);
        bytes
    }

    fn audience(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(&mut bytes, self.identities.iter().map(labels_to_wire), |set| &mut set.identities);
        let policy = self.policy.as_deref().map(policy_to_wire);
        bytes.extend(v1::ResourceSet { policy, ..v1::ResourceSet::default() }.encode_to_vec());
        let owners = self.owners().map(|(address, owner)| owner_to_wire(*address, owner));
        encode(&mut bytes, owners, |set| &mut set.owners);
        bytes
    }
}

/// Appends the resources as one set would encode them: sets one after the other are the set of all.
pub(super) fn encode<T>(
    bytes: &mut Vec<u8>,
    mut resources: impl Iterator<Item = T>,
    list: impl Fn(&mut v1::ResourceSet) -> &mut Vec<T>,
) {
    loop {
        let mut set = v1::ResourceSet::default();
        list(&mut set).extend(resources.by_ref().take(BATCH));
        let encoded = set.encode_to_vec();
        if encoded.is_empty() {
            return;
        }
        bytes.extend(encoded);
    }
}
