//! What was published, and what follows from the documents alone: which state a host has under which number, what its
//! packets carry, and what may be missing for how long. Reads no code of the sessions.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use gateway::index::{Compiled, LONGEST_PHASE};
use gateway::store::Workload;
use policy::identity::Identity;
use policy::pages::Pages;
use policy::state::{Endpoint, EndpointKind, NodeState, Peers, Policy};
use vm_agent::kernel::{Reading, Tag};

/// A state that was published.
#[derive(Clone, Debug)]
pub(super) struct Record {
    /// The state.
    pub compiled: Arc<Compiled>,
    /// Milliseconds since the beginning.
    pub at: u64,
    /// The machines that were without a session for so long that nobody waits for them.
    pub given_up: BTreeSet<usize>,
    /// The gateway has started again while two pods had one address.
    pub is_contested: bool,
}

/// Everything that was published.
#[derive(Clone, Debug, Default)]
pub(super) struct Truth {
    /// More than one under a number where the store was restored from a backup.
    records: BTreeMap<Tag, Vec<Record>>,
}

/// What receivers make of the numbers in packets from an address.
type Numbers = (Identity, Option<Identity>, Identity);

impl Truth {
    /// A state is published.
    pub(super) fn publish(&mut self, tag: Tag, record: Record) {
        self.records.entry(tag).or_default().push(record);
    }

    /// What was published last under this number.
    fn record(&self, tag: Tag) -> Option<&Record> {
        self.records.get(&tag).and_then(|records| records.last())
    }

    /// Whether a workload has a part in some state of that number.
    #[must_use]
    pub(super) fn is_for(&self, tag: Tag, workload: &Workload) -> bool {
        let has = |record: &Record| record.compiled.nodes.contains_key(&workload.name);
        self.records.get(&tag).is_some_and(|records| records.iter().any(has))
    }

    /// The states that a workload may have under a number.
    pub(super) fn states(&self, tag: Tag, workload: &Workload) -> impl Iterator<Item = NodeState> {
        let records = self.records.get(&tag).into_iter().flatten();
        records.filter_map(|record| node_state(&record.compiled, workload))
    }

    /// Whether each of two hosts accepts what the other one sends, with the generations that their kernels run.
    pub(super) fn check_numbers(
        &self,
        one: (usize, Tag, &Workload),
        other: (usize, Tag, &Workload),
    ) -> Result<()> {
        if one.1.incarnation != other.1.incarnation {
            return Ok(());
        }
        for (sender, receiver) in [(one, other), (other, one)] {
            let (told, known) = (self.record(sender.1), self.record(receiver.1));
            let (Some(told), Some(known)) = (told, known) else { continue };
            for (address, mark) in written(&told.compiled, sender.2) {
                let Some(endpoint) = known.compiled.state.endpoints.get(&address) else { continue };
                let (identity, previous, expected) = numbers(endpoint);
                if [Some(identity), previous, Some(expected)].contains(&Some(mark)) {
                    continue;
                }
                ensure!(
                    self.is_excused(address, sender, receiver),
                    "machine {} at generation {} sends from {address} with {mark:?}, which machine {} at \
                     generation {} does not accept: {endpoint:?}",
                    sender.0,
                    sender.1.counter,
                    receiver.0,
                    receiver.1.counter,
                );
            }
        }
        Ok(())
    }

    /// Whether the one that is behind was silent for as long as anybody waits, or the address is another one's.
    fn is_excused(
        &self,
        address: IpAddr,
        one: (usize, Tag, &Workload),
        other: (usize, Tag, &Workload),
    ) -> bool {
        let (behind, ahead) = if one.1 < other.1 { (one, other) } else { (other, one) };
        let Some(old) = self.record(behind.1) else { return true };
        let told = |record: &Record| record.compiled.state.endpoints.get(&address).cloned();
        let Some(before) = told(old) else { return true };
        let missed =
            self.records.range((std::ops::Bound::Excluded(behind.1), std::ops::Bound::Included(ahead.1)));
        let mut first = None;
        for record in missed.filter_map(|(_, records)| records.last()) {
            let is_another = told(record).is_none_or(|now| now.owner != before.owner);
            if is_another || record.is_contested || record.given_up.contains(&behind.0) {
                return true;
            }
            if told(record).is_some_and(|now| numbers(&now) != numbers(&before)) {
                let since = *first.get_or_insert(record.at);
                if u128::from(record.at.saturating_sub(since)) >= LONGEST_PHASE.as_millis() {
                    return true;
                }
            }
        }
        false
    }

    /// Whether packets read what was published last under a number.
    #[must_use]
    pub(super) fn runs_newest(&self, tag: Tag, workload: &Workload, read: Option<&Reading>) -> bool {
        let state = self.record(tag).and_then(|record| node_state(&record.compiled, workload));
        state.is_some_and(|state| Some(&Reading::of(&state)) == read)
    }

    /// Whether nothing of a relabel is left in a state.
    pub(super) fn check_settled(&self, tag: Tag) -> Result<()> {
        let record = self.record(tag).context("a published state")?;
        for (address, endpoint) in &record.compiled.state.endpoints {
            let settled = endpoint.previous.is_none() && endpoint.mark == endpoint.identity;
            ensure!(settled, "{address} is still being relabelled: {endpoint:?}");
        }
        Ok(())
    }
}

fn numbers(endpoint: &Endpoint) -> Numbers {
    (endpoint.identity, endpoint.previous, endpoint.mark)
}

/// The numbers that a host writes: for its own addresses, or for the pods behind it.
fn written(compiled: &Compiled, workload: &Workload) -> Vec<(IpAddr, Identity)> {
    let Some(settings) = compiled.nodes.get(&workload.name) else { return Vec::new() };
    let mut all: Vec<_> = settings.addresses.iter().map(|address| (*address, settings.mark)).collect();
    if settings.role.is_cluster_node() {
        let behind_it = |endpoint: &Endpoint| match &endpoint.kind {
            EndpointKind::Pod { behind } => behind.contains(&settings.workload),
            EndpointKind::Workload | EndpointKind::Transit | EndpointKind::Node => false,
        };
        let pods = compiled.state.endpoints.iter().filter(|(_, endpoint)| behind_it(endpoint));
        all.extend(pods.map(|(address, endpoint)| (*address, endpoint.mark)));
    }
    all
}

/// What a workload is told of a state, by the table of audiences.
fn node_state(compiled: &Compiled, workload: &Workload) -> Option<NodeState> {
    let settings = compiled.nodes.get(&workload.name)?;
    let state = &compiled.state;
    let policy = state
        .policies
        .get(&settings.identity)
        .map_or_else(Policy::unrestricted, |policy| Policy::clone(policy));
    let mut mentioned = BTreeSet::from([settings.identity]);
    for rule in policy.ingress.rules.iter().chain(&policy.egress.rules) {
        if let Peers::Only { identities, .. } = &rule.peers {
            mentioned.extend(identities.iter().copied());
        }
    }
    let namespace = workload.name.namespace.as_str();
    let known = state.identities.iter().filter(|(identity, labels)| {
        identity.is_reserved() || mentioned.contains(identity) || labels.namespace() == Some(namespace)
    });
    let identities: Pages<_, _> =
        known.map(|(identity, labels)| (*identity, Arc::from(labels.to_string()))).collect();
    let named = |endpoint: &Endpoint| {
        let mut endpoint = endpoint.clone();
        endpoint.owner = endpoint.owner.filter(|_| identities.contains_key(&endpoint.identity));
        endpoint
    };
    let endpoints = state.endpoints.iter().map(|(address, endpoint)| (*address, named(endpoint))).collect();
    let settings = settings.as_ref().clone();
    Some(NodeState { endpoints, identities, policy: Arc::new(policy), settings })
}
