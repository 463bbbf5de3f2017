//! What becomes of flows when one policy takes the place of another: the flows that the two decide differently, found
//! by asking the specification at every boundary of their rules.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use datapath::Direction;
use ipnet::IpNet;

use crate::evaluate::{Flow, evaluate};
use crate::explain::range_text;
use crate::identity::Identity;
use crate::state::{Block, Peers, Policy, PortRange, Ports, Rule, RuleAction, canonical};

#[cfg(test)]
mod tests;

const ICMP: u8 = 1;
const ICMP_V6: u8 = 58;
/// Protocols that are asked about whether or not a rule names them.
const COMMON: [u8; 5] = [ICMP, 6, 17, ICMP_V6, 132];
/// Protocols of which one stands for all that no rule names.
const UNCOMMON: [u8; 3] = [253, 254, 47];

/// Flows that are decided differently.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Seen from the workload.
    pub direction: Direction,
    /// An address of the other end.
    pub remote: IpAddr,
    /// Its identity; `None` = no endpoint has the address.
    pub identity: Option<Identity>,
    /// How many endpoints are decided like this one; 0 for addresses that no endpoint has.
    pub endpoints: usize,
    /// Protocol and ports.
    pub ports: DifferentPorts,
    /// What the former policy says, and in whose name.
    pub before: (RuleAction, String),
    /// What the new one says.
    pub after: (RuleAction, String),
}

/// The ports that a difference is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DifferentPorts {
    /// Every protocol and port.
    All,
    /// Of one protocol; of ICMP the types.
    Range(PortRange),
    /// The protocols that no rule names.
    OtherProtocols,
}

/// The flows that `after` decides differently from `before`: with each kind of endpoint, and with each kind of address
/// that no endpoint has. Ends of one kind are those that no rule of either policy tells apart.
pub fn differences(
    before: &Policy,
    after: &Policy,
    endpoints: impl Iterator<Item = (IpAddr, Identity)>,
) -> Vec<Difference> {
    let mut found = Vec::new();
    if before == after {
        return found;
    }
    let endpoints: BTreeMap<IpAddr, Identity> =
        endpoints.map(|(address, identity)| (canonical(address), identity)).collect();
    for direction in [Direction::Ingress, Direction::Egress] {
        let rules: Vec<&Rule> =
            [before, after].into_iter().flat_map(|policy| &policy.direction(direction).rules).collect();
        let blocks: BTreeSet<&Block> = rules.iter().flat_map(|rule| blocks(&rule.peers)).collect();
        let ports = Boundaries::of(&rules);
        for (remote, like) in remotes(&blocks, &endpoints) {
            compare(&Pair { before, after, direction }, remote, like, &ports, &mut found);
        }
    }
    found
}

struct Pair<'a> {
    before: &'a Policy,
    after: &'a Policy,
    direction: Direction,
}

type Remote = (Option<Identity>, IpAddr);

fn blocks(peers: &Peers) -> &[Block] {
    match peers {
        Peers::Any => &[],
        Peers::Only { blocks, .. } => blocks,
    }
}

/// One remote of each kind, and how many endpoints are of that kind.
fn remotes(blocks: &BTreeSet<&Block>, endpoints: &BTreeMap<IpAddr, Identity>) -> Vec<(Remote, usize)> {
    let signature = |address: IpAddr| -> Vec<bool> {
        let within = blocks.iter().map(|block| block.contains(address));
        within.chain([address.is_ipv4()]).collect()
    };
    let mut kinds: BTreeMap<(Option<Identity>, Vec<bool>), (IpAddr, usize)> = BTreeMap::new();
    for (address, identity) in endpoints {
        kinds.entry((Some(*identity), signature(*address))).or_insert((*address, 0)).1 += 1;
    }
    let everywhere = ["0.0.0.0/0", "::/0"].into_iter().filter_map(|text| text.parse::<IpNet>().ok());
    let named = blocks.iter().flat_map(|block| block.except.iter().chain([&block.cidr])).copied();
    for net in everywhere.chain(named) {
        let candidates = [Some(net.network()), following(net.broadcast())];
        for address in candidates.into_iter().flatten().filter(|address| !endpoints.contains_key(address)) {
            kinds.entry((None, signature(address))).or_insert((address, 0));
        }
    }
    kinds.into_iter().map(|((identity, _), (address, like))| ((identity, address), like)).collect()
}

/// The next address; `None` after the last one.
fn following(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(v4) => v4.to_bits().checked_add(1).map(|bits| IpAddr::V4(bits.into())),
        IpAddr::V6(v6) => v6.to_bits().checked_add(1).map(|bits| IpAddr::V6(bits.into())),
    }
}

/// Where rules begin and end: ports of one protocol between two boundaries are decided alike.
struct Boundaries {
    protocols: BTreeMap<u8, BTreeSet<u16>>,
    /// A protocol that no rule names.
    other: Option<u8>,
}

impl Boundaries {
    fn of(rules: &[&Rule]) -> Self {
        let mut protocols: BTreeMap<u8, BTreeSet<u16>> =
            COMMON.into_iter().map(|protocol| (protocol, BTreeSet::from([0]))).collect();
        let ranges = rules.iter().flat_map(|rule| match &rule.ports {
            Ports::Any => &[],
            Ports::Only(ranges) => ranges.as_slice(),
        });
        for range in ranges {
            let starts = protocols.entry(range.protocol).or_insert_with(|| BTreeSet::from([0]));
            starts.insert(range.first);
            starts.extend(range.last.checked_add(1));
        }
        let other = UNCOMMON.into_iter().find(|protocol| !protocols.contains_key(protocol));
        Self { protocols, other }
    }

    /// The ranges of a protocol, each decided alike.
    fn ranges(&self) -> impl Iterator<Item = PortRange> {
        self.protocols.iter().flat_map(|(protocol, starts)| {
            let highest = if is_icmp(*protocol) { u16::from(u8::MAX) } else { u16::MAX };
            let ends = starts.iter().skip(1).map(|start| start - 1).chain([highest]);
            let pairs = starts.iter().zip(ends).filter(move |(first, _)| **first <= highest);
            pairs.map(|(first, last)| PortRange { protocol: *protocol, first: *first, last })
        })
    }
}

const fn is_icmp(protocol: u8) -> bool {
    matches!(protocol, ICMP | ICMP_V6)
}

fn compare(pair: &Pair<'_>, remote: Remote, like: usize, ports: &Boundaries, found: &mut Vec<Difference>) {
    let of_family = |protocol: u8| protocol != if remote.1.is_ipv4() { ICMP_V6 } else { ICMP };
    let others = ports.other.map(|protocol| (protocol, 0, DifferentPorts::OtherProtocols));
    let ranges = ports.ranges().filter(|range| of_family(range.protocol));
    let probes = ranges.map(|range| (range.protocol, range.first, DifferentPorts::Range(range)));
    let from = found.len();
    let mut everything = true;
    for (protocol, port, ports) in probes.chain(others) {
        let flow = Flow { direction: pair.direction, identity: remote.0, remote: remote.1, protocol, port };
        let verdict = |policy| {
            let verdict = evaluate(policy, &flow);
            (verdict.action, verdict.name(pair.direction))
        };
        let (before, after) = (verdict(pair.before), verdict(pair.after));
        if before.0 == after.0 {
            everything = false;
            continue;
        }
        let difference = Difference {
            direction: pair.direction,
            remote: remote.1,
            identity: remote.0,
            endpoints: like,
            ports,
            before,
            after,
        };
        match found.get_mut(from..).and_then(<[_]>::last_mut).filter(|last| last.goes_on_with(&difference)) {
            Some(last) => last.ports = joined(last.ports, ports),
            None => found.push(difference),
        }
    }
    let mut all = found.get(from..).unwrap_or_default().iter();
    let first = all.next();
    if everything && first.is_some_and(|first| all.all(|other| first.decides_as(other))) {
        found.truncate(from + 1);
        if let Some(last) = found.last_mut() {
            last.ports = DifferentPorts::All;
        }
    }
}

/// A range and the one behind it.
const fn joined(range: DifferentPorts, next: DifferentPorts) -> DifferentPorts {
    match (range, next) {
        (DifferentPorts::Range(range), DifferentPorts::Range(next)) => {
            DifferentPorts::Range(PortRange { last: next.last, ..range })
        }
        (range, _) => range,
    }
}

impl fmt::Display for DifferentPorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("every port"),
            Self::Range(range) => f.write_str(&range_text(*range)),
            Self::OtherProtocols => f.write_str("other protocols"),
        }
    }
}

impl Difference {
    fn decides_as(&self, other: &Self) -> bool {
        self.before == other.before && self.after == other.after
    }

    fn goes_on_with(&self, next: &Self) -> bool {
        match (self.ports, next.ports) {
            (DifferentPorts::Range(range), DifferentPorts::Range(next_range)) => {
                range.protocol == next_range.protocol
                    && range.last.checked_add(1) == Some(next_range.first)
                    && self.decides_as(next)
            }
            _ => false,
        }
    }
}
