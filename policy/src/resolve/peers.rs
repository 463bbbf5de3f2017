//! Peers of rules as sets of identities and blocks; each union of selectors is made once and shared.

mod named;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::directory::Directory;
use crate::facts::Facts;
use crate::identity::Identity;
use crate::labels;
use crate::rules::{Entity, Peer, PeerSpec, RuleSpec};
use crate::selector::{Requirement, Selector};
use crate::state::{Block, Peers, Reach, RuleAction};

/// The identities behind each union of selectors that was asked for; those of rules that deny apart.
pub(super) struct PeerCache<'a> {
    facts: &'a Facts,
    directory: &'a Directory<'a>,
    sets: BTreeMap<(bool, BTreeSet<Selector>), Arc<BTreeSet<Identity>>>,
}

/// What the peers of a rule come to.
#[derive(Default)]
struct Found {
    selectors: BTreeSet<Selector>,
    /// Reserved ones, which no selector of endpoints reaches.
    identities: BTreeSet<Identity>,
    blocks: Vec<Block>,
}

impl<'a> PeerCache<'a> {
    pub(super) const fn new(facts: &'a Facts, directory: &'a Directory<'a>) -> Self {
        Self { facts, directory, sets: BTreeMap::new() }
    }

    pub(super) const fn directory(&self) -> &'a Directory<'a> {
        self.directory
    }

    /// The peers of a rule. What cannot be told now is nobody, with a warning.
    pub(super) fn peers(&mut self, rule: &RuleSpec, warnings: &mut BTreeSet<String>) -> Peers {
        let PeerSpec::Only(peers) = &rule.peers else { return Peers::Any };
        let mut found = Found::default();
        for peer in peers {
            let missing = self.add(peer, rule.action, &mut found);
            warnings.extend(missing.map(|what| format!("{}: {what}", rule.origin)));
        }
        let Found { selectors, identities, mut blocks } = found;
        blocks.sort();
        blocks.dedup();
        let mut union = self.union(selectors, rule.action == RuleAction::Deny);
        if !identities.is_empty() {
            union = Arc::new(union.iter().chain(&identities).copied().collect());
        }
        Peers::Only { identities: union, blocks }
    }

    /// Adds one peer; returns what is missing to know it.
    fn add(&self, peer: &Peer, action: RuleAction, found: &mut Found) -> Option<String> {
        match peer {
            Peer::Endpoints(selector) => {
                // Transit nodes are no endpoints, and are chosen by their own label.
                if selector.labels().any(|label| label == labels::REMOTE_NODE)
                    && selector.matches(&crate::labels::Labels::of_remote_node())
                {
                    found.identities.insert(Identity::REMOTE_NODE);
                }
                found.selectors.insert(selector.clone());
                None
            }
            Peer::Block(block) => {
                found.blocks.push(block.clone());
                None
            }
            Peer::Entity(entity) => self.add_entity(*entity, found),
            Peer::Nodes(selector) => add_nodes(selector, action, found),
            Peer::Service(service) => named::add_services(self.facts, service, found),
            Peer::CidrGroups { groups, except } => named::add_groups(self.facts, groups, except, found),
        }
    }

    fn add_entity(&self, entity: Entity, found: &mut Found) -> Option<String> {
        let nodes = [Identity::HOST, Identity::REMOTE_NODE];
        match entity {
            // Where `all` stands, the rule is for every peer.
            Entity::All | Entity::Nobody => {}
            Entity::World => found.blocks.extend([every_v4(), every_v6()]),
            Entity::WorldV4 => found.blocks.push(every_v4()),
            Entity::WorldV6 => found.blocks.push(every_v6()),
            Entity::Cluster => {
                found.identities.extend(nodes);
                let own = Requirement::is(labels::CLUSTER, &self.facts.cluster);
                found.selectors.insert(Selector::default().and(own));
            }
            Entity::ClusterMesh => {
                found.identities.extend(nodes);
                found.selectors.insert(Selector::default().and(Requirement::exists(labels::CLUSTER)));
            }
            Entity::Host => drop(found.identities.insert(Identity::HOST)),
            Entity::RemoteNode => drop(found.identities.insert(Identity::REMOTE_NODE)),
            Entity::KubeApiserver => return named::add_api_server(self.facts, found),
        }
        None
    }

    fn union(&mut self, selectors: BTreeSet<Selector>, denies: bool) -> Arc<BTreeSet<Identity>> {
        let key = (denies, selectors);
        if let Some(known) = self.sets.get(&key) {
            return Arc::clone(known);
        }
        let union: BTreeSet<Identity> =
            key.1.iter().flat_map(|selector| self.directory.register().select(selector, denies)).collect();
        let union = Arc::new(union);
        self.sets.insert(key, Arc::clone(&union));
        union
    }
}

/// Labels of nodes are not known: only the selector of all of them says whom it means. What is denied to some of them is
/// denied to all.
fn add_nodes(selector: &Selector, action: RuleAction, found: &mut Found) -> Option<String> {
    let is_narrow = selector.labels().next().is_some();
    if action == RuleAction::Deny || !is_narrow {
        found.identities.insert(Identity::REMOTE_NODE);
    }
    let who = if action == RuleAction::Deny { "all" } else { "none" };
    is_narrow.then(|| format!("labels of nodes are not known: {selector} matches {who}"))
}

fn every_v4() -> Block {
    outside(IpNet::V4(Ipv4Net::default()), Vec::new())
}

fn every_v6() -> Block {
    outside(IpNet::V6(Ipv6Net::default()), Vec::new())
}

const fn outside(cidr: IpNet, except: Vec<IpNet>) -> Block {
    Block { cidr, except, reach: Reach::Outside }
}
