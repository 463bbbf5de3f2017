//! The entries of one class: port ranges flattened into prefixes, so that the longest prefix carries the winner.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use datapath::Direction;
use datapath::abi::PolicyKey;

use super::{DIRECTIONS, Decider, EntryKey, EntryValue, RuleSet};
use crate::evaluate::Tier;
use crate::state::{DirectionPolicy, Policy, PortRange, Ports, RuleAction};

/// How many bits a port has.
const BITS: u8 = 16;
/// One past the last port.
const END: u32 = 1 << BITS;

/// Adds the entries of a class whose peers these rules are about.
pub(super) fn entries(
    policy: &Policy,
    class: u32,
    set: &RuleSet,
    ids: &BTreeMap<String, u32>,
    entries: &mut BTreeMap<EntryKey, EntryValue>,
) {
    for direction in DIRECTIONS {
        let DirectionPolicy { default, rules } = policy.direction(direction);
        let id = |name: &str| ids.get(name).copied().unwrap_or_default();
        let chosen = set.range((direction, 0)..=(direction, usize::MAX));
        let mut table = Table::default();
        for (index, rule) in chosen.filter_map(|(_, index)| rules.get(*index).map(|rule| (*index, rule))) {
            // What the baseline passes on is left to the default, which allows.
            let decider = match (rule.tier(), rule.action) {
                (Tier::Baseline, RuleAction::Pass) => (RuleAction::Allow, id(&default.describe(direction))),
                (_, action) => (action, id(&rule.origin)),
            };
            let candidate = Candidate {
                precedence: rule.precedence,
                action: rule.action,
                order: Reverse(index),
                is_admin: rule.tier() == Tier::Admin,
                decider,
            };
            table.add(candidate, &rule.ports);
        }
        table.write(class, direction, entries);
    }
}

/// A rule's entry; the greatest decides: highest precedence, then the stricter action, then the first rule.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    precedence: u32,
    action: RuleAction,
    order: Reverse<usize>,
    is_admin: bool,
    /// What the entry says, and in whose name.
    decider: (RuleAction, u32),
}

impl Candidate {
    const fn decider(&self) -> Decider {
        let (action, rule) = self.decider;
        Decider { precedence: self.precedence, action, rule }
    }
}

/// What an entry says where these rules match, the one that decides last.
fn value<'a>(candidates: impl DoubleEndedIterator<Item = &'a Candidate> + Clone) -> Option<EntryValue> {
    let first = candidates.clone().next_back()?.decider();
    let below = candidates.rev().find(|candidate| !candidate.is_admin).map(Candidate::decider);
    Some(EntryValue { first, below })
}

/// The rules of one class and direction, by protocol.
#[derive(Default)]
struct Table {
    portless: BTreeSet<Candidate>,
    protocols: BTreeMap<u8, Vec<(PortRange, Candidate)>>,
}

impl Table {
    fn add(&mut self, candidate: Candidate, ports: &Ports) {
        match ports {
            Ports::Any => drop(self.portless.insert(candidate)),
            Ports::Only(ranges) => {
                // No packet carries the protocol number that stands for every protocol in the map.
                for range in ranges.iter().filter(|range| range.protocol != PolicyKey::ANY_PROTOCOL) {
                    self.protocols.entry(range.protocol).or_default().push((*range, candidate));
                }
            }
        }
    }

    fn write(self, class: u32, direction: Direction, entries: &mut BTreeMap<EntryKey, EntryValue>) {
        let key =
            |protocol, port, port_prefix_len| EntryKey { class, direction, protocol, port, port_prefix_len };
        if let Some(value) = value(self.portless.iter()) {
            entries.insert(key(PolicyKey::ANY_PROTOCOL, 0, 0), value);
        }
        for (protocol, ranges) in self.protocols {
            let segments = segments(&ranges);
            let mut prefixes = Vec::new();
            Node::of(&segments, 0, 0).choose(None, 0, 0, &mut prefixes);
            entries.extend(
                prefixes.into_iter().map(|(port, length, value)| (key(protocol, port, length), value)),
            );
        }
    }
}

/// Which value holds from a port on, until the next segment; `None` where no rule matches.
type Segments = BTreeMap<u32, Option<EntryValue>>;

fn segments(ranges: &[(PortRange, Candidate)]) -> Segments {
    let mut changes: BTreeMap<u32, Vec<(bool, Candidate)>> = BTreeMap::from([(0, Vec::new())]);
    for (range, candidate) in ranges.iter().filter(|(range, _)| range.first <= range.last) {
        changes.entry(u32::from(range.first)).or_default().push((true, *candidate));
        changes.entry(u32::from(range.last) + 1).or_default().push((false, *candidate));
    }
    let mut open: BTreeMap<Candidate, usize> = BTreeMap::new();
    let mut segments = Segments::new();
    for (port, changes) in changes.range(..END) {
        for (opens, candidate) in changes {
            let count = open.entry(*candidate).or_default();
            if *opens {
                *count += 1;
            } else {
                *count = count.saturating_sub(1);
            }
        }
        open.retain(|_, count| *count > 0);
        let value = value(open.keys());
        if segments.last_key_value().is_none_or(|(_, last)| *last != value) {
            segments.insert(*port, value);
        }
    }
    segments
}

/// A prefix of ports, with the values that an entry for it could carry at the least cost below: the construction of
/// optimal routing tables (Draves et al., 1999). A gap can only be left by writing no entry above it.
struct Node {
    values: BTreeSet<Option<EntryValue>>,
    halves: Option<Box<(Node, Node)>>,
}

impl Node {
    fn of(segments: &Segments, first: u32, length: u8) -> Self {
        let size = END >> length;
        let here = segments.range(..=first).next_back().and_then(|(_, value)| *value);
        if segments.range(first + 1..first + size).next().is_none() {
            return Self { values: BTreeSet::from([here]), halves: None };
        }
        let low = Self::of(segments, first, length + 1);
        let high = Self::of(segments, first + size / 2, length + 1);
        let values = if low.values.contains(&None) || high.values.contains(&None) {
            BTreeSet::from([None])
        } else {
            let both: BTreeSet<_> = &low.values & &high.values;
            if both.is_empty() { &low.values | &high.values } else { both }
        };
        Self { values, halves: Some(Box::new((low, high))) }
    }

    fn choose(
        &self,
        inherited: Option<EntryValue>,
        first: u32,
        length: u8,
        out: &mut Vec<(u16, u8, EntryValue)>,
    ) {
        let chosen =
            if self.values.contains(&inherited) { inherited } else { self.values.first().copied().flatten() };
        if chosen != inherited
            && let (Some(value), Ok(port)) = (chosen, u16::try_from(first))
        {
            out.push((port, length, value));
        }
        if let Some(halves) = &self.halves {
            let (low, high) = &**halves;
            low.choose(chosen, first, length + 1, out);
            high.choose(chosen, first + (END >> (length + 1)), length + 1, out);
        }
    }
}
