//! What leads from one state of a node to a later one, as an update would say it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use prost::Message as _;

use super::Node;
use super::canonical::{encode, labels_to_wire, owner_to_wire};
use crate::convert::{address_to_wire, endpoint_to_wire, policy_to_wire, settings_to_wire};
use crate::v1;

impl Node {
    /// One part that leads from an earlier state to this one; `None` where only all parts do, because an update
    /// cannot take back policy, settings or gateways. Parts of successive changes may be applied at once, behind those
    /// that made the first state.
    #[must_use]
    pub fn changes_since(&self, before: &Self) -> Option<Vec<u8>> {
        let is_lost = (self.policy.is_none() && before.policy.is_some())
            || (self.settings.is_none() && before.settings.is_some())
            || (self.gateways.is_empty() && !before.gateways.is_empty())
            || (self.settings.is_none() && self.gateways != before.gateways);
        if is_lost {
            return None;
        }
        let mut bytes = Vec::new();
        let owners = self.endpoint_changes(before, &mut bytes);
        let owners = owners
            .iter()
            .map(|(address, owner)| owner_to_wire(*address, owner.as_deref().unwrap_or_default()));
        encode(&mut bytes, owners, |set| &mut set.owners);
        self.identity_changes(before, &mut bytes);
        bytes.extend(self.own_changes(before).encode_to_vec());
        Some(bytes)
    }

    /// Encodes the endpoints that differ; returns the owners that do.
    fn endpoint_changes(&self, before: &Self, bytes: &mut Vec<u8>) -> BTreeMap<IpAddr, Option<Arc<str>>> {
        let (mut changed, mut removed, mut named) = (Vec::new(), Vec::new(), BTreeSet::new());
        for (address, _, endpoint) in before.endpoints.differences(&self.endpoints) {
            named.insert(*address);
            match endpoint {
                Some(endpoint) => changed.push((*address, endpoint)),
                None => removed.push(address_to_wire(*address)),
            }
        }
        let changed = changed.into_iter().map(|(address, endpoint)| endpoint_to_wire(address, endpoint));
        encode(bytes, changed, |set| &mut set.endpoints);
        encode(bytes, removed.into_iter(), |set| &mut set.removed_endpoints);
        if self.homeless != before.homeless {
            named.extend(self.homeless.keys().chain(before.homeless.keys()));
        }
        let now = named.into_iter().map(|address| (address, self.owner(&address)));
        now.filter(|(address, owner)| *owner != before.owner(address)).collect()
    }

    fn identity_changes(&self, before: &Self, bytes: &mut Vec<u8>) {
        let (mut changed, mut removed) = (Vec::new(), Vec::new());
        for (identity, _, labels) in before.identities.differences(&self.identities) {
            match labels {
                Some(labels) => changed.push((identity, labels)),
                None => removed.push(identity.get()),
            }
        }
        encode(bytes, changed.into_iter().map(labels_to_wire), |set| &mut set.identities);
        encode(bytes, removed.into_iter(), |set| &mut set.removed_identities);
    }

    /// Policy and settings, where they differ.
    fn own_changes(&self, before: &Self) -> v1::ResourceSet {
        let policy = self.policy.as_ref().filter(|policy| before.policy.as_ref() != Some(*policy));
        let settings = self.settings.as_ref().filter(|settings| {
            before.settings.as_ref() != Some(*settings) || before.gateways != self.gateways
        });
        v1::ResourceSet {
            policy: policy.map(|policy| policy_to_wire(policy)),
            settings: settings.map(|settings| settings_to_wire(settings, &self.gateways)),
            ..v1::ResourceSet::default()
        }
    }
}
