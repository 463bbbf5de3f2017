//! Ports by name: ingress by the names of the subject, egress by those of each peer.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::directory::Directory;
use crate::identity::Identity;
use crate::rules::{PortMatch, PortSpec, RuleSpec};
use crate::state::{Block, Peers, PortRange, Ports, Reach, Rule, RuleAction, canonical};

static NONE: BTreeSet<u16> = BTreeSet::new();

/// The ports of an ingress rule for one subject. Where workloads of one identity give a name to different ports, the
/// name means none of them: their one policy would open each other's ports. What denies means all of them.
pub(super) fn ingress(
    spec: &RuleSpec,
    subject: Identity,
    directory: &Directory<'_>,
    warnings: &mut BTreeSet<String>,
) -> Ports {
    let PortSpec::Only(ports) = &spec.ports else { return Ports::Any };
    let population = directory.population(subject);
    let mut ranges = BTreeSet::new();
    for port in ports {
        match port {
            PortMatch::Range(range) => {
                ranges.insert(*range);
            }
            PortMatch::Named { name, protocol } => {
                let holders = directory.holders(name, *protocol).and_then(|holders| holders.get(&subject));
                let Some(holders) = holders else { continue };
                let numbers = holders.agreed_by_subjects(population).unwrap_or_else(|| {
                    let denies = spec.action == RuleAction::Deny;
                    let what = if denies { "all of their ports" } else { "nothing" };
                    warnings.insert(format!(
                        "{}: workloads of identity {subject} disagree about port name {name:?}: it matches {what}",
                        spec.origin
                    ));
                    if denies { holders.any_of_subjects() } else { &NONE }
                });
                ranges.extend(numbers.iter().map(|number| single(*protocol, *number)));
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
    for (identity, holders) in directory.holders(name, protocol).into_iter().flatten() {
        let whole = match peers {
            Peers::Any => true,
            Peers::Only { identities, .. } => identities.contains(identity),
        };
        if whole && let Some(numbers) = holders.agreed_by_members(directory.population(*identity)) {
            for number in numbers {
                targets.entry(single(protocol, *number)).or_default().identities.insert(*identity);
            }
            continue;
        }
        for (addresses, numbers) in &holders.each {
            let addresses = addresses.iter().copied().map(canonical);
            let addresses: Vec<IpAddr> =
                addresses.filter(|address| whole || in_blocks(peers, *address)).collect();
            if addresses.is_empty() {
                continue;
            }
            for number in numbers {
                targets.entry(single(protocol, *number)).or_default().addresses.extend(&addresses);
            }
        }
    }
}

/// Whether an endpoint of the mesh is meant by its address.
fn in_blocks(peers: &Peers, address: IpAddr) -> bool {
    match peers {
        Peers::Any => true,
        Peers::Only { blocks, .. } => {
            blocks.iter().any(|block| block.reach == Reach::Everyone && block.contains(address))
        }
    }
}

const fn single(protocol: u8, number: u16) -> PortRange {
    PortRange { protocol, first: number, last: number }
}
