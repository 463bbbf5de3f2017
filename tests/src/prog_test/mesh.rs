//! A small random mesh: the tables of both banks, in the form of the host model.

use datapath::abi::{
    Bank, CidrEntry, CidrKey, ClassEntry, ClassKey, Control, EndpointEntry, EndpointKey, PolicyEntry,
    PolicyKey, PrefixEntry, PrefixKey, Rank, Settings, TunnelEntry, TunnelKey, endpoint_flag, settings_flag,
};
use datapath::model::{Capacity, Model};
use datapath::{Action, Address, Outer, Port};
use rand::seq::IndexedRandom;
use rand::{Rng, RngExt};

/// This host.
pub const OWN: [&str; 2] = ["10.0.0.1", "fd00::1"];
/// The others; the last of each family has no endpoint.
pub const PEERS: [&str; 10] = [
    "10.0.0.2",
    "10.0.0.3",
    "10.0.1.2",
    "10.0.1.3",
    "10.0.9.9",
    "fd00::2",
    "fd00::3",
    "fd00:1::2",
    "fd00:1::3",
    "fd00:9::9",
];
const UNDERLAY: [&str; 5] = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::1", "2001:db8::2"];
const IDENTITIES: [u32; 5] = [6, 300, 301, 302, 303];
const BLOCKS: [(&str, u32); 5] =
    [("10.0.0.0", 16), ("10.0.1.0", 24), ("10.0.1.2", 32), ("fd00::", 16), ("fd00:1::", 32)];
/// Ports that packets and policies use.
pub const PORTS: [u16; 4] = [80, 443, 1000, 1001];
/// Protocols that packets and policies use.
pub const PROTOCOLS: [u8; 6] = [1, 6, 17, 58, 132, 47];
const SET: u32 = 7;

/// An address from its text.
#[must_use]
pub fn address(text: &str) -> Address {
    text.parse::<std::net::IpAddr>().map_or(Address::NONE, Address::from)
}

/// The tables and the control word.
#[derive(Debug)]
pub struct Mesh {
    /// The tables.
    pub model: Model,
    /// Which of them count.
    pub control: Control,
}

impl Mesh {
    /// Fills both banks.
    #[must_use]
    pub fn random(rng: &mut impl Rng) -> Self {
        let mut mesh = Self {
            model: Model::new(Capacity::default()),
            control: Control::new(Bank::A, 0, rng.random_range(1..9)),
        };
        fill(&mut mesh.model, Bank::A, rng);
        fill(&mut mesh.model, Bank::B, rng);
        mesh
    }

    /// Publishes a random state in the idle bank.
    pub fn republish(&mut self, rng: &mut impl Rng) {
        let bank = self.control.bank().other();
        clear(&mut self.model, bank);
        fill(&mut self.model, bank, rng);
        self.control = self.control.next();
    }

    /// Outer facts, mostly those that the source would have.
    #[must_use]
    pub fn outer(&self, source: Address, rng: &mut impl Rng) -> Outer {
        let key = EndpointKey { bank: self.control.bank().number(), reserved: [0; 3], address: source };
        let anything = Outer { source: underlay(rng), vni: identity(rng) };
        match (self.model.endpoints.get(&key), rng.random_range(0..10)) {
            (Some(entry), 0..=7) => Outer { source: entry.tunnel, vni: entry.identity },
            (Some(entry), 8) => Outer { source: underlay(rng), vni: entry.previous },
            (_, 9) if rng.random_bool(0.3) => Outer::NONE,
            _ => anything,
        }
    }
}

fn underlay(rng: &mut impl Rng) -> Address {
    UNDERLAY.choose(rng).map_or(Address::NONE, |text| address(text))
}

fn identity(rng: &mut impl Rng) -> u32 {
    IDENTITIES.choose(rng).copied().unwrap_or_default()
}

fn action(rng: &mut impl Rng) -> u8 {
    if rng.random_bool(0.7) { Action::Allow.number() } else { rng.random_range(0..5) }
}

/// Also of no rule, and with an action that is none.
fn rank(rng: &mut impl Rng) -> Rank {
    let precedence = rng.random_range(0..3);
    if rng.random_bool(0.6) { Rank::new(precedence, Action::Allow) } else { Rank(rng.random_range(0..12)) }
}

fn clear(model: &mut Model, bank: Bank) {
    let bank = bank.number();
    model.endpoints.retain(|key, _| key.bank != bank);
    model.tunnels.retain(|key, _| key.bank != bank);
    model.cidrs.retain(|key, _| key.bank != bank);
    model.classes.retain(|key, _| key.bank != bank);
    model.policy.retain(|key, _| key.bank != bank);
    model.prefixes.retain(|key, _| key.bank != bank);
}

fn fill(model: &mut Model, bank: Bank, rng: &mut impl Rng) {
    if let Some(place) = model.settings.get_mut(usize::from(bank.number())) {
        *place = Some(settings(rng));
    }
    endpoints(model, bank, rng);
    classes(model, bank, rng);
    policy(model, bank, rng);
    let prefix_len = CidrKey::BASE_BITS + 96 + 24;
    let key = PrefixKey { prefix_len, bank: bank.number(), reserved: [0; 3], address: address("10.0.0.0") };
    model.prefixes.insert(key, PrefixEntry::default());
}

fn settings(rng: &mut impl Rng) -> Settings {
    let mut flags = 0;
    for (flag, probability) in [
        (settings_flag::AUDIT, 0.15),
        (settings_flag::TRANSIT, 0.1),
        (settings_flag::CIDR_RULES, 0.5),
        (settings_flag::PROTOCOLS_NAMED, 0.2),
        (settings_flag::PASSES, 0.5),
        (settings_flag::EVENTS_ALLOWED, 0.5),
        (settings_flag::GUARD_EGRESS, 0.5),
    ] {
        if rng.random_bool(probability) {
            flags |= flag;
        }
    }
    let own = OWN.map(|text| if rng.random_bool(0.97) { address(text) } else { Address::NONE });
    Settings {
        identity: 300,
        mark: identity(rng),
        flags,
        ingress_default: action(rng),
        egress_default: action(rng),
        ingress_rule: 11,
        egress_rule: 12,
        address_v4: own[0],
        address_v6: own[1],
        mtu: 1450,
        ..Settings::default()
    }
}

fn endpoints(model: &mut Model, bank: Bank, rng: &mut impl Rng) {
    let bank = bank.number();
    for text in UNDERLAY {
        if rng.random_bool(0.5) {
            let key = TunnelKey { bank, reserved: [0; 3], set: SET, address: address(text) };
            model.tunnels.insert(key, TunnelEntry::default());
        }
    }
    for (number, text) in OWN.iter().chain(&PEERS).enumerate() {
        if text.contains(":9:") || text.contains(".9.") || rng.random_bool(0.04) {
            continue;
        }
        let identity = identity(rng);
        let mut entry = EndpointEntry {
            identity,
            previous: if rng.random_bool(0.2) { 303 } else { 0 },
            mark: identity,
            tunnel_set: if rng.random_bool(0.3) { SET } else { 0 },
            tunnel: if rng.random_bool(0.95) { underlay(rng) } else { Address::NONE },
            flags: if rng.random_bool(0.2) { endpoint_flag::ROUTER } else { 0 },
            reserved: 0,
        };
        if rng.random_bool(0.2) {
            entry.flags |= endpoint_flag::PAST_MESH;
        }
        if number < OWN.len() {
            entry.flags = endpoint_flag::OWN;
            entry.tunnel = Address::NONE;
        } else if rng.random_bool(0.1) {
            entry.flags = endpoint_flag::BEHIND;
            entry.tunnel = Address::NONE;
        }
        model.endpoints.insert(EndpointKey { bank, reserved: [0; 3], address: address(text) }, entry);
    }
}

fn classes(model: &mut Model, bank: Bank, rng: &mut impl Rng) {
    let bank = bank.number();
    for identity in IDENTITIES {
        if rng.random_bool(0.8) {
            let entry = ClassEntry { class: rng.random_range(0..4) };
            model.classes.insert(ClassKey { bank, reserved: [0; 3], identity }, entry);
        }
    }
    for (text, bits) in BLOCKS {
        if rng.random_bool(0.7) {
            let mapped = if text.contains(':') { 0 } else { 96 };
            let prefix_len = CidrKey::BASE_BITS + mapped.max(if mapped == 0 { bits } else { 96 + bits });
            let key = CidrKey { prefix_len, bank, reserved: [0; 3], address: address(text) };
            model
                .cidrs
                .insert(key, CidrEntry { class: rng.random_range(3..7), outside: rng.random_range(3..7) });
        }
    }
}

fn policy(model: &mut Model, bank: Bank, rng: &mut impl Rng) {
    for rule in 0..40_u32 {
        let bits = *[0, 0, 6, 12, 16].choose(rng).unwrap_or(&0);
        let port = PORTS.choose(rng).map_or(0, |port| port & u16::MAX.checked_shl(16 - bits).unwrap_or(0));
        let key = PolicyKey {
            prefix_len: PolicyKey::BASE_BITS + bits,
            bank: bank.number(),
            direction: rng.random_range(0..2),
            protocol: if rng.random_bool(0.3) {
                PolicyKey::ANY_PROTOCOL
            } else {
                *PROTOCOLS.choose(rng).unwrap_or(&6)
            },
            reserved: 0,
            class: rng.random_range(0..7),
            port: Port::new(port),
            padding: [0; 2],
        };
        let entry =
            PolicyEntry { rank: rank(rng), rule: 100 + rule, below_rank: rank(rng), below_rule: 200 + rule };
        model.policy.insert(key, entry);
    }
}
