//! Which transit nodes count as silent. Pure: rounds of questions come in, no clock.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::kernel::{Silent, TransitNodes};

/// So many rounds in a row without an answer make a node silent: with a round each second, and one that had begun, at
/// most four seconds.
const LOST: u8 = 3;
/// So many with an answer bring it back: one that comes and goes is not followed each time.
const BACK: u8 = 3;

/// What is known of the transit nodes.
#[derive(Debug, Default)]
pub(super) struct Judge {
    /// By their tunnel endpoints: a node has a mesh address of each family.
    nodes: BTreeMap<Arc<Vec<IpAddr>>, Node>,
    /// What an earlier process knew of nodes that were not named yet.
    inherited: BTreeSet<IpAddr>,
}

#[derive(Debug)]
struct Node {
    /// Where it is asked.
    address: IpAddr,
    is_silent: bool,
    /// Rounds in a row that say the contrary.
    against: u8,
}

impl Judge {
    /// Begins with what an earlier process knew.
    pub(super) fn knowing(silent: &Silent) -> Self {
        Self { nodes: BTreeMap::new(), inherited: silent.iter().copied().collect() }
    }

    /// These are the nodes now; what is known of those that stay is kept.
    pub(super) fn follow(&mut self, nodes: &TransitNodes) {
        let mut known = std::mem::take(&mut self.nodes);
        for (address, tunnels) in nodes.iter().rev() {
            // From the last: where a node has several addresses, the first one is asked.
            let before = known.remove(tunnels).or_else(|| self.nodes.remove(tunnels));
            let inherited = || tunnels.iter().any(|tunnel| self.inherited.contains(tunnel));
            let node =
                before.unwrap_or_else(|| Node { address: *address, is_silent: inherited(), against: 0 });
            self.nodes.insert(Arc::clone(tunnels), Node { address: *address, ..node });
        }
        if !nodes.is_empty() {
            self.inherited.clear();
        }
    }

    /// Who is to be asked.
    pub(super) fn questions(&self) -> Vec<IpAddr> {
        self.nodes.values().map(|node| node.address).collect()
    }

    /// A round is over.
    pub(super) fn take(&mut self, answered: &BTreeSet<IpAddr>) {
        for node in self.nodes.values_mut() {
            let says_contrary = answered.contains(&node.address) == node.is_silent;
            node.against = if says_contrary { node.against + 1 } else { 0 };
            if node.against >= if node.is_silent { BACK } else { LOST } {
                (node.is_silent, node.against) = (!node.is_silent, 0);
            }
        }
    }

    /// The tunnel endpoints of those that do not answer. If none does, nothing is known of any: the fault is rather here.
    pub(super) fn silent(&self) -> Silent {
        if self.nodes.is_empty() {
            return Arc::new(self.inherited.clone());
        }
        if self.nodes.values().all(|node| node.is_silent) {
            return Silent::default();
        }
        let silent = self.nodes.iter().filter(|(_, node)| node.is_silent);
        Arc::new(silent.flat_map(|(tunnels, _)| tunnels.iter().copied()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// A dual-stack node and one of IPv4.
    fn two() -> TransitNodes {
        let one = Arc::new(vec![ip("192.0.2.1"), ip("2001:db8::1")]);
        let other = Arc::new(vec![ip("192.0.2.2")]);
        Arc::new(BTreeMap::from([
            (ip("10.9.0.1"), one.clone()),
            (ip("fd00::1"), one),
            (ip("10.9.0.2"), other),
        ]))
    }

    fn silent(judge: &Judge) -> Vec<IpAddr> {
        judge.silent().iter().copied().collect()
    }

    fn rounds(judge: &mut Judge, count: u8, answered: &[&str]) {
        for _ in 0..count {
            judge.take(&answered.iter().copied().map(ip).collect());
        }
    }

    #[test]
    fn three_rounds_without_an_answer_make_a_node_silent_and_three_with_one_bring_it_back() {
        let mut judge = Judge::default();
        judge.follow(&two());
        assert_eq!(judge.questions(), [ip("10.9.0.1"), ip("10.9.0.2")]);
        rounds(&mut judge, 2, &["10.9.0.2"]);
        assert!(silent(&judge).is_empty());
        rounds(&mut judge, 1, &["10.9.0.2"]);
        assert_eq!(silent(&judge), [ip("192.0.2.1"), ip("2001:db8::1")]);
        rounds(&mut judge, 2, &["10.9.0.1", "10.9.0.2"]);
        rounds(&mut judge, 1, &["10.9.0.2"]);
        rounds(&mut judge, 2, &["10.9.0.1", "10.9.0.2"]);
        assert_eq!(silent(&judge).len(), 2, "it comes and goes");
        rounds(&mut judge, 1, &["10.9.0.1", "10.9.0.2"]);
        assert!(silent(&judge).is_empty());
    }

    #[test]
    fn where_none_answers_none_is_avoided() {
        let mut judge = Judge::default();
        judge.follow(&two());
        rounds(&mut judge, 9, &[]);
        assert!(silent(&judge).is_empty());
        rounds(&mut judge, 3, &["10.9.0.1"]);
        assert_eq!(silent(&judge), [ip("192.0.2.2")]);
    }

    #[test]
    fn what_an_earlier_process_knew_holds_until_it_answers() {
        let before = Arc::new(BTreeSet::from([ip("192.0.2.2")]));
        let mut judge = Judge::knowing(&before);
        assert_eq!(silent(&judge), [ip("192.0.2.2")], "before the nodes are known");
        judge.follow(&two());
        rounds(&mut judge, 2, &["10.9.0.1", "10.9.0.2"]);
        assert_eq!(silent(&judge), [ip("192.0.2.2")]);
        rounds(&mut judge, 1, &["10.9.0.1", "10.9.0.2"]);
        assert!(silent(&judge).is_empty());
    }

    #[test]
    fn a_node_that_goes_is_forgotten_and_one_that_stays_is_not() {
        let mut judge = Judge::default();
        judge.follow(&two());
        rounds(&mut judge, 3, &["10.9.0.1"]);
        let third = (ip("10.9.0.3"), Arc::new(vec![ip("192.0.2.3")]));
        let more: BTreeMap<_, _> =
            two().iter().map(|(a, t)| (*a, t.clone())).chain([third.clone()]).collect();
        judge.follow(&Arc::new(more));
        assert_eq!(silent(&judge), [ip("192.0.2.2")]);
        judge.follow(&Arc::new(BTreeMap::from([third])));
        assert!(silent(&judge).is_empty());
    }
}
