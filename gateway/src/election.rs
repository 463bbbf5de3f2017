//! Which of several gateways serves: the one that holds a Lease in the gateways' namespace. It alone writes, publishes and
//! has sessions; the others hand connections on to it. A lease that cannot be renewed ends nothing while nobody else holds
//! it, since nobody else can take it either: the holder serves what it has, and neither publishes nor writes.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Client;
use kube::api::{Api, PostParams};
use tokio::sync::watch;

mod lease;
mod term;

use lease::{Candidate, Held, Look};
pub use term::Term;

/// The Lease.
const NAME: &str = "outrigger-gateway";
/// How long a lease is somebody's who does not renew it.
const DURATION: Duration = Duration::from_secs(6);
/// How often it is renewed, and looked at by the others.
const RENEW: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_secs(1);
/// How long an answer of the API server is waited for.
const ANSWER: Duration = Duration::from_secs(2);
/// The file that says who a replica is, in the state folder.
const REPLICA: &str = "replica";

/// One of several gateways, by a name that it keeps over restarts. It has its state folder for itself.
#[derive(Debug)]
pub struct Replica {
    name: String,
    _locked: File,
}

/// Why a replica has no name.
#[derive(Debug, thiserror::Error)]
pub enum ReplicaError {
    /// The file of its name.
    #[error("cannot read or write {path}")]
    File {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another process has it.
    #[error("{0} is in use by another gateway")]
    InUse(PathBuf),
}

/// Who holds the lease.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leader {
    /// The replica's name; empty: nobody.
    pub name: String,
    /// Tells its terms apart.
    pub run: u32,
    /// Where it takes over connections; `None` until it serves.
    pub address: Option<SocketAddr>,
}

/// A gateway that waits for the lease.
#[derive(Debug)]
pub struct Election {
    leases: Api<Lease>,
    candidate: Candidate,
    leader: watch::Sender<Leader>,
}

impl Replica {
    /// The one whose state is in a folder, which is made where it does not exist. `host` begins the name.
    ///
    /// # Errors
    /// [`ReplicaError`].
    pub fn open(folder: &Path, host: &str) -> Result<Self, ReplicaError> {
        let path = folder.join(REPLICA);
        let failed = |source| ReplicaError::File { path: path.clone(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
        let mut options = OpenOptions::new();
        let mut file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => return Err(ReplicaError::InUse(path)),
            Err(std::fs::TryLockError::Error(source)) => return Err(failed(source)),
        }
        let mut id = String::new();
        file.read_to_string(&mut id).map_err(failed)?;
        if u32::from_str_radix(&id, 16).is_err() {
            id = format!("{:08x}", rand::random::<u32>());
            file.rewind().and_then(|()| file.set_len(0)).map_err(failed)?;
            file.write_all(id.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
        }
        Ok(Self { name: format!("{host}_{id}"), _locked: file })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Election {
    /// Of a replica in a namespace of a cluster; `run` is random, and that of its term, if it gets one.
    #[must_use]
    pub fn new(client: Client, namespace: &str, replica: &Replica, run: u32) -> Self {
        Self {
            leases: Api::namespaced(client, namespace),
            candidate: Candidate::new(replica.name().to_owned(), run),
            leader: watch::Sender::default(),
        }
    }

    /// Who holds the lease, always the latest that is known.
    #[must_use]
    pub fn leader(&self) -> watch::Receiver<Leader> {
        self.leader.subscribe()
    }

    /// Waits until the lease is this replica's; with who had it before.
    pub async fn win(mut self) -> (Term, Leader) {
        let mut due = tokio::time::interval(LOOK);
        due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut trouble = None;
        loop {
            due.tick().await;
            match self.attempt().await {
                Ok(Some(won)) => return won,
                Ok(None) => trouble = None,
                Err(reason) => {
                    if trouble.as_ref() != Some(&reason) {
                        tracing::warn!(reason, "the lease of the gateways is not known");
                        trouble = Some(reason);
                    }
                }
            }
        }
    }

    async fn attempt(&mut self) -> Result<Option<(Term, Leader)>, String> {
        let found = answer("get", self.leases.get_opt(NAME)).await?;
        let (now, begun) = (Timestamp::now(), Instant::now());
        let wanted = match self.candidate.look(found.as_ref(), begun, now) {
            Look::Wait(leader) => {
                self.tell(leader);
                return Ok(None);
            }
            Look::Take(wanted) => wanted,
        };
        let written = if found.is_some() {
            answer("update", self.leases.replace(NAME, &PostParams::default(), &wanted)).await
        } else {
            answer("create", self.leases.create(&PostParams::default(), &wanted)).await
        };
        // Whoever was quicker is seen next time; and so is a write whose answer was lost.
        let Some(held) = Held::of(&written?) else { return Ok(None) };
        let before = found.as_ref().and_then(Held::of);
        self.tell(held.leader());
        let led_before = before.as_ref().map(Held::leader).unwrap_or_default();
        Ok(Some((Term::begin(self.leases.clone(), held, before, begun), led_before)))
    }

    fn tell(&self, leader: Leader) {
        self.leader.send_if_modified(|known| {
            let is_news = *known != leader;
            if is_news {
                tracing::info!(leader = leader.name, address = ?leader.address, "the gateways' lease is seen");
                *known = leader;
            }
            is_news
        });
    }
}

/// The answer of the API server, or why there is none.
async fn answer<T>(verb: &str, asked: impl Future<Output = Result<T, kube::Error>>) -> Result<T, String> {
    match tokio::time::timeout(ANSWER, asked).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(kube::Error::Api(status))) => Err(format!("{verb} Lease {NAME}: {}", status.message)),
        Ok(Err(error)) => Err(format!("{verb} Lease {NAME}: {error}")),
        Err(_late) => Err(format!("{verb} Lease {NAME}: no answer within {} s", ANSWER.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_keeps_its_name_and_has_its_folder_for_itself() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let first = Replica::open(&state, "gw").unwrap();
        let name = first.name().to_owned();
        assert!(name.starts_with("gw_"), "{name}");
        assert!(matches!(Replica::open(&state, "gw"), Err(ReplicaError::InUse(_))));
        drop(first);
        assert_eq!(Replica::open(&state, "gw").unwrap().name(), name);
        let other = tempfile::tempdir().unwrap();
        assert_ne!(Replica::open(other.path(), "gw").unwrap().name(), name);
    }
}
