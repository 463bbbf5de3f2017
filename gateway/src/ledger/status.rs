//! Keeps the status of hosts' and tokens' objects in line with what is known. Nothing is written of what is as it was.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crds::{Bootstrap, ExternalWorkload, ExternalWorkloadStatus, JoinToken, JoinTokenStatus};
use futures_util::StreamExt as _;
use k8s_openapi::NamespaceResourceScope;
use kube::api::{Api, Patch, PatchParams};
use kube::{Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::standing::{self, Facts, Waiting};
use super::{ClusterLedger, LedgerError, failed, is_code, objects};
use crate::clock::Clock;
use crate::mesh_view::MeshView;
use crate::store::{Store, StoreError, Target, Token};

/// How often it is looked.
const LOOK: Duration = Duration::from_secs(2);
/// Objects that are written at a time, and each time.
const TOGETHER: usize = 8;
const AT_ONCE: usize = 200;

/// The objects as they were seen last, and what could not be taken of them.
#[derive(Debug, Default)]
pub(super) struct Observed {
    pub(super) hosts: BTreeMap<String, Seen<ExternalWorkloadStatus>>,
    pub(super) tokens: BTreeMap<String, Seen<JoinTokenStatus>>,
}

/// What is kept of an object.
#[derive(Clone, Debug)]
pub(super) struct Seen<S> {
    pub(super) uid: String,
    pub(super) generation: Option<i64>,
    pub(super) status: S,
    /// Why what it says does not count.
    pub(super) refusal: Option<String>,
}

impl<S> Seen<S> {
    pub(super) fn new(object: &impl ResourceExt, status: S, refusal: Option<String>) -> Self {
        Self { uid: object.uid().unwrap_or_default(), generation: object.meta().generation, status, refusal }
    }
}

/// What is known, and whom to ask.
#[derive(Clone)]
pub struct Known {
    /// Hosts and tokens.
    pub store: Arc<Store>,
    /// Who is connected, and which policies there are.
    pub mesh: Arc<dyn MeshView>,
    /// What time it is.
    pub clock: Clock,
    /// What tokens carry now; `None`: hosts would not know where to go.
    pub bootstrap: Arc<dyn Fn() -> Option<Bootstrap> + Send + Sync>,
}

/// Writes until it is dropped.
pub async fn report(ledger: Arc<ClusterLedger>, known: Known) {
    let started = Instant::now();
    let mut waiting: BTreeMap<String, Waiting> = BTreeMap::new();
    let mut due = tokio::time::interval(LOOK);
    due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        due.tick().await;
        let work = {
            let (ledger, known) = (ledger.clone(), known.clone());
            let mut waiting = std::mem::take(&mut waiting);
            move || {
                let found = news(&ledger, &known, &mut waiting, started);
                (found, waiting)
            }
        };
        let Ok((found, looked)) = tokio::task::spawn_blocking(work).await else { return };
        waiting = looked;
        match found {
            Ok(News { hosts, tokens }) => {
                ledger.write_statuses(hosts, tokens).await;
            }
            Err(error) => tracing::warn!(%error, "what is known of hosts is not written into their objects"),
        }
    }
}

/// Statuses that are to be written, by the names of objects.
struct News {
    hosts: Vec<(String, ExternalWorkloadStatus)>,
    tokens: Vec<(String, JoinTokenStatus)>,
}

fn news(
    ledger: &ClusterLedger,
    known: &Known,
    waiting: &mut BTreeMap<String, Waiting>,
    started: Instant,
) -> Result<News, StoreError> {
    let Known { store, mesh, clock, bootstrap } = known;
    let (now, at, generation) = (clock.now(), Instant::now(), mesh.summary().generation);
    let workloads = store.workloads();
    let tokens: BTreeMap<String, Token> =
        store.tokens()?.into_iter().map(|token| (token.id.clone(), token)).collect();
    let observed = ledger.observed();
    waiting.retain(|name, _| observed.hosts.contains_key(name));
    let mut news = News { hosts: Vec::new(), tokens: Vec::new() };
    for (text, seen) in &observed.hosts {
        let Ok(name) = text.parse() else { continue };
        let view = mesh.workload(&name);
        let waiting = waiting.entry(text.clone()).or_default();
        waiting.look(view.as_ref(), generation, at);
        let facts = Facts {
            workload: workloads.get(&name).map(|workload| &**workload),
            view: view.as_ref(),
            seen: store.last_seen(&name)?,
            refusal: seen.refusal.as_deref(),
            object_generation: seen.generation,
        };
        let status = standing::of_host(&facts, *waiting, &seen.status, [started, at], now);
        if status != seen.status {
            news.hosts.push((text.clone(), status));
        }
    }
    for (text, seen) in &observed.tokens {
        let Some(token) = tokens.get(text) else { continue };
        let Target::Group { namespace, name } = &token.target else { continue };
        let group_exists = mesh.group_exists(namespace, name);
        let conditions =
            standing::of_token(token, group_exists, &seen.status.conditions, seen.generation, now);
        let is_ready = conditions.iter().any(|condition| condition.status == "True");
        let bootstrap = is_ready.then(|| bootstrap()).flatten();
        let status = JoinTokenStatus { conditions, bootstrap, ..objects::token_status(token, None) };
        if status != seen.status {
            news.tokens.push((text.clone(), status));
        }
    }
    Ok(news)
}

impl ClusterLedger {
    async fn write_statuses(
        &self,
        hosts: Vec<(String, ExternalWorkloadStatus)>,
        tokens: Vec<(String, JoinTokenStatus)>,
    ) {
        let hosts = hosts.into_iter().take(AT_ONCE).map(|(name, status)| async move {
            if self.write_status::<ExternalWorkload, _>(&name, &status).await
                && let Some(seen) = self.observed().hosts.get_mut(&name)
            {
                seen.status = status;
            }
        });
        futures_util::stream::iter(hosts).for_each_concurrent(TOGETHER, |write| write).await;
        let tokens = tokens.into_iter().take(AT_ONCE).map(|(name, status)| async move {
            if self.write_status::<JoinToken, _>(&name, &status).await
                && let Some(seen) = self.observed().tokens.get_mut(&name)
            {
                seen.status = status;
            }
        });
        futures_util::stream::iter(tokens).for_each_concurrent(TOGETHER, |write| write).await;
    }

    /// Whether it was written.
    async fn write_status<K, S>(&self, text: &str, status: &S) -> bool
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + std::fmt::Debug,
        S: Serialize,
    {
        let Some((namespace, name)) = text.split_once('/') else { return false };
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        // What was there and is gone has to be named: a merge leaves what it does not name.
        let mut value = json!({
            "identity": null, "agentVersion": null, "certificateExpires": null, "lastSeen": null,
        });
        if K::kind(&()) == "JoinToken" {
            value = json!({ "bootstrap": null });
        }
        if let (Some(all), Ok(serde_json::Value::Object(fields))) =
            (value.as_object_mut(), serde_json::to_value(status))
        {
            all.extend(fields);
        }
        let patch = Patch::Merge(json!({ "status": value }));
        let error: LedgerError = match api.patch_status(name, &PatchParams::default(), &patch).await {
            Ok(_written) => return true,
            Err(error) if is_code(&error, 404) => return false,
            Err(error) => failed("write the status of", &format!("{} {text}", K::kind(&())), &error),
        };
        tracing::warn!(%error, "what is known is not written into its object");
        false
    }
}
