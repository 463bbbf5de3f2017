//! From a compiled policy to what stands in the maps, for either bank. Every rule about a peer becomes part of the
//! peer's class; the entries of a class hold the one rule that decides, port prefix by port prefix.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use datapath::abi::{
    Bank, CidrEntry, CidrKey, ClassEntry, ClassKey, PolicyEntry, PolicyKey, Rank, settings_flag,
};
use datapath::{Action, Address, Direction, Port};

mod cidrs;
#[cfg(test)]
pub(crate) mod naive;
mod numbers;
mod ports;
#[cfg(test)]
mod tests;

use crate::evaluate::{Reason, Verdict};
use crate::state::{DirectionPolicy, Peers, Policy, Ports, Rule, RuleAction};

/// A policy as map entries, without a bank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lowered {
    /// Identity → class. Identities that no rule names are absent and have class 0.
    pub classes: BTreeMap<u32, u32>,
    /// Block (address, prefix length of the v4-mapped form) → classes, 0 for holes. The longest prefix holds.
    pub cidrs: BTreeMap<(Address, u8), CidrEntry>,
    /// What decides, by class and port.
    pub entries: BTreeMap<EntryKey, EntryValue>,
    /// What happens to ingress that no entry matches.
    pub ingress: LoweredDefault,
    /// What happens to egress that no entry matches.
    pub egress: LoweredDefault,
    /// What rule ids stand for: origins, and the texts of the defaults.
    pub names: BTreeMap<u32, Arc<str>>,
}

/// The part of a `POLICY` key that is the same in both banks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EntryKey {
    /// The peer class.
    pub class: u32,
    /// Seen from the host.
    pub direction: Direction,
    /// IP protocol number, or [`PolicyKey::ANY_PROTOCOL`].
    pub protocol: u8,
    /// The first port of the prefix.
    pub port: u16,
    /// How many leading bits of the port count.
    pub port_prefix_len: u8,
}

/// The value of a `POLICY` entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EntryValue {
    /// The rule that decides.
    pub first: Decider,
    /// The one that does below the administrators' tier.
    pub below: Option<Decider>,
}

/// A rule in an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Decider {
    /// Higher decides.
    pub precedence: u32,
    /// What it says.
    pub action: RuleAction,
    /// The rule's id.
    pub rule: u32,
}

impl Decider {
    fn rank(self) -> Rank {
        Rank::new(self.precedence, action(self.action))
    }
}

/// The default of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoweredDefault {
    /// What happens.
    pub action: Action,
    /// The id that events show for it.
    pub rule: u32,
}

/// A rule by its place in the policy.
type RuleRef = (Direction, usize);
/// The rules that are about one peer.
type RuleSet = BTreeSet<RuleRef>;

const DIRECTIONS: [Direction; 2] = [Direction::Ingress, Direction::Egress];

/// Lowers a policy. Numbers of classes and rules derive from the origins of rules, so that a small change of the
/// policy is a small change of the maps.
#[must_use]
pub fn lower(policy: &Policy) -> Lowered {
    let defaults = DIRECTIONS.map(|direction| policy.direction(direction).default.describe(direction));
    let origins = rules(policy).map(|(_, rule)| rule.origin.to_string());
    let ids = numbers::rules(origins.chain(defaults.iter().cloned()).collect());
    let default = |direction| {
        let default = &policy.direction(direction).default;
        let rule = ids.get(&default.describe(direction)).copied().unwrap_or_default();
        LoweredDefault { action: action(default.action()), rule }
    };

    let everyone: RuleSet =
        rules(policy).filter(|(_, rule)| rule.peers == Peers::Any).map(|(reference, _)| reference).collect();
    let by_identity = by_identity(policy);
    let by_block = cidrs::by_block(policy);
    let sets = by_block.values().flat_map(|sets| [&sets.everyone, &sets.outside]);
    let numbers = numbers::classes(policy, by_identity.values(), sets);

    let mut entries = BTreeMap::new();
    ports::entries(policy, 0, &everyone, &ids, &mut entries);
    for (set, class) in &numbers.identities {
        ports::entries(policy, *class, &(set | &everyone), &ids, &mut entries);
    }
    for (set, class) in &numbers.blocks {
        ports::entries(policy, *class, set, &ids, &mut entries);
    }
    let classes_of = |sets: &cidrs::Sets| CidrEntry {
        class: numbers.of_block(&sets.everyone),
        outside: numbers.of_block(&sets.outside),
    };
    Lowered {
        classes: by_identity.iter().map(|(identity, set)| (*identity, numbers.of_identities(set))).collect(),
        cidrs: by_block.iter().map(|(block, sets)| (*block, classes_of(sets))).collect(),
        entries,
        ingress: default(Direction::Ingress),
        egress: default(Direction::Egress),
        names: ids.into_iter().map(|(name, id)| (id, name.into())).collect(),
    }
}

/// Every rule that can match anything.
fn rules(policy: &Policy) -> impl Iterator<Item = (RuleRef, &Rule)> {
    DIRECTIONS.into_iter().flat_map(|direction| {
        let DirectionPolicy { default, rules } = policy.direction(direction);
        rules
            .iter()
            .enumerate()
            .filter(|(_, rule)| rule.applies_under(default))
            .filter(|(_, rule)| !matches!(&rule.ports, Ports::Only(ranges) if ranges.is_empty()))
            .map(move |(index, rule)| ((direction, index), rule))
    })
}

fn by_identity(policy: &Policy) -> BTreeMap<u32, RuleSet> {
    let mut sets: BTreeMap<u32, RuleSet> = BTreeMap::new();
    for (reference, rule) in rules(policy) {
        if let Peers::Only { identities, .. } = &rule.peers {
            for identity in identities.iter() {
                sets.entry(identity.get()).or_default().insert(reference);
            }
        }
    }
    sets
}

const fn action(action: RuleAction) -> Action {
    match action {
        RuleAction::Allow => Action::Allow,
        RuleAction::Deny => Action::Deny,
        RuleAction::Pass => Action::Pass,
    }
}

impl Lowered {
    /// What the programs have to know of the entries: bits of [`settings_flag`].
    #[must_use]
    pub fn flags(&self) -> u32 {
        let names_protocols = self.entries.keys().all(|key| key.protocol != PolicyKey::ANY_PROTOCOL);
        let passes = self.entries.values().any(|value| value.first.action == RuleAction::Pass);
        [
            (!self.cidrs.is_empty(), settings_flag::CIDR_RULES),
            (names_protocols, settings_flag::PROTOCOLS_NAMED),
            (passes, settings_flag::PASSES),
        ]
        .into_iter()
        .filter_map(|(holds, flag)| holds.then_some(flag))
        .sum()
    }

    /// What the map holds for a default.
    #[must_use]
    pub const fn default(&self, direction: Direction) -> LoweredDefault {
        match direction {
            Direction::Ingress => self.ingress,
            Direction::Egress => self.egress,
        }
    }

    /// The entries of `CLASSES`.
    pub fn classes(&self, bank: Bank) -> impl Iterator<Item = (ClassKey, ClassEntry)> {
        let number = number(bank);
        self.classes.iter().map(move |(identity, class)| {
            (ClassKey { bank: number, reserved: [0; 3], identity: *identity }, ClassEntry { class: *class })
        })
    }

    /// The entries of `CIDRS`.
    pub fn cidrs(&self, bank: Bank) -> impl Iterator<Item = (CidrKey, CidrEntry)> {
        let number = number(bank);
        self.cidrs.iter().map(move |((address, length), entry)| {
            let prefix_len = CidrKey::BASE_BITS + u32::from(*length);
            (CidrKey { prefix_len, bank: number, reserved: [0; 3], address: *address }, *entry)
        })
    }

    /// The entries of `POLICY`.
    pub fn policy(&self, bank: Bank) -> impl Iterator<Item = (PolicyKey, PolicyEntry)> {
        let number = number(bank);
        self.entries.iter().map(move |(key, value)| (key.banked(number), (*value).into()))
    }
}

const fn number(bank: Bank) -> u8 {
    match bank {
        Bank::A => 0,
        Bank::B => 1,
    }
}

impl EntryKey {
    fn banked(self, bank: u8) -> PolicyKey {
        PolicyKey {
            prefix_len: PolicyKey::BASE_BITS + u32::from(self.port_prefix_len),
            bank,
            direction: match self.direction {
                Direction::Ingress => 0,
                Direction::Egress => 1,
            },
            protocol: self.protocol,
            reserved: 0,
            class: self.class,
            port: Port::new(self.port),
            padding: [0; 2],
        }
    }
}

impl From<EntryValue> for PolicyEntry {
    fn from(value: EntryValue) -> Self {
        let EntryValue { first, below } = value;
        let (below_rank, below_rule) = below.map_or((Rank::NONE, 0), |below| (below.rank(), below.rule));
        Self { rank: first.rank(), rule: first.rule, below_rank, below_rule }
    }
}

impl Verdict<'_> {
    /// What [`Lowered::names`] calls the reason.
    #[must_use]
    pub fn name(&self, direction: Direction) -> String {
        match self.reason {
            Reason::Rule(rule) => rule.origin.to_string(),
            Reason::Default(default) => default.describe(direction),
        }
    }
}
