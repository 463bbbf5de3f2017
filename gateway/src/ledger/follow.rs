//! What administrators do to hosts and tokens in the cluster: a host whose object is deleted is revoked, a token too, and
//! what is put there is taken, if it may.

use std::collections::BTreeSet;
use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use crds::{ExternalWorkload, JoinToken, RELEASE};
use futures_util::TryStreamExt as _;
use kube::api::Api;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event as Seen, watcher};
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::runtime::Handle;

use super::status::Seen as Kept;
use super::{ClusterLedger, objects};
use crate::audit::{Audit, Event};
use crate::clock::Clock;
use crate::store::{
    Import, LedgerError, RenewRefusal, Store, StoreError, Target, WorkloadError, WorkloadName,
};

/// Who the audit log says did it.
const BY: &str = "kubernetes";

/// What following needs.
#[derive(Clone)]
struct Follower {
    ledger: Arc<ClusterLedger>,
    store: Arc<Store>,
    audit: Arc<Audit>,
    clock: Clock,
}

/// Between a failure and the next list.
const PAUSE: Duration = Duration::from_secs(2);

/// Follows hosts and tokens until it is dropped.
pub async fn follow(ledger: Arc<ClusterLedger>, store: Arc<Store>, audit: Arc<Audit>, clock: Clock) {
    let client = ledger.client().clone();
    let follower = Follower { ledger, store, audit, clock };
    let hosts = Api::<ExternalWorkload>::all(client.clone());
    let tokens = Api::<JoinToken>::all(client);
    tokio::join!(
        follow_kind(hosts, follower.clone(), Follower::host),
        follow_kind(tokens, follower, Follower::token)
    );
}

/// What became of an object, or which ones there are.
enum Change<K> {
    There(Box<K>),
    Gone(Box<K>),
    All(BTreeSet<String>),
}

/// Follows the objects of a kind. What could not be done is done after the next list.
async fn follow_kind<K>(
    api: Api<K>,
    follower: Follower,
    work: fn(&Follower, &Change<K>) -> Result<(), FollowError>,
) where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + fmt::Debug + Send + Sync + 'static,
{
    loop {
        let mut events = pin!(watcher(api.clone(), watcher::Config::default()).default_backoff());
        let (mut listed, mut is_confirmed) = (BTreeSet::new(), false);
        loop {
            let event = match events.try_next().await {
                Ok(Some(Seen::Init)) => {
                    listed.clear();
                    is_confirmed = false;
                    continue;
                }
                Ok(Some(Seen::InitApply(object))) => {
                    // What a cluster says that was restored from a backup is for nobody to act upon.
                    if !is_confirmed {
                        follower.ledger.term.confirmed().await;
                        is_confirmed = true;
                    }
                    listed.insert(name_of(&object));
                    Change::There(Box::new(object))
                }
                Ok(Some(Seen::Apply(object))) => Change::There(Box::new(object)),
                Ok(Some(Seen::Delete(object))) => Change::Gone(Box::new(object)),
                Ok(Some(Seen::InitDone)) => {
                    follower.ledger.term.confirmed().await;
                    Change::All(std::mem::take(&mut listed))
                }
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!(kind = %K::kind(&()), %error, "objects of the cluster cannot be followed");
                    continue;
                }
            };
            let follower = follower.clone();
            match tokio::task::spawn_blocking(move || work(&follower, &event)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::error!(kind = %K::kind(&()), %error, "what the cluster has is not taken yet");
                    break;
                }
                Err(_cut_off) => return,
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

impl Follower {
    fn host(&self, event: &Change<ExternalWorkload>) -> Result<(), FollowError> {
        match event {
            Change::There(object) => {
                let refusal = self.host_is_there(object)?;
                let seen = Kept::new(&**object, object.status.clone().unwrap_or_default(), refusal);
                self.ledger.observed().hosts.insert(name_of(&**object), seen);
                Ok(())
            }
            Change::Gone(object) => {
                self.ledger.observed().hosts.remove(&name_of(&**object));
                self.lost(&name_of(&**object))
            }
            Change::All(listed) => {
                self.ledger.observed().hosts.retain(|name, _| listed.contains(name));
                self.absent(listed)
            }
        }
    }

    fn token(&self, event: &Change<JoinToken>) -> Result<(), FollowError> {
        match event {
            Change::There(object) if object.metadata.deletion_timestamp.is_none() => {
                match objects::token(object) {
                    Ok(token) => {
                        self.store.take_token(&token)?;
                        let seen = Kept::new(&**object, object.status.clone().unwrap_or_default(), None);
                        self.ledger.observed().tokens.insert(token.id, seen);
                    }
                    Err(error) => tracing::error!(%error, "a token is not known: its object cannot be read"),
                }
            }
            Change::There(object) | Change::Gone(object) => {
                self.ledger.observed().tokens.remove(&name_of(&**object));
                self.store.forget_token(&name_of(&**object))?;
            }
            Change::All(listed) => {
                self.ledger.observed().tokens.retain(|name, _| listed.contains(name));
                // A token of a cluster node is no object.
                let tokens = self.store.tokens()?.into_iter().filter(|token| token.id.contains('/'));
                let mut gone = tokens.filter(|token| !listed.contains(&token.id));
                gone.try_for_each(|token| self.store.forget_token(&token.id))?;
            }
        }
        Ok(())
    }

    /// Takes what an object says of a host; why not, where that does not count.
    fn host_is_there(&self, object: &ExternalWorkload) -> Result<Option<String>, FollowError> {
        let name = name_of(object);
        if object.metadata.deletion_timestamp.is_some() {
            return self.deleted(object, &name).map(|()| None);
        }
        let workload = match objects::workload(object) {
            Ok(Some(workload)) => workload,
            Ok(None) => return self.lost(&name).map(|()| None),
            Err(error) => {
                tracing::error!(%error, "a host is not known: its object cannot be read");
                return Ok(Some(error.to_string()));
            }
        };
        Ok(match self.store.take(workload)? {
            Import::Known => None,
            Import::Taken => {
                tracing::info!(workload = name, "host taken from its object");
                None
            }
            Import::Refused(reason) => {
                tracing::error!(workload = name, %reason, "a host is not served");
                Some(reason.to_string())
            }
        })
    }

    /// Somebody deletes a host: its key is revoked, and its addresses rest. Then the object may go.
    fn deleted(&self, object: &ExternalWorkload, name: &str) -> Result<(), FollowError> {
        if !object.finalizers().iter().any(|own| own == RELEASE) {
            return Ok(());
        }
        let now = self.clock.now();
        let removed = name.parse().ok().map(|name: WorkloadName| self.store.remove(&name, now, "deleted"));
        match removed {
            Some(Ok(_removed)) => {
                tracing::info!(workload = name, by = BY, "workload deleted");
                let event = Event::Deleted { workload: name.to_owned(), by: BY.to_owned() };
                self.audit.record(&event, now);
                Ok(())
            }
            Some(Err(WorkloadError::Refused(RenewRefusal::Unknown(_)))) | None => {
                Ok(Handle::current().block_on(self.ledger.release(object))?)
            }
            Some(Err(error)) => Err(error.into()),
        }
    }

    /// What is known and not listed was not deleted: that asks for a release. The cluster lost it.
    fn absent(&self, listed: &BTreeSet<String>) -> Result<(), FollowError> {
        let known = self.store.workloads();
        let members = known.values().filter(|workload| matches!(workload.target, Target::Group { .. }));
        let mut lost =
            members.map(|workload| workload.name.to_string()).filter(|name| !listed.contains(name));
        lost.try_for_each(|name| self.lost(&name))
    }

    /// The cluster does not have what is known of a host.
    fn lost(&self, name: &str) -> Result<(), FollowError> {
        let Ok(workload) = name.parse::<WorkloadName>() else { return Ok(()) };
        if self.store.keep_again(&workload)? {
            tracing::warn!(workload = name, "what the cluster lost of a host was written again");
        }
        Ok(())
    }
}

fn name_of(object: &impl ResourceExt) -> String {
    format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any())
}

/// What the cluster says could not be taken.
#[derive(Debug, thiserror::Error)]
enum FollowError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Workload(#[from] WorkloadError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}
