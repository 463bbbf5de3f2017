//! The compiled mesh as enrollment, administration and metrics see it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use policy::facts::Facts;
use policy::state::{Default as Verdict, NodeSettings, Policy};
use proto::v1::{NicReport, ProbeReport};
use telemetry::health::Health;
use tokio::sync::{mpsc, oneshot, watch};

use crate::index::{Compiled, Index};
use crate::manifest::Group;
use crate::mesh_view::{
    Backend, ConditionView, Declared, MeshView, PENDING, RejectedObject, Summary, WorkloadView,
};
use crate::session::{Feed, Registry, SessionStatus};
use crate::source::catalog::Catalog;
use crate::source::{Instead, Rejected};
use crate::store::{Target, Workload, WorkloadName};

/// The compiled mesh, always the latest.
#[derive(Debug)]
pub struct Mesh {
    feed: watch::Receiver<Option<Arc<Feed>>>,
    overview: watch::Receiver<Arc<Overview>>,
    registry: Arc<Registry>,
    /// Who wants to know the facts.
    inquiries: mpsc::UnboundedSender<oneshot::Sender<Facts>>,
}

/// What the sessions do not know.
#[derive(Debug, Default)]
pub(super) struct Overview {
    groups: BTreeMap<(String, String), Arc<Group>>,
    declared: BTreeMap<(String, String), Declared>,
    policies: usize,
    rejected: Vec<RejectedObject>,
    warnings: Vec<String>,
    /// Why the source cannot be read, or nothing new comes of it.
    trouble: Option<String>,
}

impl Mesh {
    pub(super) const fn new(
        feed: watch::Receiver<Option<Arc<Feed>>>,
        overview: watch::Receiver<Arc<Overview>>,
        registry: Arc<Registry>,
        inquiries: mpsc::UnboundedSender<oneshot::Sender<Facts>>,
    ) -> Self {
        Self { feed, overview, registry, inquiries }
    }

    /// Keeps a check in line with whether the source is read and compiled, for ever.
    pub fn watch_source(
        &self,
        health: Health,
        check: &'static str,
    ) -> impl Future<Output = ()> + Send + use<> {
        let mut overview = self.overview.clone();
        async move {
            loop {
                let trouble = overview.borrow_and_update().trouble.clone();
                match trouble {
                    Some(reason) => health.unready(check, reason),
                    None => health.ready(check),
                }
                if overview.changed().await.is_err() {
                    return health.unready(check, "the source is not followed any more");
                }
            }
        }
    }

    /// What sessions follow.
    #[must_use]
    pub fn feed(&self) -> watch::Receiver<Option<Arc<Feed>>> {
        self.feed.clone()
    }

    /// Who is connected.
    #[must_use]
    pub const fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }
}

impl Overview {
    /// `troubles` are reasons why what is in force may be older than the source.
    pub(super) fn of<'a>(
        index: &Index,
        catalog: &Catalog,
        compiled: Option<&Compiled>,
        troubles: impl Iterator<Item = &'a String>,
    ) -> Self {
        let plain = |reason: &&String| RejectedObject {
            file: String::new(),
            object: String::new(),
            reason: (*reason).clone(),
            last_good_in_force: true,
        };
        let troubles: Vec<&String> = troubles.collect();
        let mut rejected: Vec<_> = troubles.iter().map(plain).collect();
        rejected.extend(catalog.rejected().iter().map(rejected_object));
        let warnings = compiled.into_iter().flat_map(|compiled| compiled.warnings.iter().cloned());
        let declared =
            |((namespace, name), declared): (&(String, String), &Arc<crate::manifest::Workload>)| {
                let group = Target::Group { namespace: namespace.clone(), name: declared.group.clone() };
                let crate::manifest::Workload { addresses, zone, probes, .. } = &**declared;
                let is_probed = probes.as_ref().map(|probes| !probes.is_empty());
                let declared =
                    Declared { group, addresses: addresses.clone(), zone: zone.clone(), is_probed };
                ((namespace.clone(), name.clone()), declared)
            };
        Self {
            groups: index.groups().clone(),
            declared: index.declared().iter().map(declared).collect(),
            policies: index.policies(),
            rejected,
            warnings: warnings.collect(),
            trouble: troubles.first().map(ToString::to_string),
        }
    }
}

impl Mesh {
    /// What to say where hosts have states that this gateway does not know.
    fn older_than_hosts(&self) -> Option<String> {
        let ahead = self.registry.ahead();
        let first = ahead.first()?;
        let others = match ahead.len().saturating_sub(1) {
            0 => String::new(),
            others => format!(" and {others} others"),
        };
        Some(format!(
            "{first}{others} have states that this gateway does not know, and keep them: it was restored from an older \
             backup. Once its policies are as they should be, `outrigger-gateway restore accept` gives them to hosts"
        ))
    }
}

impl MeshView for Mesh {
    fn group_exists(&self, namespace: &str, name: &str) -> bool {
        self.overview.borrow().groups.contains_key(&(namespace.to_owned(), name.to_owned()))
    }

    fn declared(&self, name: &WorkloadName) -> Option<Declared> {
        self.overview.borrow().declared.get(&(name.namespace.clone(), name.name.clone())).cloned()
    }

    fn promised(&self, except: &WorkloadName) -> BTreeSet<IpAddr> {
        let overview = self.overview.borrow();
        let others = overview
            .declared
            .iter()
            .filter(|((namespace, name), _)| (namespace, name) != (&except.namespace, &except.name));
        others.flat_map(|(_, declared)| declared.addresses.iter().copied()).collect()
    }

    fn backend(&self, workload: &Workload) -> Option<Backend> {
        let Target::Group { namespace, name } = &workload.target else { return None };
        let overview = self.overview.borrow();
        let group = overview.groups.get(&(namespace.clone(), name.clone()))?.clone();
        let WorkloadName { namespace, name } = &workload.name;
        let own = overview.declared.get(&(namespace.clone(), name.clone()));
        let is_probed = own.and_then(|own| own.is_probed).unwrap_or(!group.probes.is_empty());
        let zone = own.and_then(|own| own.zone.clone()).or_else(|| group.zone.clone());
        drop(overview);
        let SessionStatus { connected, applied, probes, .. } = self.registry.status(&workload.name);
        // A host whose kernel runs nothing of the mesh cannot be reached.
        let ready = match probes.state.as_str() {
            _ if !connected || applied.is_none() => None,
            _ if !is_probed => Some(true),
            "passing" => Some(true),
            "failing" => Some(false),
            _ => None,
        };
        Some(Backend { group, zone, connected, ready })
    }

    fn facts(&self) -> oneshot::Receiver<Facts> {
        let (sender, receiver) = oneshot::channel();
        // Where nobody takes it, the receiver says so.
        drop(self.inquiries.send(sender));
        receiver
    }

    fn summary(&self) -> Summary {
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let overview = Arc::clone(&self.overview.borrow());
        let latest = self.feed.borrow().as_ref().map(|feed| Arc::clone(&feed.latest));
        let state = latest.as_ref().map(|latest| &latest.compiled().state);
        Summary {
            generation: latest.as_ref().map_or(0, |latest| latest.generation().counter),
            synced: latest.is_some(),
            sessions: count(self.registry.sessions()),
            endpoints: count(state.map_or(0, |state| state.endpoints.len())),
            identities: count(state.map_or(0, |state| state.identities.len())),
            policies: count(overview.policies),
            rejected: overview.rejected.clone(),
            warnings: self.older_than_hosts().into_iter().chain(overview.warnings.iter().cloned()).collect(),
        }
    }

    fn republish(&self) {
        let latest = self.feed.borrow().as_ref().map(|feed| feed.latest.generation().counter);
        self.registry.contradict(latest.unwrap_or_default());
    }

    fn workload(&self, name: &WorkloadName) -> Option<WorkloadView> {
        let latest = self.feed.borrow().as_ref().map(|feed| Arc::clone(&feed.latest))?;
        let compiled = latest.compiled();
        let settings = compiled.nodes.get(name)?;
        let policy = compiled.state.policies.get(&settings.identity);
        let status = self.registry.status(name);
        let labels = compiled.state.identities.get(&settings.identity);
        Some(WorkloadView {
            identity: settings.identity.get(),
            labels: labels.map(ToString::to_string).unwrap_or_default(),
            policies: policy.map(|policy| selecting(policy)).unwrap_or_default(),
            ingress_default_deny: policy.is_some_and(|policy| policy.ingress.default != Verdict::Allow),
            egress_default_deny: policy.is_some_and(|policy| policy.egress.default != Verdict::Allow),
            connected: status.connected,
            acked_generation: status.applied.map_or(0, |applied| applied.counter),
            rejected_reason: status.rejected.as_ref().map(|found| found.reason.clone()).unwrap_or_default(),
            conditions: conditions(&status, settings),
        })
    }
}

/// The policies that select: each makes at least one direction default-deny.
fn selecting(policy: &Policy) -> Vec<String> {
    let by =
        [&policy.ingress.default, &policy.egress.default].into_iter().filter_map(|default| match default {
            Verdict::Deny { by } => Some(by),
            Verdict::Allow => None,
        });
    by.flatten().cloned().collect::<BTreeSet<_>>().into_iter().collect()
}

fn conditions(status: &SessionStatus, settings: &NodeSettings) -> BTreeMap<String, ConditionView> {
    let condition =
        |reason: &str, message: String| ConditionView { status: true, reason: reason.to_owned(), message };
    let mut conditions = BTreeMap::new();
    if let Some(duplicate) = &status.duplicate {
        conditions.insert("DuplicateHost".to_owned(), condition("TwoMachines", duplicate.to_string()));
    }
    if status.ahead {
        let text = "its host has a state that this gateway does not know, and keeps it".to_owned();
        conditions.insert("GatewayBehind".to_owned(), condition("Restored", text));
    }
    if let Some(reason) = &status.refused_report {
        conditions.insert("ReportRefused".to_owned(), condition("Translated", reason.clone()));
    }
    if !status.trouble.is_empty() {
        conditions.insert("NetworkIncomplete".to_owned(), condition("HostNetwork", status.trouble.clone()));
    }
    if !settings.probes.is_empty() {
        let ProbeReport { state, message } = &status.probes;
        let (holds, reason) = match state.as_str() {
            "passing" => (true, "Passing"),
            "failing" => (false, "Failing"),
            _ => (false, PENDING),
        };
        let condition = ConditionView { status: holds, ..condition(reason, message.clone()) };
        conditions.insert("ProbesPassing".to_owned(), condition);
    }
    if !settings.rejected.is_empty() {
        let text = settings.rejected.join("; ");
        conditions.insert("ObjectsRejected".to_owned(), condition("InvalidObject", text));
    }
    let NicReport { state, message } = &status.nic;
    if settings.nic.is_some() && !matches!(state.as_str(), "" | "off" | "enforce") {
        let reason = match state.as_str() {
            "reverted" => "Reverted",
            "trial" => "Trial",
            _ => "Audit",
        };
        conditions.insert("NicPolicyNotEnforced".to_owned(), condition(reason, message.clone()));
    }
    if !settings.partly_enforced.is_empty() {
        let text = settings.partly_enforced.join("; ");
        conditions.insert("PolicyPartlyEnforced".to_owned(), condition("NotAsWritten", text));
    }
    conditions
}

fn rejected_object(rejected: &Rejected) -> RejectedObject {
    let Rejected { file, position, key, reason, instead } = rejected;
    RejectedObject {
        file: if position.line > 0 { format!("{file}:{}", position.line) } else { file.clone() },
        object: key.as_ref().map(ToString::to_string).unwrap_or_default(),
        reason: match instead {
            Instead::Isolation => format!("{reason} (isolates what it selects)"),
            Instead::Unreadable => format!("{reason} (no selector that asks for its labels matches it)"),
            Instead::Nothing | Instead::LastGood | Instead::Other => reason.clone(),
        },
        last_good_in_force: *instead == Instead::LastGood,
    }
}
