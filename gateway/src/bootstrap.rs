//! Keeps the `ConfigMap` by which agents of cluster nodes find gateways, and know which roots to trust. It holds no secret, and
//! is written only when it says something else than it should.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crds::Bootstrap;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, PostParams};
use kube::{Client, ResourceExt as _};

use crate::ledger::MANAGED_BY;

/// The `ConfigMap`, and its key.
pub const CONFIG_MAP: &str = "outrigger-bootstrap";
/// What the file is called that it is mounted as.
pub const KEY: &str = "bootstrap.json";
/// How often it is looked whether it should say something else, and whether it says what it should.
const LOOK: Duration = Duration::from_secs(2);
const CHECK: Duration = Duration::from_mins(1);

/// Why it does not say what it should.
#[derive(Debug, thiserror::Error)]
enum BootstrapError {
    /// The cluster.
    #[error("{0} ConfigMap {CONFIG_MAP}: {1}")]
    Cluster(&'static str, String),
    /// It cannot be said.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

/// What agents are told now; `None`: nobody knows where they would find gateways.
pub type Latest = Arc<dyn Fn() -> Option<Bootstrap> + Send + Sync>;

/// Writes until it is dropped.
pub async fn keep(client: Client, namespace: String, latest: Latest) {
    let api: Api<ConfigMap> = Api::namespaced(client, &namespace);
    let mut due = tokio::time::interval(LOOK);
    due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut right: Option<(Bootstrap, Instant)> = None;
    loop {
        due.tick().await;
        let Some(wanted) = latest() else { continue };
        let is_right = right.as_ref().is_some_and(|(said, at)| *said == wanted && at.elapsed() < CHECK);
        if is_right {
            continue;
        }
        match write(&api, &namespace, &wanted).await {
            Ok(written) => {
                if written {
                    tracing::info!(gateways = ?wanted.gateways, "agents of cluster nodes are told where gateways are");
                }
                right = Some((wanted, Instant::now()));
            }
            Err(error) => {
                tracing::warn!(%error, "agents of cluster nodes may not know where gateways are, or which roots to trust");
                right = None;
            }
        }
    }
}

/// Whether it had to be written.
async fn write(api: &Api<ConfigMap>, namespace: &str, wanted: &Bootstrap) -> Result<bool, BootstrapError> {
    let data = BTreeMap::from([(KEY.to_owned(), serde_json::to_string_pretty(wanted)? + "\n")]);
    let found = api.get_opt(CONFIG_MAP).await.map_err(|error| failed("get", &error))?;
    let parameters = PostParams::default();
    let (what, written) = match found {
        Some(found) if found.data.as_ref() == Some(&data) => return Ok(false),
        Some(mut found) => {
            found.data = Some(data);
            ("update", api.replace(CONFIG_MAP, &parameters, &found).await)
        }
        None => {
            let mut map = ConfigMap { data: Some(data), ..ConfigMap::default() };
            map.metadata.name = Some(CONFIG_MAP.to_owned());
            map.metadata.namespace = Some(namespace.to_owned());
            map.labels_mut().insert(MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned());
            ("create", api.create(&parameters, &map).await)
        }
    };
    written.map(|_written| true).map_err(|error| failed(what, &error))
}

fn failed(what: &'static str, error: &kube::Error) -> BootstrapError {
    let reason =
        if let kube::Error::Api(status) = error { status.message.clone() } else { error.to_string() };
    BootstrapError::Cluster(what, reason)
}
