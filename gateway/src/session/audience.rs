//! Who may know what beside the endpoints. Workloads of one identity and namespace know the same: their policy, and
//! labels and names of identities which that policy mentions, of their own namespace, and of the reserved ones.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use policy::identity::Identity;
use policy::labels::Labels;
use policy::state::{DirectionPolicy, Peers, Policy, State};
use prost::Message as _;
use proto::convert::{address_to_wire, labels_to_wire, policy_to_wire};
use proto::node::{StateDigest, audience_part, part_digest};
use proto::v1::{Owner, ResourceSet};

use super::encode;

/// Workloads that are told the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Audience {
    /// Their identity.
    pub identity: Identity,
    /// Their namespace.
    pub namespace: Arc<str>,
}

/// Names of endpoints by address.
type Owners = BTreeMap<IpAddr, Arc<str>>;

/// What of a state audiences are told about, indexed by identity.
#[derive(Clone, Debug, Default)]
pub(super) struct Directory {
    members: BTreeMap<Identity, Member>,
    namespaces: BTreeMap<String, BTreeSet<Identity>>,
    reserved: BTreeSet<Identity>,
}

/// What is told of one identity.
#[derive(Clone, Debug)]
struct Member {
    labels: Arc<Labels>,
    owners: Arc<Owners>,
}

/// What an audience is told.
#[derive(Debug)]
pub(super) struct View {
    policy: Arc<Policy>,
    known: BTreeMap<Identity, Member>,
    encoded: OnceLock<Encoded>,
}

/// A part of a snapshot.
#[derive(Clone, Debug)]
pub(super) struct Encoded {
    pub(super) parts: Vec<Bytes>,
    pub(super) digest: StateDigest,
}

impl Encoded {
    /// Of the canonical form.
    pub(super) fn of(set: ResourceSet) -> Self {
        let digest = part_digest(&set.encode_to_vec());
        Self { parts: encode::parts(set), digest }
    }
}

impl Directory {
    /// The directory of a state; what is as before is shared with it.
    pub(super) fn of(state: &State, before: Option<&Self>) -> Self {
        let mut owners: BTreeMap<Identity, Owners> = BTreeMap::new();
        for (address, endpoint) in &state.endpoints {
            if let Some(owner) = &endpoint.owner {
                owners.entry(endpoint.identity).or_default().insert(*address, Arc::clone(owner));
            }
        }
        let mut directory = Self::default();
        for (&identity, labels) in &state.identities {
            let owners = owners.remove(&identity).unwrap_or_default();
            let before = before.and_then(|before| before.members.get(&identity));
            let owners = match before.filter(|before| *before.owners == owners) {
                Some(before) => Arc::clone(&before.owners),
                None => Arc::new(owners),
            };
            if let Some(namespace) = labels.namespace() {
                directory.namespaces.entry(namespace.to_owned()).or_default().insert(identity);
            }
            if identity.is_reserved() {
                directory.reserved.insert(identity);
            }
            directory.members.insert(identity, Member { labels: Arc::clone(labels), owners });
        }
        directory
    }

    /// What the audience is told; `before` itself where nothing of it changed.
    pub(super) fn view(
        &self,
        audience: &Audience,
        policy: Arc<Policy>,
        before: Option<&Arc<View>>,
    ) -> Arc<View> {
        let mut known = self.reserved.clone();
        known.insert(audience.identity);
        known.extend(self.namespaces.get(&*audience.namespace).into_iter().flatten());
        for direction in [&policy.ingress, &policy.egress] {
            mentioned(direction, &mut known);
        }
        let known: BTreeMap<_, _> = known
            .into_iter()
            .filter_map(|identity| self.members.get(&identity).map(|member| (identity, member.clone())))
            .collect();
        let same = |before: &&Arc<View>| {
            policy::state::same(&before.policy, &policy)
                && before.known.len() == known.len()
                && before.known.iter().zip(&known).all(|((a, before), (b, now))| a == b && before.is(now))
        };
        match before.filter(same) {
            Some(before) => Arc::clone(before),
            None => Arc::new(View { policy, known, encoded: OnceLock::new() }),
        }
    }
}

fn mentioned(direction: &DirectionPolicy, known: &mut BTreeSet<Identity>) {
    for rule in &direction.rules {
        if let Peers::Only { identities, blocks: _ } = &rule.peers {
            known.extend(identities.iter());
        }
    }
}

impl Member {
    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.owners, &other.owners) && policy::state::same(&self.labels, &other.labels)
    }
}

impl View {
    /// All of it; encoded once, whoever asks.
    pub(super) fn snapshot(&self) -> &Encoded {
        self.encoded.get_or_init(|| {
            let identities =
                self.known.iter().map(|(identity, member)| (*identity, Arc::clone(&member.labels)));
            Encoded::of(audience_part(Some(&self.policy), &identities.collect(), &self.owners()))
        })
    }

    /// What leads from an earlier view to this one.
    pub(super) fn since(&self, before: &Self) -> ResourceSet {
        let mut set = ResourceSet::default();
        if !policy::state::same(&self.policy, &before.policy) {
            set.policy = Some(policy_to_wire(&self.policy));
        }
        let mut owners: BTreeMap<IpAddr, Option<Arc<str>>> = BTreeMap::new();
        for (identity, old) in &before.known {
            let new = self.known.get(identity);
            if new.is_none() {
                set.removed_identities.push(identity.get());
            }
            if new.is_none_or(|new| !Arc::ptr_eq(&new.owners, &old.owners)) {
                owners.extend(old.owners.keys().map(|address| (*address, None)));
            }
        }
        // An address that moved between two known identities is in both; where it is now comes last.
        for (identity, new) in &self.known {
            let old = before.known.get(identity);
            if old.is_none_or(|old| !policy::state::same(&new.labels, &old.labels)) {
                set.identities.push(labels_to_wire(*identity, &new.labels));
            }
            if old.is_none_or(|old| !Arc::ptr_eq(&new.owners, &old.owners)) {
                owners.extend(new.owners.iter().map(|(address, owner)| (*address, Some(Arc::clone(owner)))));
            }
        }
        let before = before.owners();
        set.owners = owners
            .into_iter()
            .filter(|(address, owner)| before.get(address) != owner.as_ref())
            .map(|(address, owner)| Owner {
                address: address_to_wire(address),
                owner: owner.map_or_else(String::new, |owner| owner.to_string()),
            })
            .collect();
        set
    }

    fn owners(&self) -> Owners {
        let all = self.known.values().flat_map(|member| member.owners.iter());
        all.map(|(address, owner)| (*address, Arc::clone(owner))).collect()
    }
}
