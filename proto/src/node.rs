//! A node's slice of the state as it accumulates from updates: whole or not at all, with a canonical encoding for
//! digests and snapshots that both ends compute alike.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use policy::identity::Identity;
use policy::pages::Pages;
use policy::state::{Endpoint, NodeSettings, NodeState, Policy};
use prost::Message as _;
use sha2::{Digest as _, Sha256};

use crate::convert::{
    InvalidResource, address_from_wire, endpoint_from_wire, labels_from_wire, policy_from_wire,
    settings_from_wire,
};
use crate::pieces::pieces;
use crate::pool::Pool;
use crate::v1;

mod canonical;
mod changes;

pub use canonical::{audience_part, everyone_part, workload_part};

/// What was received so far. Copies share what did not change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// With their owners.
    endpoints: Pages<IpAddr, Endpoint>,
    /// The owners of addresses that no endpoint has, or not yet.
    homeless: BTreeMap<IpAddr, Arc<str>>,
    /// The labels, serialised.
    identities: Pages<Identity, Arc<str>>,
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

/// One update, converted and not yet applied. Of what it says about one resource the last counts.
#[derive(Default)]
struct Change {
    endpoints: Vec<(IpAddr, Option<Endpoint>)>,
    /// `None`: no name any more.
    owners: BTreeMap<IpAddr, Option<Arc<str>>>,
    identities: Vec<(Identity, Option<Arc<str>>)>,
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
        self.apply_shared(parts, &mut Pool::default())
    }

    /// The same; endpoints take the parts that are in the pool from there.
    ///
    /// # Errors
    /// Those of [`Self::apply`].
    pub fn apply_shared<B: AsRef<[u8]>>(
        &mut self,
        parts: &[B],
        pool: &mut Pool,
    ) -> Result<(), InvalidUpdate> {
        let mut change = Change::default();
        let mut errors = Vec::new();
        for piece in parts.iter().flat_map(|part| pieces(part.as_ref())) {
            match v1::ResourceSet::decode(piece) {
                Ok(set) => change.convert(set, pool, &mut errors),
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

    /// The digest of the canonical encoding.
    #[must_use]
    pub fn digest(&self) -> StateDigest {
        combined_digest(&self.parts().map(|part| part_digest(&part)))
    }

    /// Every known owner, by address.
    fn owners(&self) -> impl Iterator<Item = (&IpAddr, &Arc<str>)> {
        let mut owned = self
            .endpoints
            .iter()
            .filter_map(|(address, endpoint)| Some((address, endpoint.owner.as_ref()?)))
            .peekable();
        let mut homeless = self.homeless.iter().peekable();
        std::iter::from_fn(move || match (owned.peek(), homeless.peek()) {
            (Some((owned, _)), Some((address, _))) if address < owned => homeless.next(),
            (Some(_), _) => owned.next(),
            (None, _) => homeless.next(),
        })
    }

    fn owner(&self, address: &IpAddr) -> Option<Arc<str>> {
        let endpoint = self.endpoints.get(address);
        endpoint.map_or_else(|| self.homeless.get(address), |endpoint| endpoint.owner.as_ref()).cloned()
    }

    fn commit(&mut self, change: Change) {
        let Change { mut endpoints, owners, identities, policy, settings, gateways } = change;
        self.commit_owners(&mut endpoints, owners);
        self.endpoints.change(endpoints);
        self.identities.change(identities);
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

    /// Gives the endpoints that change their owners, and the owners that change their endpoints.
    fn commit_owners(
        &mut self,
        endpoints: &mut Vec<(IpAddr, Option<Endpoint>)>,
        mut owners: BTreeMap<IpAddr, Option<Arc<str>>>,
    ) {
        // The last change of an address is seen first.
        let mut seen = std::collections::BTreeSet::new();
        let mut homes = Vec::new();
        for (address, endpoint) in endpoints.iter_mut().rev() {
            if !seen.insert(*address) {
                continue;
            }
            let owner = owners.remove(address).unwrap_or_else(|| self.owner(address));
            match endpoint {
                Some(endpoint) => endpoint.owner = owner,
                None => homes.extend(owner.map(|owner| (*address, owner))),
            }
        }
        for address in &seen {
            self.homeless.remove(address);
        }
        self.homeless.extend(homes);
        for (address, owner) in owners {
            match (self.endpoints.get(&address), owner) {
                (Some(endpoint), owner) => {
                    endpoints.push((address, Some(Endpoint { owner, ..endpoint.clone() })));
                }
                (None, Some(owner)) => drop(self.homeless.insert(address, owner)),
                (None, None) => drop(self.homeless.remove(&address)),
            }
        }
    }
}

impl Change {
    fn convert(&mut self, set: v1::ResourceSet, pool: &mut Pool, errors: &mut Vec<InvalidResource>) {
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
                Ok((address, mut endpoint)) => {
                    pool.share(&mut endpoint);
                    self.endpoints.push((address, Some(endpoint)));
                }
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
                    self.owners.insert(address, name);
                }
                Err(error) => errors.push(error),
            }
        }
        for labels in &identities {
            match labels_from_wire(labels) {
                Ok((identity, labels)) => {
                    self.identities.push((identity, Some(Arc::from(labels.to_string()))));
                }
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
