//! Peers of rules as sets of identities, each set made once and shared.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::directory::Directory;
use crate::identity::Identity;
use crate::rules::{Peer, PeerSpec};
use crate::selector::Selector;
use crate::state::{Block, Peers};

/// The identities behind each union of selectors that was asked for.
pub(super) struct PeerCache<'a> {
    directory: &'a Directory<'a>,
    sets: BTreeMap<BTreeSet<&'a Selector>, Arc<BTreeSet<Identity>>>,
}

impl<'a> PeerCache<'a> {
    pub(super) const fn new(directory: &'a Directory<'a>) -> Self {
        Self { directory, sets: BTreeMap::new() }
    }

    pub(super) const fn directory(&self) -> &'a Directory<'a> {
        self.directory
    }

    pub(super) fn peers(&mut self, spec: &'a PeerSpec) -> Peers {
        let PeerSpec::Only(peers) = spec else { return Peers::Any };
        let mut selectors = BTreeSet::new();
        let mut blocks: Vec<Block> = Vec::new();
        for peer in peers {
            match peer {
                Peer::Endpoints(selector) => {
                    selectors.insert(selector);
                }
                Peer::Block(block) => blocks.push(block.clone()),
            }
        }
        blocks.sort();
        blocks.dedup();
        Peers::Only { identities: self.union(selectors), blocks }
    }

    fn union(&mut self, selectors: BTreeSet<&'a Selector>) -> Arc<BTreeSet<Identity>> {
        if let Some(known) = self.sets.get(&selectors) {
            return Arc::clone(known);
        }
        let union: BTreeSet<Identity> =
            selectors.iter().flat_map(|selector| self.directory.select(selector)).collect();
        let union = Arc::new(union);
        self.sets.insert(selectors, Arc::clone(&union));
        union
    }
}
