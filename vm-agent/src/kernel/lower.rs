//! State of a node → what one bank holds. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use datapath::Address;
use datapath::abi::{
    Bank, EndpointEntry, EndpointKey, PrefixEntry, PrefixKey, Settings, endpoint_flag, settings_flag,
};
use ipnet::IpNet;
use policy::state::{Endpoint, EndpointKind, Mode, NodeSettings, NodeState, Role};

use super::RuleNames;
use super::tables::Contents;
use paths::{Paths, TunnelSets};

mod paths;
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

/// Lowers a state with those of its prefixes that this host takes and the MTU of its mesh device. Equal states give
/// equal tables, whatever was lowered before.
#[must_use]
pub(super) fn lower(state: &NodeState, prefixes: &[IpNet], mtu: u32) -> Lowered {
    let policy = policy::lower(&state.policy);
    let paths = Paths::of(state);
    let sets = TunnelSets::of(state, &paths);
    let settings = settings(state, mtu, &policy);
    let contents = Contents {
        endpoints: endpoints(state, &paths, &sets),
        tunnels: sets.entries(),
        cidrs: policy.cidrs(Bank::A).collect(),
        classes: policy.classes(Bank::A).collect(),
        policy: policy.policy(Bank::A).collect(),
        prefixes: prefixes.iter().map(|prefix| (prefix_key(*prefix), PrefixEntry::default())).collect(),
        settings: Some(settings),
    };
    Lowered { contents, rules: Arc::new(policy.names) }
}

fn endpoints(state: &NodeState, paths: &Paths, sets: &TunnelSets) -> BTreeMap<EndpointKey, EndpointEntry> {
    let entry = |(address, endpoint): (&IpAddr, &Arc<Endpoint>)| {
        let key = EndpointKey { bank: Bank::A.number(), reserved: [0; 3], address: Address::from(*address) };
        (key, endpoint_entry(*address, endpoint, &state.settings, paths, sets))
    };
    state.endpoints.iter().map(entry).collect()
}

fn endpoint_entry(
    address: IpAddr,
    endpoint: &Endpoint,
    settings: &NodeSettings,
    paths: &Paths,
    sets: &TunnelSets,
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
    let tunnel =
        paths.tunnel(address, &endpoint.tunnels).filter(|_| !local).map_or(Address::NONE, Address::from);
    EndpointEntry {
        identity: endpoint.identity.get(),
        previous: endpoint.previous.map_or(0, policy::identity::Identity::get),
        mark: endpoint.mark.get(),
        tunnel_set: if local { 0 } else { sets.id(&paths.senders(&endpoint.tunnels)) },
        tunnel,
        flags,
        reserved: 0,
    }
}

fn is_behind(kind: &EndpointKind, settings: &NodeSettings) -> bool {
    match kind {
        EndpointKind::Pod { behind } => settings.role == Role::Transit && behind.contains(&settings.workload),
        EndpointKind::Workload | EndpointKind::Transit => false,
    }
}

fn settings(state: &NodeState, mtu: u32, policy: &policy::lower::Lowered) -> Settings {
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
    if policy.names_protocols() {
        flags |= settings_flag::PROTOCOLS_NAMED;
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
        // Hosts relay nothing, and need not publish anew when it changes.
        mtu: if *role == Role::Transit { mtu } else { 0 },
        spare: [0; 20],
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
