//! Which way packets of an endpoint come and go: directly, or by a transit node where the underlays do not meet or where
//! one end is a node of the cluster that hosts do not reach.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use datapath::Address;
use datapath::abi::{Bank, TunnelEntry, TunnelKey};
use policy::pages::Pages;
use policy::state::{EndpointKind, NodeState, Role};

use crate::kernel::{Silent, TransitNodes};

/// Which tunnel endpoints this node sends to by itself, and who relays to the others: those of a family that it lacks, and
/// behind transit nodes those of the cluster's other nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Paths {
    role: Role,
    v4: bool,
    v6: bool,
    /// The tunnel endpoints of transit nodes.
    transit: BTreeSet<IpAddr>,
    /// Those of nodes that are behind these.
    nodes: BTreeSet<IpAddr>,
    /// Those that stand in IPv4, and those that stand in IPv6, with a tunnel endpoint of a family that this node has.
    relays: [Vec<Relay>; 2],
    /// The mesh addresses of this node, if it is a host.
    host: Vec<IpAddr>,
    /// The tunnel endpoints of transit nodes that do not answer: where there is another one, nothing is sent to them.
    silent: Silent,
}

/// A transit node between two others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Relay {
    /// What both ends know it by: its preferred tunnel endpoint.
    name: IpAddr,
    /// Where this end sends to.
    tunnel: IpAddr,
}

impl Paths {
    pub(super) fn of(state: &NodeState, silent: &Silent) -> Self {
        let own = state.settings.addresses.iter().filter_map(|address| state.endpoints.get(address));
        let mut paths = Self { role: state.settings.role, silent: Arc::clone(silent), ..Self::default() };
        for tunnel in own.flat_map(|endpoint| endpoint.tunnels.iter()) {
            paths.v4 |= tunnel.is_ipv4();
            paths.v6 |= tunnel.is_ipv6();
        }
        for endpoint in state.endpoints.values() {
            match endpoint.kind {
                EndpointKind::Transit => paths.transit.extend(endpoint.tunnels.iter()),
                EndpointKind::Node => paths.nodes.extend(endpoint.tunnels.iter()),
                EndpointKind::Pod { .. } | EndpointKind::Workload => {}
            }
        }
        let transit = || state.endpoints.values().filter(|endpoint| endpoint.kind == EndpointKind::Transit);
        paths.relays = [true, false].map(|v4| {
            let far = transit().filter(|node| node.tunnels.iter().any(|tunnel| tunnel.is_ipv4() == v4));
            let relays = far.flat_map(|node| {
                let near = node.tunnels.iter().filter(|tunnel| paths.has_family(tunnel));
                let name = node.tunnels.first();
                near.filter_map(move |tunnel| Some(Relay { name: *name?, tunnel: *tunnel }))
            });
            relays.collect::<BTreeSet<Relay>>().into_iter().collect()
        });
        if state.settings.role == Role::Host {
            paths.host.clone_from(&state.settings.addresses);
        }
        paths
    }

    /// Where packets for an endpoint are sent to: its first tunnel endpoint that this node sends to and that answers.
    /// Without one, to a relay; without any, to the first, which fails and is counted.
    pub(super) fn tunnel(&self, endpoint: IpAddr, kind: &EndpointKind, tunnels: &[IpAddr]) -> Option<IpAddr> {
        let mut near = tunnels.iter().filter(|tunnel| self.reaches(tunnel));
        let answering = near.clone().find(|tunnel| !self.silent.contains(tunnel));
        let direct = answering.or_else(|| near.next()).copied();
        direct.or_else(|| self.relay(endpoint, kind, tunnels)).or_else(|| tunnels.first().copied())
    }

    /// Who may send for an endpoint: its tunnel endpoints, and where this node does not send to them, every relay, since
    /// the other side chooses its own.
    pub(super) fn senders<'t>(&self, tunnels: &'t [IpAddr]) -> Cow<'t, [IpAddr]> {
        if tunnels.iter().any(|tunnel| self.reaches(tunnel)) || self.relays_to(tunnels).next().is_none() {
            return Cow::Borrowed(tunnels);
        }
        let relays = self.relays_to(tunnels).map(|relay| relay.tunnel);
        Cow::Owned(tunnels.iter().copied().chain(relays).collect())
    }

    /// Whether an endpoint is behind a node's tunnel and this node's own routes reach it besides, as a transit node's do.
    pub(super) fn is_past_mesh(&self, tunnels: &[IpAddr]) -> bool {
        self.role == Role::Transit && tunnels.iter().any(|tunnel| self.nodes.contains(tunnel))
    }

    /// Of several the one whose hash with the hosts that talk is highest: hosts share the load, and when a relay goes, only
    /// its own hosts move. Both ends find the same one, so that whatever a relay's kernel has to see (fragments, what is
    /// too large) comes back by it, and its connection tracking is not left with one direction.
    fn relay(&self, endpoint: IpAddr, kind: &EndpointKind, tunnels: &[IpAddr]) -> Option<IpAddr> {
        let own = self.host.iter().filter(|own| own.is_ipv4() == endpoint.is_ipv4());
        let far = Some(&endpoint).filter(|_| *kind == EndpointKind::Workload);
        let hosts: BTreeSet<IpAddr> = own.chain(far).copied().collect();
        let rank = |relay: &Relay| {
            let asked = hosts.iter().copied().chain([relay.name]);
            (!self.silent.contains(&relay.tunnel), stable_hash(asked), *relay)
        };
        self.relays_to(tunnels).max_by_key(rank).map(|relay| relay.tunnel)
    }

    /// The relays that stand in a family of these tunnel endpoints; some of them twice.
    fn relays_to(&self, tunnels: &[IpAddr]) -> impl Iterator<Item = Relay> {
        let [to_v4, to_v6] = &self.relays;
        let of = |v4: bool, relays| tunnels.iter().any(|tunnel| tunnel.is_ipv4() == v4).then_some(relays);
        [of(true, to_v4), of(false, to_v6)].into_iter().flatten().flatten().copied()
    }

    fn reaches(&self, tunnel: &IpAddr) -> bool {
        let by_itself = match self.role {
            Role::Host => !self.nodes.contains(tunnel),
            Role::Transit => true,
            Role::Node => self.transit.contains(tunnel),
        };
        by_itself && self.has_family(tunnel)
    }

    const fn has_family(&self, tunnel: &IpAddr) -> bool {
        if tunnel.is_ipv4() { self.v4 } else { self.v6 }
    }
}

/// The transit nodes that this node chooses among, by those of their mesh addresses that it can reach, with their tunnel endpoints; none where at
/// most one leads to each endpoint.
pub(super) fn choices(state: &NodeState, sets: &TunnelSets) -> TransitNodes {
    if state.settings.role == Role::Transit {
        return TransitNodes::default();
    }
    let has_family =
        |address: &IpAddr| state.settings.addresses.iter().any(|own| own.is_ipv4() == address.is_ipv4());
    let all = state
        .endpoints
        .iter()
        .filter(|(address, endpoint)| endpoint.kind == EndpointKind::Transit && has_family(address));
    let all: BTreeMap<IpAddr, Arc<Vec<IpAddr>>> =
        all.map(|(address, endpoint)| (*address, Arc::clone(&endpoint.tunnels))).collect();
    let nodes: BTreeSet<&Arc<Vec<IpAddr>>> = all.values().collect();
    let is_choice = |set: &BTreeSet<IpAddr>| {
        nodes.iter().filter(|node| node.iter().any(|tunnel| set.contains(tunnel))).count() > 1
    };
    if sets.ids.keys().any(is_choice) { Arc::new(all) } else { TransitNodes::default() }
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

/// FNV-1a over the addresses, and the end of `SplitMix64`, since of FNV the last bytes hardly reach the upper bits. Every
/// agent has to come to the same number, of whatever version and compiler.
fn stable_hash(addresses: impl Iterator<Item = IpAddr>) -> u64 {
    let octets = |address| match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    };
    let bytes = addresses.flat_map(octets);
    let sum = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
        (sum ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let sum = (sum ^ (sum >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let sum = (sum ^ (sum >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    sum ^ (sum >> 31)
}

/// A number of a value. `DefaultHasher::new` has fixed keys; should its algorithm ever change with the compiler, sets
/// get other numbers, once.
fn number(value: &impl Hash) -> u32 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    let [a, b, c, d, ..] = hasher.finish().to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}
