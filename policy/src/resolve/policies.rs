//! Policies of identities, put together of what each policy object contributes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::named;
use super::peers::PeerCache;
use crate::identity::Identity;
use crate::rules::{Entity, Peer, PeerSpec, PolicyObject, PortMatch, PortSpec, RuleSpec, Section};
use crate::state::{Default, DirectionPolicy, Peers, Policy, Rule, RuleAction};

/// What an object contributes to the policies of those that it selects, or may select: some labels cannot be read.
#[derive(Debug)]
pub(super) struct Contribution {
    pub(super) object: Arc<PolicyObject>,
    /// Those that it selects, or may select.
    pub(super) concerned: BTreeSet<Identity>,
    pub(super) warnings: BTreeSet<String>,
    /// Those of them that it selects certainly. To the others it only denies.
    selected: BTreeSet<Identity>,
    /// By whom it concerns; `None`: the object does not concern the direction.
    ingress: Option<BTreeMap<Identity, Vec<Rule>>>,
    /// The same for all of them.
    egress: Option<Vec<Rule>>,
}

/// Whether a direction of the object denies what no rule allows: where it says so, and to those of whom it is not known
/// whether it selects them.
const fn isolates(section: Option<&Section>, is_certain: bool) -> bool {
    match section {
        Some(section) => section.isolates || !is_certain,
        None => false,
    }
}

impl Contribution {
    /// What the object contributes in the directory's cluster.
    pub(super) fn of<'a>(object: &'a Arc<PolicyObject>, cache: &mut PeerCache<'a>) -> Self {
        let directory = cache.directory();
        let mut warnings: BTreeSet<String> =
            object.warnings.iter().map(|warning| format!("{}: {warning}", object.origin)).collect();
        let concerned = directory.register().may_be_governed(&object.subject);
        let certain = concerned.iter().filter(|id| directory.register().governs(&object.subject, **id));
        let selected: BTreeSet<Identity> = certain.copied().collect();
        let (mut ingress, mut egress) = (None, None);
        if !concerned.is_empty() {
            ingress = object
                .ingress
                .as_ref()
                .map(|section| ingress_of(&section.rules, &concerned, cache, &mut warnings));
            egress = object.egress.as_ref().map(|section| {
                let mut rules = Vec::new();
                for spec in &section.rules {
                    let peers = cache.peers(spec, &mut warnings);
                    rules.extend(named::egress(spec, &peers, directory));
                }
                rules
            });
        }
        Self { object: Arc::clone(object), concerned, warnings, selected, ingress, egress }
    }

    fn add_to(&self, identity: Identity, policy: &mut Policy) {
        let is_certain = self.selected.contains(&identity);
        if isolates(self.object.ingress.as_ref(), is_certain) {
            isolate(&mut policy.ingress, &self.object.origin);
        }
        if isolates(self.object.egress.as_ref(), is_certain) {
            isolate(&mut policy.egress, &self.object.origin);
        }
        let holds = |rule: &&Rule| is_certain || rule.action == RuleAction::Deny;
        if let Some(rules) = &self.ingress {
            let rules = rules.get(&identity).into_iter().flatten();
            policy.ingress.rules.extend(rules.filter(holds).cloned());
        }
        if let Some(rules) = &self.egress {
            policy.egress.rules.extend(rules.iter().filter(holds).cloned());
        }
    }
}

/// The policy of an identity as an endpoint of the mesh, and as a host if any object is about that. Contributions come
/// in the order of their objects' names, so that rules stand in the order of their origins.
pub(super) fn policies_of<'a>(
    identity: Identity,
    contributions: impl Iterator<Item = &'a Contribution>,
) -> (Policy, Option<Policy>) {
    let (mut policy, mut of_host) = (Policy::unrestricted(), None);
    for contribution in contributions.filter(|contribution| contribution.concerned.contains(&identity)) {
        if contribution.object.subject.is_hosts() {
            contribution.add_to(identity, of_host.get_or_insert_with(Policy::unrestricted));
        } else {
            contribution.add_to(identity, &mut policy);
        }
    }
    (policy, of_host)
}

/// Whether what the object contributes depends on the names of ports.
pub(super) fn names_ports(object: &PolicyObject) -> bool {
    rules_of(object).any(|rule| match &rule.ports {
        PortSpec::Any => false,
        PortSpec::Only(ports) => ports.iter().any(|port| matches!(port, PortMatch::Named { .. })),
    })
}

/// Whether what the object contributes depends on Services or groups of blocks.
pub(super) fn names_sets(object: &PolicyObject) -> bool {
    rules_of(object).any(|rule| match &rule.peers {
        PeerSpec::Any => false,
        PeerSpec::Only(peers) => peers.iter().any(|peer| {
            matches!(peer, Peer::Service(_) | Peer::CidrGroups { .. } | Peer::Entity(Entity::KubeApiserver))
        }),
    })
}

fn rules_of(object: &PolicyObject) -> impl Iterator<Item = &RuleSpec> {
    [&object.ingress, &object.egress].into_iter().flatten().flat_map(|section| &section.rules)
}

fn ingress_of<'a>(
    rules: &'a [RuleSpec],
    subjects: &BTreeSet<Identity>,
    cache: &mut PeerCache<'a>,
    warnings: &mut BTreeSet<String>,
) -> BTreeMap<Identity, Vec<Rule>> {
    let mut by_subject: BTreeMap<Identity, Vec<Rule>> =
        subjects.iter().map(|identity| (*identity, Vec::new())).collect();
    for spec in rules {
        let peers: Peers = cache.peers(spec, warnings);
        for (subject, rules) in &mut by_subject {
            let ports = named::ingress(spec, *subject, cache.directory(), warnings);
            rules.push(Rule {
                origin: Arc::clone(&spec.origin),
                peers: peers.clone(),
                ports,
                action: spec.action,
                precedence: spec.precedence,
            });
        }
    }
    by_subject
}

fn isolate(direction: &mut DirectionPolicy, origin: &str) {
    match &mut direction.default {
        Default::Deny { by } => by.push(origin.to_owned()),
        Default::Allow => direction.default = Default::Deny { by: vec![origin.to_owned()] },
    }
}
