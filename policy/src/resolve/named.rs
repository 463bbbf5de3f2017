//! Ports by name: ingress by the names of the subject, egress by those of each peer.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::directory::{Directory, Member};
use crate::identity::Identity;
use crate::rules::{PortMatch, PortSpec, RuleSpec};
use crate::state::{Block, Peers, PortRange, Ports, Rule, canonical};

/// The ports of an ingress rule for one subject. Where workloads of one identity give a name to different ports, the
/// name means none of them: their one policy would open each other's ports.
pub(super) fn ingress(
    spec: &RuleSpec,
    subject: Identity,
    directory: &Directory<'_>,
    warnings: &mut BTreeSet<String>,
) -> Ports {
    let PortSpec::Only(ports) = &spec.ports else { return Ports::Any };
    let members = directory.members.get(&subject).map_or(&[][..], Vec::as_slice);
    let mut ranges = BTreeSet::new();
    for port in ports {
        match port {
            PortMatch::Range(range) => {
                ranges.insert(*range);
            }
            PortMatch::Named { name, protocol } => {
                let subjects = members.iter().filter(|member| member.is_subject);
                match agreed(subjects, name, *protocol) {
                    Some(numbers) => ranges.extend(numbers.iter().map(|number| single(*protocol, *number))),
                    None => {
                        warnings.insert(format!(
                            "{}: workloads of identity {subject} disagree about port name {name:?}: it matches nothing",
                            spec.origin
                        ));
                    }
                }
            }
        }
    }
    Ports::Only(ranges.into_iter().collect())
}

/// The rules that an egress rule becomes: one for its ports by number, and one for each set of peers that give its
/// names the same ports. At least one, so that a rule that matches nothing can still be shown.
pub(super) fn egress(spec: &RuleSpec, peers: &Peers, directory: &Directory<'_>) -> Vec<Rule> {
    let rule = |peers, ports| Rule {
        origin: Arc::clone(&spec.origin),
        peers,
        ports,
        action: spec.action,
        precedence: spec.precedence,
    };
    let PortSpec::Only(ports) = &spec.ports else { return vec![rule(peers.clone(), Ports::Any)] };
    let mut ranges = Vec::new();
    let mut targets = BTreeMap::new();
    for port in ports {
        match port {
            PortMatch::Range(range) => ranges.push(*range),
            PortMatch::Named { name, protocol } => {
                targets_of(name, *protocol, peers, directory, &mut targets);
            }
        }
    }
    let mut rules = Vec::new();
    if !ranges.is_empty() || targets.is_empty() {
        rules.push(rule(peers.clone(), Ports::Only(ranges)));
    }
    let mut by_target: BTreeMap<Target, Vec<PortRange>> = BTreeMap::new();
    for (range, target) in targets {
        by_target.entry(target).or_default().push(range);
    }
    rules.extend(by_target.into_iter().map(|(target, ranges)| rule(target.into(), Ports::Only(ranges))));
    rules
}

/// Who has a port of the wanted name.
#[derive(Default, PartialEq, Eq, PartialOrd, Ord)]
struct Target {
    identities: BTreeSet<Identity>,
    addresses: BTreeSet<IpAddr>,
}

impl From<Target> for Peers {
    fn from(target: Target) -> Self {
        let blocks = target.addresses.into_iter().map(Block::of).collect();
        Self::Only { identities: Arc::new(target.identities), blocks }
    }
}

/// Adds, per port, the peers that give it the name: whole identities where all members agree, else addresses.
fn targets_of(
    name: &str,
    protocol: u8,
    peers: &Peers,
    directory: &Directory<'_>,
    targets: &mut BTreeMap<PortRange, Target>,
) {
    for (identity, members) in &directory.members {
        let whole = match peers {
            Peers::Any => true,
            Peers::Only { identities, .. } => identities.contains(identity),
        };
        if whole && let Some(numbers) = agreed(members.iter(), name, protocol) {
            for number in numbers {
                targets.entry(single(protocol, number)).or_default().identities.insert(*identity);
            }
            continue;
        }
        for member in members {
            let addresses: Vec<IpAddr> = member
                .addresses
                .iter()
                .copied()
                .map(canonical)
                .filter(|address| whole || in_blocks(peers, *address))
                .collect();
            if addresses.is_empty() {
                continue;
            }
            for number in numbers(member, name, protocol) {
                targets.entry(single(protocol, number)).or_default().addresses.extend(&addresses);
            }
        }
    }
}

fn in_blocks(peers: &Peers, address: IpAddr) -> bool {
    match peers {
        Peers::Any => true,
        Peers::Only { blocks, .. } => blocks.iter().any(|block| block.contains(address)),
    }
}

/// The ports that all members give the name; `None` where they disagree.
fn agreed<'a>(
    members: impl Iterator<Item = &'a Member<'a>>,
    name: &str,
    protocol: u8,
) -> Option<BTreeSet<u16>> {
    let mut all = members.map(|member| numbers(member, name, protocol));
    let first = all.next().unwrap_or_default();
    all.all(|numbers| numbers == first).then_some(first)
}

/// Several where containers of one pod use a name twice.
fn numbers(member: &Member<'_>, name: &str, protocol: u8) -> BTreeSet<u16> {
    let named = member.named_ports.iter().filter(|port| port.name == name && port.protocol == protocol);
    named.map(|port| port.number).collect()
}

const fn single(protocol: u8, number: u16) -> PortRange {
    PortRange { protocol, first: number, last: number }
}
