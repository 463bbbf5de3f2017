//! Who may know what beside the endpoints. Workloads of one identity and namespace know the same: their policy, and
//! labels and names of identities which that policy mentions, of their own namespace, and of the reserved ones.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use policy::identity::Identity;
use policy::labels::Labels;
use policy::state::{DirectionPolicy, Endpoint, Peers, Policy, State, differences};
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
    /// The directory of a state; what is as in the state before is shared with its directory.
    pub(super) fn of(state: &State, before: Option<(&Self, &State)>) -> Self {
        let nothing = State::default();
        let (known, old) = before.unzip();
        let mut moves = owners_moved(old.unwrap_or(&nothing), state);
        let mut directory = Self::default();
        for (&identity, labels) in &state.identities {
            if let Some(namespace) = labels.namespace() {
                directory.namespaces.entry(namespace.to_owned()).or_default().insert(identity);
            }
            if identity.is_reserved() {
                directory.reserved.insert(identity);
            }
            let owners = known.and_then(|known| known.members.get(&identity)).map(|member| &member.owners);
            let owners = match (owners, moves.remove(&identity)) {
                (Some(owners), None) => Arc::clone(owners),
                (owners, edits) => Arc::new(after(owners, edits.unwrap_or_default())),
            };
            directory.members.insert(identity, Member { labels: Arc::clone(labels), owners });
        }
        directory
    }

    /// The identities of which something else is told than before; `None` where there are others, or some have other
    /// labels.
    pub(super) fn renamed(&self, before: &Self) -> Option<BTreeSet<Identity>> {
        let mut renamed = BTreeSet::new();
        for (identity, old, new) in differences(&before.members, &self.members, Member::is) {
            old.zip(new).filter(|(old, new)| policy::state::same(&old.labels, &new.labels))?;
            renamed.insert(*identity);
        }
        Some(renamed)
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

/// By identity, the addresses that got or lost an owner, with the owner they have.
fn owners_moved(before: &State, after: &State) -> BTreeMap<Identity, BTreeMap<IpAddr, Option<Arc<str>>>> {
    let mut changed: BTreeMap<Identity, BTreeMap<IpAddr, Option<Arc<str>>>> = BTreeMap::new();
    for (address, old, new) in differences(&before.endpoints, &after.endpoints, Arc::ptr_eq) {
        let told = |endpoint: &Arc<Endpoint>| Some((endpoint.identity, endpoint.owner.clone()?));
        let (old, new) = (old.and_then(told), new.and_then(told));
        if old == new {
            continue;
        }
        if let Some((identity, _)) = old {
            changed.entry(identity).or_default().insert(*address, None);
        }
        if let Some((identity, owner)) = new {
            changed.entry(identity).or_default().insert(*address, Some(owner));
        }
    }
    changed
}

/// The owners after some of them changed.
fn after(owners: Option<&Arc<Owners>>, changes: BTreeMap<IpAddr, Option<Arc<str>>>) -> Owners {
    let mut owners = owners.map(|owners| Owners::clone(owners)).unwrap_or_default();
    for (address, owner) in changes {
        match owner {
            Some(owner) => drop(owners.insert(address, owner)),
            None => drop(owners.remove(&address)),
        }
    }
    owners
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
    /// Whether nothing of it changed: the policy is the same, and of the identities that it knows none is among those
    /// that were renamed.
    pub(super) fn stays(&self, policy: &Arc<Policy>, renamed: &BTreeSet<Identity>) -> bool {
        Arc::ptr_eq(&self.policy, policy) && !renamed.iter().any(|identity| self.known.contains_key(identity))
    }

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
