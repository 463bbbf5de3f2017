//! State of a node → what one bank holds. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use datapath::Address;
use datapath::abi::{
    Bank, CidrEntry, CidrKey, ClassEntry, ClassKey, EndpointEntry, EndpointKey, PolicyEntry, PolicyKey,
    PrefixEntry, PrefixKey, Settings, endpoint_flag, settings_flag,
};
use ipnet::IpNet;
use policy::identity::Identity;
use policy::lower::LoweredDefault;
use policy::pages::Pages;
use policy::state::{
    Endpoint, EndpointKind, Mode, NodeSettings, NodeState, Peers, Policy, PortRange, Ports, Role, Rule,
    RuleAction, same,
};

use super::RuleNames;
use super::nic::NicImage;
use super::tables::Contents;
use paths::{Paths, TunnelSets};

use super::{Silent, TransitNodes};

mod nic;
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
    /// The transit nodes that this node chooses among.
    pub(super) choices: TransitNodes,
}

/// What a node knows besides its state.
#[derive(Clone, Default)]
pub(super) struct Around<'a> {
    /// What governs the NICs; `None` = nothing does.
    pub(super) nic: Option<&'a NicImage>,
    /// Which transit nodes do not answer.
    pub(super) silent: Silent,
}

/// Lowers one state after the other: what the last one has as well is not lowered again, and its pages are shared.
#[derive(Default)]
pub(super) struct Lowering {
    policy: Option<PolicyTables>,
    endpoints: Option<Endpoints>,
    /// Of the NICs.
    nic: Option<PolicyTables>,
}

/// A policy and what it became.
struct PolicyTables {
    of: Arc<Policy>,
    /// Whether the watch over transit nodes is allowed besides.
    watching: bool,
    cidrs: Pages<CidrKey, CidrEntry>,
    classes: Pages<ClassKey, ClassEntry>,
    entries: Pages<PolicyKey, PolicyEntry>,
    names: RuleNames,
    /// Those settings that follow from it.
    flags: u32,
    ingress: LoweredDefault,
    egress: LoweredDefault,
}

/// Endpoints and what they became.
struct Endpoints {
    of: Pages<IpAddr, Endpoint>,
    context: Context,
    entries: Pages<EndpointKey, EndpointEntry>,
}

/// All that an endpoint's entry depends on beside the endpoint.
struct Context {
    settings: NodeSettings,
    paths: Paths,
    sets: TunnelSets,
}

/// Lowers a state for itself.
#[must_use]
pub(super) fn lower(state: &NodeState, prefixes: &[IpNet], mtu: u32) -> Lowered {
    Lowering::default().lower(state, prefixes, mtu, &Around::default())
}

impl Lowering {
    /// Lowers a state with those of its prefixes that this host takes and the MTU of its mesh device. Equal states give
    /// equal tables, whatever was lowered before.
    #[must_use]
    pub(super) fn lower(
        &mut self,
        state: &NodeState,
        prefixes: &[IpNet],
        mtu: u32,
        around: &Around<'_>,
    ) -> Lowered {
        let endpoints = Endpoints::after(self.endpoints.take(), state, &around.silent);
        let choices = paths::choices(state, &endpoints.context.sets);
        let watching = is_watching(state, &choices);
        let held =
            self.policy.take().filter(|held| same(&held.of, &state.policy) && held.watching == watching);
        let policy = held.unwrap_or_else(|| PolicyTables::of(&state.policy, watching));
        let mut contents = Contents {
            endpoints: endpoints.entries.clone(),
            tunnels: endpoints.context.sets.entries(),
            cidrs: policy.cidrs.clone(),
            classes: policy.classes.clone(),
            policy: policy.entries.clone(),
            prefixes: prefixes.iter().map(|prefix| (prefix_key(*prefix), PrefixEntry::default())).collect(),
            settings: Some(settings(&state.settings, mtu, &policy)),
        };
        let mut rules = Arc::clone(&policy.names);
        let held = self.nic.take();
        let nic = around.nic.map(|image| {
            let held = held.filter(|held| same(&held.of, &image.policy));
            let tables = held.unwrap_or_else(|| PolicyTables::of(&image.policy, false));
            nic::add(&mut contents, state, image, &tables);
            let mut names = std::collections::BTreeMap::clone(&tables.names);
            names.extend(rules.iter().map(|(id, name)| (*id, Arc::clone(name))));
            rules = Arc::new(names);
            tables
        });
        *self = Self { policy: Some(policy), endpoints: Some(endpoints), nic };
        Lowered { contents, rules, choices }
    }
}

impl PolicyTables {
    fn of(policy: &Arc<Policy>, watching: bool) -> Self {
        let lowered = if watching { policy::lower(&with_watch(policy)) } else { policy::lower(policy) };
        let flags = lowered.flags();
        Self {
            of: Arc::clone(policy),
            watching,
            cidrs: lowered.cidrs(Bank::A).collect(),
            classes: lowered.classes(Bank::A).collect(),
            entries: lowered.policy(Bank::A).collect(),
            names: Arc::new(lowered.names),
            flags,
            ingress: lowered.ingress,
            egress: lowered.egress,
        }
    }
}

impl Endpoints {
    fn after(last: Option<Self>, state: &NodeState, silent: &Silent) -> Self {
        let paths = Paths::of(state, silent);
        let sets = TunnelSets::of(state, &paths);
        let context = Context { settings: state.settings.clone(), paths, sets };
        let of = state.endpoints.clone();
        let entries = match last.filter(|last| last.context.agrees_with(&context)) {
            Some(Self { of: before, mut entries, .. }) => {
                let changed = before.differences(&of);
                let entry = |address: &IpAddr, endpoint: Option<&Endpoint>| {
                    (endpoint_key(*address), endpoint.map(|endpoint| context.entry(*address, endpoint)))
                };
                entries.change(changed.map(|(address, _, after)| entry(address, after)).collect());
                entries
            }
            None => of
                .iter()
                .map(|(address, one)| (endpoint_key(*address), context.entry(*address, one)))
                .collect(),
        };
        Self { of, context, entries }
    }
}

impl Context {
    /// Whether an endpoint that both have became the same entry in both.
    fn agrees_with(&self, other: &Self) -> bool {
        let of =
            |settings: &NodeSettings| (settings.role, settings.addresses.clone(), settings.workload.clone());
        of(&self.settings) == of(&other.settings)
            && self.paths == other.paths
            && self.sets.agree_with(&other.sets)
    }

    fn entry(&self, address: IpAddr, endpoint: &Endpoint) -> EndpointEntry {
        let Self { settings, paths, sets } = self;
        let own = settings.addresses.contains(&address);
        let behind = is_behind(&endpoint.kind, settings);
        let mut flags = 0;
        if own {
            flags |= endpoint_flag::OWN;
        }
        if behind {
            flags |= endpoint_flag::BEHIND;
        }
        if matches!(endpoint.kind, EndpointKind::Transit | EndpointKind::Node) {
            flags |= endpoint_flag::ROUTER;
        }
        if paths.is_past_mesh(&endpoint.tunnels) {
            flags |= endpoint_flag::PAST_MESH;
        }
        // What is here is never sent through a tunnel, and nothing from a tunnel may claim to come from here.
        let local = own || behind;
        let tunnel = paths
            .tunnel(address, &endpoint.kind, &endpoint.tunnels)
            .filter(|_| !local)
            .map_or(Address::NONE, Address::from);
        EndpointEntry {
            identity: endpoint.identity.get(),
            previous: endpoint.previous.map_or(0, Identity::get),
            mark: endpoint.mark.get(),
            tunnel_set: if local { 0 } else { sets.id(&paths.senders(&endpoint.tunnels)) },
            tunnel,
            flags,
            reserved: 0,
        }
    }
}

/// Whether a host has to know which of these transit nodes are there; policy is enforced on hosts only.
fn is_watching(state: &NodeState, choices: &TransitNodes) -> bool {
    state.settings.role == Role::Host && !choices.is_empty()
}

/// The state as it is lowered.
pub(super) fn watched(state: &Arc<NodeState>, choices: &TransitNodes) -> Arc<NodeState> {
    if !is_watching(state, choices) {
        return Arc::clone(state);
    }
    Arc::new(NodeState { policy: Arc::new(with_watch(&state.policy)), ..NodeState::clone(state) })
}

/// The policy of a host that chooses among transit nodes: it may ask each whether it is there.
fn with_watch(policy: &Policy) -> Policy {
    const ECHO_REQUESTS: [(u8, u16); 2] = [(1, 8), (58, 128)];
    let ports = ECHO_REQUESTS.map(|(protocol, kind)| PortRange { protocol, first: kind, last: kind });
    let rule = Rule {
        origin: "failsafe/transit".into(),
        peers: Peers::Only {
            identities: Arc::new(BTreeSet::from([Identity::REMOTE_NODE])),
            blocks: Vec::new(),
        },
        ports: Ports::Only(ports.to_vec()),
        action: RuleAction::Allow,
        precedence: policy::rules::precedence::FAILSAFE,
    };
    let mut policy = policy.clone();
    policy.egress.rules.push(rule);
    policy
}

fn endpoint_key(address: IpAddr) -> EndpointKey {
    EndpointKey { bank: Bank::A.number(), reserved: [0; 3], address: Address::from(address) }
}

fn is_behind(kind: &EndpointKind, settings: &NodeSettings) -> bool {
    match kind {
        EndpointKind::Pod { behind } => {
            settings.role.is_cluster_node() && behind.contains(&settings.workload)
        }
        EndpointKind::Workload | EndpointKind::Transit | EndpointKind::Node => false,
    }
}

fn settings(settings: &NodeSettings, mtu: u32, policy: &PolicyTables) -> Settings {
    let NodeSettings { identity, mark, addresses, role, mode, .. } = settings;
    let mut flags = settings_flag::EVENTS_ALLOWED | policy.flags;
    if *mode == Mode::Audit {
        flags |= settings_flag::AUDIT;
    }
    if role.is_cluster_node() {
        flags |= settings_flag::TRANSIT;
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
        ingress_rule: policy.ingress.rule,
        egress_rule: policy.egress.rule,
        address_v4: own(true),
        address_v6: own(false),
        // Others relay nothing, and need not publish anew when it changes.
        mtu: if *role == Role::Transit { mtu } else { 0 },
        ..Settings::default()
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
