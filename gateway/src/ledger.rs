//! The state of record in a cluster's API: hosts are `ExternalWorkload`s, tokens `JoinToken`s, roots a Secret, and all else
//! parts of tables, `MeshRecord`s. `objects` says what is what, `write` keeps changes, `follow` sees what others do to hosts
//! and tokens.

use std::collections::BTreeMap;
use std::fmt;
use std::mem::ManuallyDrop;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ListParams};
use kube::{Client, Resource};
use pki::UnixTime;
use serde::de::DeserializeOwned;
use tokio::runtime::Runtime;
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use crate::election::Term;
use crate::store::{Beginning, Bytes, Changes, Ledger, LedgerError, RecordKey, Shared, Workload};

pub(crate) mod events;
mod follow;
mod objects;
mod standing;
mod status;
mod table;
mod write;

pub use events::tell;
pub use follow::follow;
pub(crate) use objects::MANAGED_BY;
pub use status::{Known, report};

/// The Secret of the roots and their keys.
const ROOTS: &str = "outrigger-roots";
/// How long a change may take to be kept: everybody else who changes something waits meanwhile.
const DEADLINE: Duration = Duration::from_secs(5);
/// Objects of a page of a list.
const PAGE: u32 = 500;

/// The state of record of one mesh.
pub struct ClusterLedger {
    client: Client,
    /// Where what belongs to no host is: the gateway's own namespace.
    namespace: String,
    /// Its own: the store is locked while it works.
    runtime: ManuallyDrop<Runtime>,
    /// For how long nobody else writes.
    term: Term,
    /// The parts of tables as they are known, by the names of their objects.
    parts: Mutex<BTreeMap<String, table::Part>>,
    /// Hosts and tokens as they are followed.
    observed: std::sync::Mutex<status::Observed>,
}

impl ClusterLedger {
    /// The one in a namespace of a cluster; nothing is asked yet.
    #[must_use]
    pub fn new(client: Client, namespace: String, runtime: ManuallyDrop<Runtime>, term: Term) -> Self {
        Self {
            client,
            namespace,
            runtime,
            term,
            parts: Mutex::default(),
            observed: std::sync::Mutex::default(),
        }
    }

    /// How the cluster is reached.
    #[must_use]
    pub const fn client(&self) -> &Client {
        &self.client
    }

    /// Where what belongs to no host is.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    fn observed(&self) -> std::sync::MutexGuard<'_, status::Observed> {
        self.observed.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    async fn load_all(&self) -> Result<BTreeMap<RecordKey, Bytes>, LedgerError> {
        let mut records = self.load_parts().await?;
        let mut joined: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for workload in hosts(list(&Api::<crds::ExternalWorkload>::all(self.client.clone())).await?) {
            joined.entry(workload.joined_with.clone()).or_default().push(workload.name.to_string());
            records.insert((Shared::Workloads, workload.name.to_string()), objects::encode(&workload)?);
        }
        for object in list(&Api::<crds::JoinToken>::all(self.client.clone())).await? {
            match objects::token(&object) {
                Ok(mut token) => {
                    let joined = joined.get(&token.id).map_or(&[][..], Vec::as_slice);
                    objects::count_uses(&mut token, joined);
                    records.insert((Shared::Tokens, token.id.clone()), objects::encode(&token)?);
                }
                Err(error) => tracing::error!(%error, "a token is not known: its object cannot be read"),
            }
        }
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let roots = secrets.get_opt(ROOTS).await.map_err(|error| failed("get Secret", ROOTS, &error))?;
        for (id, bytes) in roots.and_then(|secret| secret.data).unwrap_or_default() {
            records.insert((Shared::Roots, id), Bytes(Zeroizing::new(bytes.0)));
        }
        Ok(records)
    }
}

impl Ledger for ClusterLedger {
    fn load(&self) -> Result<BTreeMap<RecordKey, Bytes>, LedgerError> {
        tokio::task::block_in_place(|| self.runtime.block_on(self.load_all()))
    }

    fn keep(&self, changes: &Changes) -> Result<(), LedgerError> {
        let kept = async {
            // What comes later could come on top of what another gateway wrote.
            let deadline = self.term.remaining().map_err(LedgerError)?.min(DEADLINE);
            let late =
                |_late| Err(LedgerError(format!("no answer within {} s", deadline.as_secs_f32().ceil())));
            tokio::time::timeout(deadline, self.keep_all(changes)).await.unwrap_or_else(late)
        };
        tokio::task::block_in_place(|| self.runtime.block_on(kept))
    }

    fn beginning(&self) -> Beginning {
        self.term.beginning()
    }

    fn confirm(&self) -> Result<(), LedgerError> {
        self.term.remaining().map(drop).map_err(LedgerError)
    }

    fn published_by(&self, _now: UnixTime) -> u64 {
        self.term.renewed()
    }

    fn token_id(&self, namespace: &str, random: &str) -> String {
        format!("{namespace}/{random}")
    }
}

/// The hosts that objects record, without those that have what is another's.
pub(crate) fn hosts(objects: impl IntoIterator<Item = crds::ExternalWorkload>) -> Vec<Workload> {
    let mut workloads = Vec::new();
    for object in objects {
        match objects::workload(&object) {
            Ok(workload) => workloads.extend(workload),
            Err(error) => tracing::error!(%error, "a host is not known: its object cannot be read"),
        }
    }
    objects::without_conflicts(workloads)
}

/// All objects, page by page.
async fn list<K>(api: &Api<K>) -> Result<Vec<K>, LedgerError>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + fmt::Debug,
{
    let mut all = Vec::new();
    let mut parameters = ListParams::default().limit(PAGE);
    loop {
        let page = api.list(&parameters).await;
        let page = page.map_err(|error| failed("list", &K::plural(&()), &error))?;
        all.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => parameters = parameters.continue_token(&token),
            None => return Ok(all),
        }
    }
}

fn failed(what: &str, whom: &str, error: &kube::Error) -> LedgerError {
    let reason =
        if let kube::Error::Api(status) = error { status.message.clone() } else { error.to_string() };
    LedgerError(format!("{what} {whom}: {reason}"))
}

/// Whether the server answered with this code.
fn is_code(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}

impl fmt::Debug for ClusterLedger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterLedger").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}
