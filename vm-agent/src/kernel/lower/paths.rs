//! Which way packets of an endpoint come and go: directly where the underlays meet, else by a transit node that stands in
//! both.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use datapath::Address;
use datapath::abi::{Bank, TunnelEntry, TunnelKey};
use policy::pages::Pages;
use policy::state::{EndpointKind, NodeState};

/// The families in which this node has tunnel endpoints, and who relays to the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Paths {
    v4: bool,
    v6: bool,
    /// The tunnel endpoints, of this node's families, of transit nodes that have both; sorted.
    relays: Vec<IpAddr>,
}

impl Paths {
    pub(super) fn of(state: &NodeState) -> Self {
        let own = state.settings.addresses.iter().filter_map(|address| state.endpoints.get(address));
        let (mut v4, mut v6) = (false, false);
        for tunnel in own.flat_map(|endpoint| endpoint.tunnels.iter()) {
            v4 |= tunnel.is_ipv4();
            v6 |= tunnel.is_ipv6();
        }
        let mut paths = Self { v4, v6, relays: Vec::new() };
        if v4 == v6 {
            return paths;
        }
        let relays: BTreeSet<IpAddr> = state
            .endpoints
            .values()
            .filter(|endpoint| endpoint.kind == EndpointKind::Transit)
            .filter(|endpoint| endpoint.tunnels.iter().any(|tunnel| !paths.reaches(tunnel)))
            .flat_map(|endpoint| endpoint.tunnels.iter().copied())
            .filter(|tunnel| paths.reaches(tunnel))
            .collect();
        paths.relays = relays.into_iter().collect();
        paths
    }

    /// Where packets for an endpoint are sent to: its first tunnel endpoint of a family that this node has. Without
    /// one, to a relay, which differs from endpoint to endpoint so that they share the load; without any, to the
    /// first, which fails and is counted.
    pub(super) fn tunnel(&self, endpoint: IpAddr, tunnels: &[IpAddr]) -> Option<IpAddr> {
        let direct = tunnels.iter().find(|tunnel| self.reaches(tunnel)).copied();
        direct.or_else(|| self.relay(endpoint)).or_else(|| tunnels.first().copied())
    }

    /// Who may send for an endpoint: its tunnel endpoints, and where they cannot be met, every relay, since the other
    /// side chooses its own.
    pub(super) fn senders<'t>(&self, tunnels: &'t [IpAddr]) -> Cow<'t, [IpAddr]> {
        if self.relays.is_empty() || tunnels.is_empty() || tunnels.iter().any(|tunnel| self.reaches(tunnel)) {
            return Cow::Borrowed(tunnels);
        }
        Cow::Owned(tunnels.iter().chain(&self.relays).copied().collect())
    }

    /// Of several the one whose hash with the endpoint is highest: when one goes, only its own endpoints move.
    fn relay(&self, endpoint: IpAddr) -> Option<IpAddr> {
        self.relays.iter().max_by_key(|relay| number(&(endpoint, **relay))).copied()
    }

    fn reaches(&self, tunnel: &IpAddr) -> bool {
        if tunnel.is_ipv4() { self.v4 } else { self.v6 }
    }
}

/// The sets of several tunnel endpoints, each with a number that depends on its members only: a state that comes
/// back gets the same numbers, so that nothing is rewritten.
pub(super) struct TunnelSets {
    ids: BTreeMap<BTreeSet<IpAddr>, u32>,
}

impl TunnelSets {
    pub(super) fn of(state: &NodeState, paths: &Paths) -> Self {
        // Neighbours mostly are behind the same node.
        let mut last = None;
        let mut is_new =
            |tunnels: &&'_ Arc<Vec<IpAddr>>| last.replace(Arc::as_ptr(tunnels)) != Some(Arc::as_ptr(tunnels));
        let tunnels = state.endpoints.values().map(|endpoint| &endpoint.tunnels).filter(&mut is_new);
        let senders = tunnels.map(|tunnels| paths.senders(tunnels));
        let distinct: BTreeSet<Cow<'_, [IpAddr]>> = senders.filter(|senders| senders.len() > 1).collect();
        let sets: BTreeSet<BTreeSet<IpAddr>> =
            distinct.into_iter().map(|senders| senders.iter().copied().collect()).collect();
        let mut taken = BTreeSet::from([0]);
        let mut ids = BTreeMap::new();
        for set in sets {
            let mut id = number(&set);
            // Sets come in their order, so a collision is always resolved the same way.
            while !taken.insert(id) {
                id = id.wrapping_add(1);
            }
            ids.insert(set, id);
        }
        Self { ids }
    }

    /// Whether a set that both have has the same number in both.
    pub(super) fn agree_with(&self, other: &Self) -> bool {
        self.ids.iter().all(|(set, id)| other.ids.get(set).is_none_or(|other| other == id))
    }

    /// The number of a set; 0 where the single tunnel endpoint stands in the entry itself.
    pub(super) fn id(&self, senders: &[IpAddr]) -> u32 {
        if senders.len() < 2 {
            return 0;
        }
        self.ids.get(&senders.iter().copied().collect::<BTreeSet<_>>()).copied().unwrap_or(0)
    }

    pub(super) fn entries(&self) -> Pages<TunnelKey, TunnelEntry> {
        let key = |id: u32, address: IpAddr| TunnelKey {
            bank: Bank::A.number(),
            reserved: [0; 3],
            set: id,
            address: Address::from(address),
        };
        let members = |(set, id): (&BTreeSet<IpAddr>, &u32)| {
            let id = *id;
            set.iter().map(move |address| (key(id, *address), TunnelEntry::default())).collect::<Vec<_>>()
        };
        self.ids.iter().flat_map(members).collect()
    }
}

/// A number of a value. `DefaultHasher::new` has fixed keys; should its algorithm ever change with the compiler, sets
/// get other numbers, and endpoints other relays, once.
fn number(value: &impl Hash) -> u32 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    let [a, b, c, d, ..] = hasher.finish().to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}
