//! Events of the cluster, on the objects that they are about: who joined, who was refused, what is not enforced.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::{Api, DynamicObject, ListParams};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::sync::mpsc;

use super::ClusterLedger;
use crate::audit;
use crate::manifest::{Kind, Resource};
use crate::mesh_view::{MeshView, RejectedObject};

/// Who reports.
pub(crate) const CONTROLLER: &str = "outrigger.dev/gateway";
/// How often it is looked which objects are refused.
const LOOK: Duration = Duration::from_secs(2);
/// How long the object of a host may take to be seen.
const SEEN: Duration = Duration::from_secs(5);
/// Letters of a note: the API takes 1024 bytes.
const LONGEST: usize = 900;

/// Tells the cluster what the audit log is told, and which objects of the source are refused, until it is dropped.
pub async fn tell(
    ledger: Arc<ClusterLedger>,
    mut records: mpsc::Receiver<audit::Event>,
    mesh: Arc<dyn MeshView>,
    instance: String,
) {
    let reporter = Reporter { controller: CONTROLLER.to_owned(), instance: Some(instance) };
    let recorder = Recorder::new(ledger.client().clone(), reporter);
    let mut told = BTreeSet::new();
    let mut due = tokio::time::interval(LOOK);
    due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            record = records.recv() => match record {
                Some(record) => ledger.tell_record(&recorder, &record).await,
                None => return,
            },
            _ = due.tick() => {
                let rejected = mesh.summary().rejected;
                let now: BTreeSet<_> =
                    rejected.iter().map(|object| (object.object.clone(), object.reason.clone())).collect();
                for object in &rejected {
                    if !told.contains(&(object.object.clone(), object.reason.clone())) {
                        ledger.tell_rejected(&recorder, object).await;
                    }
                }
                told = now;
            }
        }
    }
}

impl ClusterLedger {
    async fn tell_record(&self, recorder: &Recorder, record: &audit::Event) {
        let Some((kind, name, event)) = of_record(record) else { return };
        let Some((namespace, short)) = name.split_once('/') else { return };
        let Some(uid) = self.wait_uid(kind, name).await else { return };
        let regarding = ObjectReference {
            api_version: Some(format!("{}/{}", crds::GROUP, crds::VERSION)),
            kind: Some(kind.to_owned()),
            namespace: Some(namespace.to_owned()),
            name: Some(short.to_owned()),
            uid: Some(uid),
            ..ObjectReference::default()
        };
        publish(recorder, &event, &regarding).await;
    }

    /// The number of an object, which may have been made just now.
    async fn wait_uid(&self, kind: &str, name: &str) -> Option<String> {
        let find = || {
            let observed = self.observed();
            match kind {
                "JoinToken" => observed.tokens.get(name).map(|seen| seen.uid.clone()),
                _ => observed.hosts.get(name).map(|seen| seen.uid.clone()),
            }
        };
        let wait = async {
            loop {
                if let Some(uid) = find() {
                    return uid;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(SEEN, wait).await.ok()
    }

    /// An object of somebody else: what is wrong with it is an event, never a change of the object.
    async fn tell_rejected(&self, recorder: &Recorder, rejected: &RejectedObject) {
        let mut parts = rejected.object.splitn(3, '/');
        let (Some(kind), Some(first)) = (parts.next(), parts.next()) else { return };
        let (namespace, name) = parts.next().map_or((None, first), |name| (Some(first), name));
        let versions = Resource::all().filter(|resource| Kind::from_name(kind) == Some(resource.kind));
        for resource in versions {
            let resource = resource.api();
            let client = self.client().clone();
            let api: Api<DynamicObject> = match namespace {
                Some(namespace) => Api::namespaced_with(client, namespace, &resource),
                None => Api::all_with(client, &resource),
            };
            let only = ListParams::default().fields(&format!("metadata.name={name}")).limit(1);
            let Ok(found) = api.list_metadata(&only).await else { continue };
            let Some(object) = found.items.into_iter().next() else { continue };
            let regarding = ObjectReference {
                api_version: Some(resource.api_version.clone()),
                kind: Some(kind.to_owned()),
                namespace: namespace.map(str::to_owned),
                name: Some(name.to_owned()),
                uid: object.metadata.uid,
                ..ObjectReference::default()
            };
            let instead =
                if rejected.last_good_in_force { "; its last valid version stays in force" } else { "" };
            let note = format!("{}{instead}", rejected.reason);
            let event = event(EventType::Warning, "PolicyRejected", "Compile", note);
            return publish(recorder, &event, &regarding).await;
        }
    }
}

/// What the cluster is told of a record: the kind and the name of the object, and the event.
fn of_record(record: &audit::Event) -> Option<(&'static str, &str, Event)> {
    let host = "ExternalWorkload";
    #[expect(clippy::wildcard_enum_match_arm, reason = "the rest is for the log only")]
    Some(match record {
        audit::Event::Joined { workload, token, addresses, remote, replaced_key, .. } => {
            let what = if replaced_key.is_some() { "took the place of another host" } else { "joined" };
            let note = format!("{what} from {remote} with token {token}: {}", addresses.join(", "));
            (host, workload, event(EventType::Normal, "Joined", "Join", note))
        }
        audit::Event::JoinRefused { token, remote, detail, .. } => {
            let note = format!("a host at {remote} was refused: {detail}");
            ("JoinToken", token, event(EventType::Warning, "JoinRefused", "Join", note))
        }
        audit::Event::NicPolicy { workload, state, message } if state == "reverted" => {
            let note = format!("policy on the NICs was reverted: {message}");
            (host, workload, event(EventType::Warning, "NicPolicyReverted", "Enforce", note))
        }
        audit::Event::Renewed { workload, expired: true, remote, .. } => {
            let note = format!("its certificate had expired when it was renewed from {remote}");
            (host, workload, event(EventType::Warning, "CertificateExpired", "Renew", note))
        }
        _ => return None,
    })
}

/// An event; a note that is too long is cut.
pub(crate) fn event(type_: EventType, reason: &str, action: &str, note: String) -> Event {
    let note = match note.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", note.get(..end).unwrap_or_default()),
        None => note,
    };
    Event { type_, reason: reason.to_owned(), note: Some(note), action: action.to_owned(), secondary: None }
}

/// Tells it; where the cluster does not take it, the log says so.
pub(crate) async fn publish(recorder: &Recorder, event: &Event, regarding: &ObjectReference) {
    if let Err(error) = recorder.publish(event, regarding).await {
        tracing::warn!(%error, reason = event.reason, object = ?regarding.name, "the cluster is not told");
    }
}
