//! The objects whose changes are the load: policies, pods and groups, changed at random, and their manifests. One file
//! holds everything that concerns a probe, so that each revision of it is one change.

use std::collections::BTreeMap;
use std::net::IpAddr;

use rand::rngs::StdRng;
use rand::{Rng, RngExt as _};
use serde_json::{Value, json};

/// The namespace of everything.
pub const NAMESPACE: &str = "shop";
/// The file of everything that concerns a probe.
pub const FILE: &str = "world.yaml";
/// Policies whose only purpose is to change.
const FILLERS: usize = 40;
/// Apps of pods that exist in manifests only.
const CROWD_APPS: u32 = 24;
/// Blocks of the policy that is too large: a table takes 16,384 in each of its two banks, or as many more in one.
const BLOCKS: u32 = 17_000;
/// Files of such pods.
const CROWD_FILES: usize = 8;

/// Ports of the probes, each decided by another kind of rule.
pub mod port {
    /// The rule moves with the identity.
    pub const SWAP: u16 = 9000;
    /// The same for streams.
    pub const STREAM: u16 = 9001;
    /// The policy comes and goes.
    pub const FLIP: u16 = 9002;
    /// A block with an exception.
    pub const BLOCK: u16 = 9003;
    /// Between hosts whose groups swap labels.
    pub const HOSTS: u16 = 9004;
    /// From whoever is an endpoint.
    pub const ANY: u16 = 9005;
    /// In a range that moves.
    pub const RANGE: [u16; 2] = [9110, 9120];
}

/// The pods that exist as namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Actor {
    /// Trades its label with `Zinc`; the rule follows it.
    Xenon,
    /// Trades its label with `Xenon`; never allowed.
    Zinc,
    /// Its policies change.
    Flip,
    /// Its address is in a block, sometimes excepted.
    Block,
    /// Its object comes and goes.
    Ghost,
    /// Floods.
    Flood,
}

impl Actor {
    /// All, in the order of their addresses.
    pub const ALL: [Self; 6] = [Self::Xenon, Self::Zinc, Self::Flip, Self::Block, Self::Ghost, Self::Flood];

    /// The name of its pod.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Xenon => "xenon",
            Self::Zinc => "zinc",
            Self::Flip => "flip",
            Self::Block => "block",
            Self::Ghost => "ghost",
            Self::Flood => "flood",
        }
    }
}

/// What can change, as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch of its own, and they are no states of one machine"
)]
pub struct World {
    addresses: BTreeMap<Actor, [IpAddr; 2]>,
    revision: usize,
    /// Whether `xenon` is gold and `zinc` lead, or the other way round.
    swapped: bool,
    /// The same of the groups.
    groups_swapped: bool,
    flip: bool,
    excepted: bool,
    ghost: bool,
    range: (u16, u16),
    fillers: [u32; FILLERS],
}

/// The groups of hosts, in the order of the hosts.
pub const GROUPS: [&str; 2] = ["left", "right"];

impl World {
    /// The first revision.
    #[must_use]
    pub const fn new(addresses: BTreeMap<Actor, [IpAddr; 2]>) -> Self {
        Self {
            addresses,
            revision: 0,
            swapped: false,
            groups_swapped: false,
            flip: true,
            excepted: false,
            ghost: true,
            range: (9100, 9115),
            fillers: [0; FILLERS],
        }
    }

    /// Changes at random what probes depend on, and `policies` policies more. Returns how many policies and how many
    /// pods and groups became others.
    pub fn change(&mut self, random: &mut StdRng, policies: usize) -> (u64, u64) {
        let before = self.clone();
        self.revision += 1;
        self.swapped ^= random.random_bool(0.3);
        self.groups_swapped ^= random.random_bool(0.1);
        self.flip ^= random.random_bool(0.15);
        self.excepted ^= random.random_bool(0.15);
        self.ghost ^= random.random_bool(0.1);
        if random.random_bool(0.15) {
            let first = random.random_range(9100..9120);
            self.range = (first, random.random_range(first..9130));
        }
        let first = random.random_range(0..FILLERS);
        for at in 0..policies.min(FILLERS) {
            if let Some(filler) = self.fillers.get_mut((first + at) % FILLERS) {
                *filler = random.next_u32();
            }
        }
        let (old, new) = (before.policies(), self.policies());
        let changed = new.iter().filter(|policy| !old.contains(policy)).count();
        let others = 2 * usize::from(self.swapped != before.swapped)
            + 2 * usize::from(self.groups_swapped != before.groups_swapped)
            + usize::from(self.ghost != before.ghost);
        (count(changed), count(others))
    }

    /// The manifest.
    #[must_use]
    pub fn manifest(&self) -> String {
        let objects = self.policies().into_iter().chain(self.pods()).chain(self.groups());
        let text = documents(objects);
        // Equal revisions are told apart by their digests too.
        format!("# revision {}\n{text}", self.revision)
    }

    /// The policies.
    #[must_use]
    pub fn policies(&self) -> Vec<Value> {
        let gold = if self.swapped { "lead" } else { "gold" };
        let [tier, _] = self.tiers();
        let mut policies = vec![
            policy("swap", &[rule("from", &app(gold), &[(port::SWAP, "UDP"), (port::STREAM, "TCP")])], true),
            policy("swap-out", &[rule("to", &app(gold), &[(port::SWAP, "UDP")])], false),
            policy("hosts", &[rule("from", &labels("tier", tier), &[(port::HOSTS, "UDP")])], true),
            policy("hosts-out", &[rule("to", &labels("role", "host"), &[])], false),
            policy("any", &[rule("from", &json!({"podSelector": {}}), &[(port::ANY, "UDP")])], true),
            policy("any-out", &[rule("to", &json!({"podSelector": {}}), &[(port::ANY, "UDP")])], false),
            policy("flood", &[rule("from", &app("flood"), &[])], true),
        ];
        if self.flip {
            policies.push(policy("flip", &[rule("from", &app("flip"), &[(port::FLIP, "UDP")])], true));
        }
        let (first, last) = self.range;
        let range =
            json!({"from": [app("flip")], "ports": [{"protocol": "UDP", "port": first, "endPort": last}]});
        policies.push(policy("range", &[range], true));
        let blocks = self.addresses.get(&Actor::Block).into_iter().flatten().map(|address| {
            let (whole, one) = match address {
                IpAddr::V4(v4) => ("10.100.1.0/24", format!("{v4}/32")),
                IpAddr::V6(v6) => ("fd00:100:1::/64", format!("{v6}/128")),
            };
            let except = if self.excepted { vec![one] } else { Vec::new() };
            json!({"ipBlock": {"cidr": whole, "except": except}})
        });
        let block =
            json!({"from": blocks.collect::<Vec<_>>(), "ports": [{"protocol": "UDP", "port": port::BLOCK}]});
        policies.push(policy("block", &[block], true));
        policies.extend(self.fillers.iter().enumerate().map(|(at, seed)| {
            let crowd = format!("crowd-{}", seed % CROWD_APPS);
            let number = 10_000 + u16::try_from(seed % 50_000).unwrap_or_default();
            policy(&format!("filler-{at}"), &[rule("from", &app(&crowd), &[(number, "TCP")])], true)
        }));
        policies
    }

    /// The pods that exist, as objects.
    #[must_use]
    pub fn pods(&self) -> Vec<Value> {
        let there = self.addresses.iter().filter(|(actor, _)| **actor != Actor::Ghost || self.ghost);
        there.map(|(actor, addresses)| pod(actor.name(), &self.app_of(*actor), addresses)).collect()
    }

    /// The label `app` of a pod.
    #[must_use]
    pub fn app_of(&self, actor: Actor) -> String {
        match actor {
            Actor::Xenon if self.swapped => "lead",
            Actor::Zinc if !self.swapped => "lead",
            Actor::Xenon | Actor::Zinc => "gold",
            Actor::Flip | Actor::Block | Actor::Ghost | Actor::Flood => actor.name(),
        }
        .to_owned()
    }

    /// Whether a pod's object exists.
    #[must_use]
    pub fn exists(&self, actor: Actor) -> bool {
        actor != Actor::Ghost || self.ghost
    }

    /// The addresses of a pod.
    #[must_use]
    pub fn addresses_of(&self, actor: Actor) -> Option<[IpAddr; 2]> {
        self.addresses.get(&actor).copied()
    }

    /// The addresses of all pods.
    #[must_use]
    pub fn all_addresses(&self) -> BTreeMap<Actor, [IpAddr; 2]> {
        self.addresses.clone()
    }

    /// The label `tier` of each group.
    #[must_use]
    pub const fn tiers(&self) -> [&'static str; 2] {
        if self.groups_swapped { ["back", "front"] } else { ["front", "back"] }
    }

    fn groups(&self) -> Vec<Value> {
        let group = |(name, tier): (&str, &str)| {
            json!({"apiVersion": "outrigger.dev/v1alpha1", "kind": "ExternalWorkloadGroup",
                "metadata": {"namespace": NAMESPACE, "name": name},
                "spec": {"template": {"serviceAccountName": "default", "labels": {"role": "host", "tier": tier}}}})
        };
        GROUPS.into_iter().zip(self.tiers()).map(group).collect()
    }
}

/// A file of pods that exist in manifests only: with other labels and addresses each time.
#[must_use]
pub fn crowd(file: usize, pods: u16, random: &mut StdRng) -> (String, String) {
    let objects = (0..pods).map(|number| {
        let [high, low] = number.to_be_bytes();
        let shard = u8::try_from(file % CROWD_FILES).unwrap_or_default();
        let spread = random.random_range(0..4_u8);
        let v4 = IpAddr::from([10, 100, 128 + shard * 16 + spread * 4 + (high & 3), low]);
        let label = format!("crowd-{}", random.random_range(0..CROWD_APPS));
        pod(&format!("crowd-{shard}-{number}"), &label, &[v4])
    });
    (format!("crowd-{}.yaml", file % CROWD_FILES), documents(objects))
}

/// A policy over all hosts with more blocks than a table has room for in both its banks, and about no probe.
#[must_use]
pub fn bulk() -> String {
    let blocks = (0..BLOCKS).map(|number| {
        // Of every two addresses one, so that no block covers another one or its neighbour.
        let [_, high, middle, low] = (2 * number).to_be_bytes();
        json!({"ipBlock": {"cidr": format!("11.{high}.{middle}.{low}/32")}})
    });
    let rule = json!({"from": blocks.collect::<Vec<_>>(), "ports": [{"protocol": "TCP", "port": 1}]});
    documents([policy("bulk", &[rule], true)].into_iter())
}

fn documents(objects: impl Iterator<Item = Value>) -> String {
    objects.fold(String::new(), |all, object| all + "---\n" + &object.to_string() + "\n")
}

fn pod(name: &str, app: &str, addresses: &[IpAddr]) -> Value {
    let addresses: Vec<_> = addresses.iter().map(|address| json!({"ip": address.to_string()})).collect();
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": NAMESPACE, "name": name, "labels": {"app": app}},
        "spec": {"nodeName": "node-1", "serviceAccountName": "default"},
        "status": {"podIPs": addresses}})
}

/// A policy over all hosts with rules of one direction.
fn policy(name: &str, rules: &[Value], ingress: bool) -> Value {
    let selector = json!({"matchLabels": {"role": "host"}});
    let spec = if ingress {
        json!({"podSelector": selector, "policyTypes": ["Ingress"], "ingress": rules})
    } else {
        json!({"podSelector": selector, "policyTypes": ["Egress"], "egress": rules})
    };
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"namespace": NAMESPACE, "name": name}, "spec": spec})
}

/// A rule of one peer; `peers` is `from` or `to`. Without ports it is about all.
fn rule(peers: &str, peer: &Value, ports: &[(u16, &str)]) -> Value {
    let ports: Vec<_> =
        ports.iter().map(|(port, protocol)| json!({"protocol": protocol, "port": port})).collect();
    if ports.is_empty() { json!({peers: [peer]}) } else { json!({peers: [peer], "ports": ports}) }
}

fn app(name: &str) -> Value {
    labels("app", name)
}

fn labels(key: &str, value: &str) -> Value {
    json!({"podSelector": {"matchLabels": {key: value}}})
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
