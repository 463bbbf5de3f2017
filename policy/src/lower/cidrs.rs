//! Blocks flattened so that the longest prefix of an address tells every rule whose blocks contain it: a prefix's set
//! is that of the prefix around it, plus the blocks that begin here, minus those with a hole here. Some blocks mean only
//! addresses that no endpoint has: a prefix has a set for those, and one for the others.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

use datapath::Address;
use ipnet::IpNet;

use super::{RuleRef, RuleSet, rules};
use crate::state::{Block, Peers, Policy, Reach, canonical_block};

/// The v4-mapped addresses, `::ffff:0:0/96`: IPv4 in the map, and no part of any IPv6 block.
const MAPPED: Ipv6Addr = Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0);
const MAPPED_BITS: u8 = 96;

/// The rules about the addresses of a prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sets {
    /// About those that an endpoint has.
    pub(super) everyone: RuleSet,
    /// About those that none has: these too.
    pub(super) outside: RuleSet,
}

/// Block → the rules about it; empty sets are a hole.
pub(super) fn by_block(policy: &Policy) -> BTreeMap<(Address, u8), Sets> {
    let mut v4 = Edges::new();
    let mut v6 = Edges::new();
    for (rule, spec) in rules(policy) {
        let Peers::Only { blocks, .. } = &spec.peers else { continue };
        for (index, block) in blocks.iter().enumerate() {
            let family = if canonical_block(block.cidr).addr().is_ipv4() { &mut v4 } else { &mut v6 };
            add(family, (rule, index, block.reach), block);
        }
    }
    let mut sets = flatten(&v6);
    let around_v4 = sets
        .iter()
        .filter(|(net, _)| net.contains(&IpAddr::V6(MAPPED)))
        .max_by_key(|(net, _)| net.prefix_len())
        .is_some_and(|(_, sets)| !sets.outside.is_empty());
    sets.extend(flatten(&v4));
    let mut by_block: BTreeMap<(Address, u8), Sets> =
        sets.into_iter().map(|(net, sets)| (key(net), sets)).collect();
    if around_v4 {
        by_block.entry((Address::from(IpAddr::V6(MAPPED)), MAPPED_BITS)).or_default();
    }
    by_block
}

fn key(net: IpNet) -> (Address, u8) {
    let mapped = if net.addr().is_ipv4() { MAPPED_BITS } else { 0 };
    (Address::from(net.network()), net.prefix_len() + mapped)
}

/// A block of a rule.
type BlockRef = (RuleRef, usize, Reach);

/// The blocks that begin at a prefix, and those with a hole there.
#[derive(Default)]
struct Edge {
    begins: Vec<BlockRef>,
    ends: Vec<BlockRef>,
}

/// By prefix: a prefix sorts after those around it.
type Edges = BTreeMap<IpNet, Edge>;

fn add(edges: &mut Edges, reference: BlockRef, block: &Block) {
    let cidr = canonical_block(block.cidr);
    let holes: Vec<IpNet> = block.except.iter().copied().map(canonical_block).collect();
    if holes.iter().any(|hole| hole.contains(&cidr)) {
        return;
    }
    edges.entry(cidr).or_default().begins.push(reference);
    for hole in holes.into_iter().filter(|hole| cidr.contains(hole)) {
        edges.entry(hole).or_default().ends.push(reference);
    }
}

/// Leaves out prefixes that say the same as the prefix around them.
fn flatten(edges: &Edges) -> BTreeMap<IpNet, Sets> {
    let mut flat = BTreeMap::new();
    let mut around: Vec<(IpNet, BTreeSet<BlockRef>)> = Vec::new();
    for (net, edge) in edges {
        while around.last().is_some_and(|(outer, _)| !outer.contains(net)) {
            around.pop();
        }
        let outer = around.last().map(|(_, open)| open.clone()).unwrap_or_default();
        let mut open = outer.clone();
        open.extend(edge.begins.iter().copied());
        for hole in &edge.ends {
            open.remove(hole);
        }
        let set = rules_of(&open);
        if set != rules_of(&outer) {
            flat.insert(*net, set);
        }
        around.push((*net, open));
    }
    flat
}

fn rules_of(open: &BTreeSet<BlockRef>) -> Sets {
    let everyone = open.iter().filter(|(.., reach)| *reach == Reach::Everyone);
    Sets {
        everyone: everyone.map(|(rule, ..)| *rule).collect(),
        outside: open.iter().map(|(rule, ..)| *rule).collect(),
    }
}
