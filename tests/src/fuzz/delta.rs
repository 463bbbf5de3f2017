//! Rows of updates, applied by a node and by a second reading that only keeps maps.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use datapath::abi::PolicyKey;
use policy::identity::Identity;
use policy::labels::Labels;
use policy::pages::Pages;
use policy::state::{Endpoint, EndpointKind, Mode, NodeSettings, Policy, Ports, Probe, ProbeKind, Role};
use prost::Message as _;
use proto::convert::{address_to_wire, endpoint_to_wire, labels_to_wire, policy_to_wire, settings_to_wire};
use proto::node::{Node, audience_part, everyone_part, workload_part};
use proto::v1;

use super::choices::Choices;
use super::policies::{self, IDENTITIES, identity};

const ADDRESSES: [&str; 6] = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "fd00::1", "fd00::2", "::ffff:10.0.0.3"];
const OWNERS: [&str; 3] = ["shop/db", "shop/web", ""];
const LABELS: [&str; 3] = ["", "k8s:app=db;", "k8s:app=web;k8s:io.kubernetes.pod.namespace=shop;"];
/// Blocks that keep their meaning for every reader.
const CIDRS: [&str; 5] = ["0.0.0.0/0", "10.0.0.0/8", "10.1.2.3/32", "::/0", "2001:db8::/64"];

/// Whatever the updates: one is applied as a whole or, where any resource in it is invalid, not at all, with an error
/// for each of those; a node then holds what the resources said last, and its digest and canonical form depend on that
/// alone, not on the way there. What is kept of its changes leads to the same.
///
/// # Panics
///
/// If that is not so.
pub fn delta(data: &[u8]) {
    let mut choices = Choices::new(data);
    let mut node = Node::default();
    let mut expected = Kept::default();
    let mut journal = Vec::new();
    while !choices.is_empty() {
        let mut next = expected.clone();
        let mut invalid = 0;
        let parts = choices.list(3, |choices| part(choices, &mut next, &mut invalid));
        let before = node.clone();
        match node.apply(&parts) {
            Ok(()) => {
                assert_eq!(invalid, 0, "invalid resources were applied");
                expected = next;
            }
            Err(error) => {
                assert_eq!(error.0.len(), invalid, "{error}");
                assert_eq!(node, before, "a refused update left something");
            }
        }
        expected.is_held_by(&node);
        journal.push(node.changes_since(&before).unwrap());
    }
    let mut replayed = Node::default();
    replayed.apply(&journal).unwrap();
    assert_eq!(replayed, node, "what is kept of changes makes another node");
    let mut copy = Node::default();
    copy.apply(&node.parts()).unwrap();
    assert_eq!(copy, node, "the canonical form makes another node");
    let mut direct = Node::default();
    direct.apply(&expected.parts()).unwrap();
    assert_eq!(direct.digest(), node.digest(), "the digest depends on the way");
    assert_eq!(direct.parts(), node.parts());
}

/// What was said last.
#[derive(Clone, Default)]
struct Kept {
    endpoints: BTreeMap<IpAddr, Endpoint>,
    owners: BTreeMap<IpAddr, Arc<str>>,
    identities: BTreeMap<Identity, Arc<Labels>>,
    policy: Option<Policy>,
    settings: Option<NodeSettings>,
    gateways: Vec<String>,
}

impl Kept {
    fn endpoints(&self) -> BTreeMap<IpAddr, Arc<Endpoint>> {
        let owned = |(address, endpoint): (&IpAddr, &Endpoint)| {
            let owner = self.owners.get(address).cloned();
            (*address, Arc::new(Endpoint { owner, ..endpoint.clone() }))
        };
        self.endpoints.iter().map(owned).collect()
    }

    fn labels(&self) -> Pages<Identity, Arc<str>> {
        self.identities.iter().map(|(identity, labels)| (*identity, labels.to_string().into())).collect()
    }

    fn is_held_by(&self, node: &Node) {
        assert_eq!(node.gateways(), self.gateways);
        let Some(state) = node.state() else {
            assert!(self.policy.is_none() || self.settings.is_none(), "nothing is held");
            return;
        };
        assert_eq!(Some(&*state.policy), self.policy.as_ref());
        assert_eq!(Some(&state.settings), self.settings.as_ref());
        assert_eq!(state.identities, self.labels());
        let endpoints =
            self.endpoints().into_iter().map(|(address, endpoint)| (address, (*endpoint).clone()));
        assert_eq!(state.endpoints, endpoints.collect());
    }

    fn parts(&self) -> [Vec<u8>; 3] {
        let workload = |settings| workload_part(settings, &self.gateways).encode_to_vec();
        [
            everyone_part(&self.endpoints()).encode_to_vec(),
            audience_part(self.policy.as_ref(), &self.identities, &self.owners).encode_to_vec(),
            self.settings.as_ref().map(workload).unwrap_or_default(),
        ]
    }
}

/// One part of an update. Counts what is invalid in it, and notes the rest as if all were valid.
fn part(choices: &mut Choices<'_>, kept: &mut Kept, invalid: &mut usize) -> Vec<u8> {
    let counted = *invalid;
    let mut set = v1::ResourceSet::default();
    for _ in 0..choices.below(6) {
        if !resource(choices, &mut set) {
            *invalid += 1;
        }
    }
    if choices.seldom(4) {
        let policy = sendable(policies::policy_with(choices, &CIDRS));
        set.policy = Some(policy_to_wire(&policy));
        kept.policy = Some(policy);
        if choices.seldom(8) {
            bend_policy(choices, &mut set);
            *invalid += 1;
        }
    }
    if choices.seldom(4) {
        let settings = settings(choices);
        let gateways = choices.list(2, |choices| choices.one_of(&["gw:1", "gw:2"]).to_owned());
        let mut wire = settings_to_wire(&settings, &gateways);
        kept.settings = Some(settings);
        if !gateways.is_empty() {
            kept.gateways = gateways;
        }
        if choices.seldom(8) {
            bend_settings(choices, &mut wire);
            *invalid += 1;
        }
        set.settings = Some(wire);
    }
    note(&set, kept);
    let mut bytes = set.encode_to_vec();
    if choices.seldom(64) && !bytes.is_empty() {
        // A set that ends within a resource is one error, whatever is in it.
        bytes = vec![0x0a];
        *invalid = counted + 1;
    }
    bytes
}

/// The policy without ports that no reader accepts.
fn sendable(mut policy: Policy) -> Policy {
    for rule in policy.ingress.rules.iter_mut().chain(&mut policy.egress.rules) {
        if let Ports::Only(ranges) = &mut rule.ports {
            ranges.retain(|range| range.protocol != PolicyKey::ANY_PROTOCOL && range.first <= range.last);
        }
    }
    policy
}

fn address(choices: &mut Choices<'_>) -> IpAddr {
    choices.one_of(&ADDRESSES).parse::<IpAddr>().unwrap().to_canonical()
}

/// Adds a resource; false where it is invalid.
fn resource(choices: &mut Choices<'_>, set: &mut v1::ResourceSet) -> bool {
    let is_valid = !choices.seldom(16);
    let wire_address = |choices: &mut Choices<'_>| {
        let mut bytes = address_to_wire(address(choices));
        if !is_valid {
            bytes.push(7);
        }
        bytes
    };
    match choices.below(5) {
        0 => set.endpoints.push(endpoint(choices, is_valid)),
        1 => set.removed_endpoints.push(wire_address(choices)),
        2 => {
            let owner = choices.one_of(&OWNERS).to_owned();
            set.owners.push(v1::Owner { address: wire_address(choices), owner });
        }
        3 => {
            let labels = choices.one_of(&LABELS).parse().unwrap();
            let mut wire = labels_to_wire(identity(choices.one_of(&IDENTITIES)), &labels);
            if !is_valid {
                choices.one_of(&["k8s:app", "app=1;", "k8s:a=1;k8s:a=2;"]).clone_into(&mut wire.labels);
            }
            set.identities.push(wire);
        }
        _ => set.removed_identities.push(if is_valid {
            choices.one_of(&IDENTITIES)
        } else {
            choices.one_of(&[0, 1 << 24, u32::MAX])
        }),
    }
    is_valid
}

fn endpoint(choices: &mut Choices<'_>, is_valid: bool) -> v1::Endpoint {
    let number = identity(choices.one_of(&IDENTITIES));
    let previous = choices.flag().then(|| identity(choices.one_of(&IDENTITIES)));
    let endpoint = Endpoint {
        identity: number,
        previous,
        mark: previous.filter(|_| choices.flag()).unwrap_or(number),
        tunnels: Arc::new(choices.list(2, address)),
        kind: match choices.below(4) {
            0 => EndpointKind::Pod {
                behind: Arc::new(choices.list(2, |c| c.one_of(&OWNERS).to_owned()).into_iter().collect()),
            },
            1 => EndpointKind::Workload,
            2 => EndpointKind::Transit,
            _ => EndpointKind::Node,
        },
        owner: None,
    };
    let mut wire = endpoint_to_wire(address(choices), &endpoint);
    if !is_valid {
        match choices.below(6) {
            0 => wire.identity = choices.one_of(&[0, 1 << 24]),
            1 => wire.mark = 0,
            2 => wire.kind = None,
            3 => wire.tunnels.push(vec![1, 2, 3]),
            4 => wire.previous = 1 << 24,
            _ => wire.address.clear(),
        }
    }
    wire
}

fn bend_policy(choices: &mut Choices<'_>, set: &mut v1::ResourceSet) {
    let Some(policy) = &mut set.policy else { return };
    let direction = if choices.flag() { &mut policy.ingress } else { &mut policy.egress };
    match choices.below(4) {
        0 => *direction = None,
        1 => direction.as_mut().unwrap().default = None,
        // A rule whose peers or ports are missing says nothing, which is not everything.
        2 => direction.as_mut().unwrap().rules.push(v1::Rule { peers: None, ..any_rule() }),
        _ => direction.as_mut().unwrap().rules.push(v1::Rule { ports: None, ..any_rule() }),
    }
}

fn any_rule() -> v1::Rule {
    v1::Rule {
        origin: "bent".to_owned(),
        peers: Some(v1::Peers { peers: Some(v1::peers::Peers::Any(v1::AnyPeer {})) }),
        ports: Some(v1::Ports { ports: Some(v1::ports::Ports::Any(v1::AnyPort {})) }),
        verdict: v1::Verdict::Allow.into(),
        precedence: policy::rules::precedence::NETWORK_POLICY,
    }
}

fn settings(choices: &mut Choices<'_>) -> NodeSettings {
    let mut addresses: Vec<IpAddr> = vec![choices.one_of(&["10.0.0.1", "10.0.0.2"]).parse().unwrap()];
    if choices.flag() {
        addresses.push("fd00::1".parse().unwrap());
    }
    NodeSettings {
        workload: choices.one_of(&OWNERS).to_owned(),
        identity: identity(choices.one_of(&IDENTITIES)),
        mark: identity(choices.one_of(&IDENTITIES)),
        addresses,
        prefixes: choices.list(2, |choices| choices.one_of(&CIDRS).parse().unwrap()),
        role: choices.one_of(&[Role::Host, Role::Transit, Role::Node]),
        mode: if choices.flag() { Mode::Enforce } else { Mode::Audit },
        tunnel_port: u16::from(choices.byte()) + 1,
        rejected: choices.list(1, |_| "NetworkPolicy/a/b: spec".to_owned()),
        nic: None,
        partly_enforced: Vec::new(),
        probes: choices.list(1, |choices| Probe {
            kind: match choices.below(3) {
                0 => ProbeKind::Tcp { port: 5432 },
                1 => ProbeKind::Exec { name: "ready".to_owned() },
                _ => ProbeKind::Unknown("grpc".to_owned()),
            },
            period_s: choices.byte().into(),
            timeout_s: 1,
            successes: 1,
            failures: 3,
        }),
    }
}

fn bend_settings(choices: &mut Choices<'_>, wire: &mut v1::Settings) {
    match choices.below(6) {
        0 => wire.addresses.clear(),
        1 => wire.addresses.push(vec![10, 0, 0, 9]),
        2 => wire.tunnel_port = choices.one_of(&[0, 65_536]),
        3 => wire.role = choices.one_of(&[0, 4]),
        4 => wire.prefixes.push(v1::Prefix { address: vec![10, 0, 0, 1], length: 24 }),
        _ => wire.identity = 0,
    }
}

/// Applies the resources of a part, of which the invalid ones do not matter: nothing of the update then counts.
fn note(set: &v1::ResourceSet, kept: &mut Kept) {
    let address = |bytes: &[u8]| proto::convert::address_from_wire(bytes).ok();
    for wire in &set.endpoints {
        if let Ok((address, endpoint)) = proto::convert::endpoint_from_wire(wire) {
            kept.endpoints.insert(address, endpoint);
        }
    }
    for address in set.removed_endpoints.iter().filter_map(|bytes| address(bytes)) {
        kept.endpoints.remove(&address);
    }
    for owner in &set.owners {
        let Some(address) = address(&owner.address) else { continue };
        if owner.owner.is_empty() {
            kept.owners.remove(&address);
        } else {
            kept.owners.insert(address, Arc::from(owner.owner.as_str()));
        }
    }
    for wire in &set.identities {
        if let Ok((identity, labels)) = proto::convert::labels_from_wire(wire) {
            kept.identities.insert(identity, Arc::new(labels));
        }
    }
    for number in &set.removed_identities {
        if let Ok(identity) = Identity::try_new(*number) {
            kept.identities.remove(&identity);
        }
    }
}
