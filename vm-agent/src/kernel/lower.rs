//! State of a node → what one bank holds. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use datapath::Address;
use datapath::abi::{
    Bank, EndpointEntry, EndpointKey, PrefixEntry, PrefixKey, Settings, TunnelEntry, TunnelKey,
    endpoint_flag, settings_flag,
};
use ipnet::IpNet;
use policy::state::{Endpoint, EndpointKind, Mode, NodeSettings, NodeState, Role};

use super::RuleNames;
use super::tables::Contents;

#[cfg(test)]
mod tests;

/// What a state becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lowered {
    /// The tables.
    pub(super) contents: Contents,
    /// The origins of the rules, by the ids that stand in the tables.
    pub(super) rules: RuleNames,
}

/// Lowers a state with those of its prefixes that this host takes. Equal states give equal tables, whatever was lowered
/// before.
#[must_use]
pub(super) fn lower(state: &NodeState, prefixes: &[IpNet]) -> Lowered {
    let policy = policy::lower(&state.policy);
    let sets = TunnelSets::of(state);
    let settings = settings(state, &policy);
    let contents = Contents {
        endpoints: endpoints(state, &sets),
        tunnels: sets.entries(),
        cidrs: policy.cidrs(Bank::A).collect(),
        classes: policy.classes(Bank::A).collect(),
        policy: policy.policy(Bank::A).collect(),
        prefixes: prefixes.iter().map(|prefix| (prefix_key(*prefix), PrefixEntry::default())).collect(),
        settings: Some(settings),
    };
    Lowered { contents, rules: Arc::new(policy.names) }
}

fn endpoints(state: &NodeState, sets: &TunnelSets) -> BTreeMap<EndpointKey, EndpointEntry> {
    let reach = Reach::of(state);
    let entry = |(address, endpoint): (&IpAddr, &Arc<Endpoint>)| {
        let key = EndpointKey { bank: Bank::A.number(), reserved: [0; 3], address: Address::from(*address) };
        (key, endpoint_entry(*address, endpoint, &state.settings, sets, reach))
    };
    state.endpoints.iter().map(entry).collect()
}

fn endpoint_entry(
    address: IpAddr,
    endpoint: &Endpoint,
    settings: &NodeSettings,
    sets: &TunnelSets,
    reach: Reach,
) -> EndpointEntry {
    let own = settings.addresses.contains(&address);
    let behind = is_behind(&endpoint.kind, settings);
    let mut flags = 0;
    if own {
        flags |= endpoint_flag::OWN;
    }
    if behind {
        flags |= endpoint_flag::BEHIND;
    }
    if endpoint.kind == EndpointKind::Transit {
        flags |= endpoint_flag::ROUTER;
    }
    // What is here is never sent through a tunnel, and nothing from a tunnel may claim to come from here.
    let local = own || behind;
    let tunnel = reach.choose(&endpoint.tunnels).filter(|_| !local).map_or(Address::NONE, Address::from);
    EndpointEntry {
        identity: endpoint.identity.get(),
        previous: endpoint.previous.map_or(0, policy::identity::Identity::get),
        mark: endpoint.mark.get(),
        tunnel_set: if local { 0 } else { sets.id(&endpoint.tunnels) },
        tunnel,
        flags,
        reserved: 0,
    }
}

/// The address families of this node's own tunnel endpoints: what it can send to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Reach {
    v4: bool,
    v6: bool,
}

impl Reach {
    fn of(state: &NodeState) -> Self {
        let own = state.settings.addresses.iter().filter_map(|address| state.endpoints.get(address));
        own.flat_map(|endpoint| endpoint.tunnels.iter()).fold(Self::default(), |reach, tunnel| Self {
            v4: reach.v4 || tunnel.is_ipv4(),
            v6: reach.v6 || tunnel.is_ipv6(),
        })
    }

    /// The first tunnel endpoint of a family that this node has; the first of all if it has none of them.
    fn choose(self, tunnels: &[IpAddr]) -> Option<IpAddr> {
        let reached = |tunnel: &&IpAddr| if tunnel.is_ipv4() { self.v4 } else { self.v6 };
        tunnels.iter().find(reached).or_else(|| tunnels.first()).copied()
    }
}

fn is_behind(kind: &EndpointKind, settings: &NodeSettings) -> bool {
    match kind {
        EndpointKind::Pod { behind } => settings.role == Role::Transit && behind.contains(&settings.workload),
        EndpointKind::Workload | EndpointKind::Transit => false,
    }
}

fn settings(state: &NodeState, policy: &policy::lower::Lowered) -> Settings {
    let NodeSettings { identity, mark, addresses, role, mode, .. } = &state.settings;
    let mut flags = settings_flag::EVENTS_ALLOWED;
    if *mode == Mode::Audit {
        flags |= settings_flag::AUDIT;
    }
    if *role == Role::Transit {
        flags |= settings_flag::TRANSIT;
    }
    if policy.has_cidrs() {
        flags |= settings_flag::CIDR_RULES;
    }
    let own = |v4: bool| {
        let address = addresses.iter().find(|address| address.is_ipv4() == v4);
        address.map_or(Address::NONE, |address| Address::from(*address))
    };
    Settings {
        identity: identity.get(),
        mark: mark.get(),
        flags,
        ingress_default: policy.ingress.action.number(),
        egress_default: policy.egress.action.number(),
        reserved: [0; 2],
        ingress_rule: policy.ingress.rule,
        egress_rule: policy.egress.rule,
        address_v4: own(true),
        address_v6: own(false),
        spare: [0; 24],
    }
}

fn prefix_key(prefix: IpNet) -> PrefixKey {
    let mapped = if prefix.addr().is_ipv4() { 96 } else { 0 };
    PrefixKey {
        prefix_len: datapath::abi::CidrKey::BASE_BITS + mapped + u32::from(prefix.prefix_len()),
        bank: Bank::A.number(),
        reserved: [0; 3],
        address: Address::from(prefix.network()),
    }
}

/// The sets of several tunnel endpoints, each with a number that depends on its members only: a state that comes
/// back gets the same numbers, so that nothing is rewritten.
struct TunnelSets {
    ids: BTreeMap<BTreeSet<IpAddr>, u32>,
}

impl TunnelSets {
    fn of(state: &NodeState) -> Self {
        let several = |endpoint: &&Arc<Endpoint>| endpoint.tunnels.len() > 1;
        let distinct: BTreeSet<&Vec<IpAddr>> =
            state.endpoints.values().filter(several).map(|endpoint| &*endpoint.tunnels).collect();
        let sets: BTreeSet<BTreeSet<IpAddr>> =
            distinct.into_iter().map(|tunnels| tunnels.iter().copied().collect()).collect();
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

    /// The number of a set; 0 where the single tunnel endpoint stands in the entry itself.
    fn id(&self, tunnels: &[IpAddr]) -> u32 {
        if tunnels.len() < 2 {
            return 0;
        }
        self.ids.get(&tunnels.iter().copied().collect::<BTreeSet<_>>()).copied().unwrap_or(0)
    }

    fn entries(&self) -> BTreeMap<TunnelKey, TunnelEntry> {
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

/// A number of the members. `DefaultHasher::new` has fixed keys; should its algorithm ever change with the compiler,
/// sets get other numbers once.
fn number(set: &BTreeSet<IpAddr>) -> u32 {
    let mut hasher = DefaultHasher::new();
    set.hash(&mut hasher);
    let [a, b, c, d, ..] = hasher.finish().to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}
