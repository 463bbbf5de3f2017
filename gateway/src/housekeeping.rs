//! What is done once a minute: who is connected is written down, and what nobody can use any more is forgotten.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pki::UnixTime;

use crate::audit::{Audit, Event};
use crate::store::{RenewRefusal, Store, WorkloadError, WorkloadName};

/// How long a host that joined to be forgotten may be away. What counts is the time while a gateway ran that would have seen
/// it.
const AWAY: Duration = Duration::from_mins(30);
/// Who the audit log says did it.
const BY: &str = "away for 30 min (ephemeral)";

/// Who does it.
pub struct Housekeeper {
    store: Arc<Store>,
    audit: Arc<Audit>,
    /// How long expired tokens and revoked keys are kept.
    keep: Duration,
    /// Since when hosts are away that are to be forgotten then.
    away: BTreeMap<WorkloadName, Instant>,
}

impl Housekeeper {
    /// One that keeps expired tokens and revoked keys for so long.
    #[must_use]
    pub const fn new(store: Arc<Store>, audit: Arc<Audit>, keep: Duration) -> Self {
        Self { store, audit, keep, away: BTreeMap::new() }
    }

    /// Does it once. `at` is the same moment as `now`, by a clock that nobody sets.
    ///
    /// # Errors
    /// The store's; what was not done is done the next time.
    pub fn tidy(
        &mut self,
        connected: &[WorkloadName],
        now: UnixTime,
        at: Instant,
    ) -> Result<(), WorkloadError> {
        self.store.seen(connected, now)?;
        for workload in self.store.end_claims(now)? {
            tracing::info!(%workload, "claim to an underlay address ended: another host has it now");
        }
        self.store.tidy(now, self.keep)?;
        for name in self.gone(connected, at) {
            match self.store.remove(&name, now, "deleted") {
                Ok(_removed) => {
                    tracing::info!(workload = %name, by = BY, "workload deleted");
                    let event = Event::Deleted { workload: name.to_string(), by: BY.to_owned() };
                    self.audit.record(&event, now);
                }
                Err(WorkloadError::Refused(RenewRefusal::Unknown(_))) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The hosts that have been away for too long.
    fn gone(&mut self, connected: &[WorkloadName], at: Instant) -> Vec<WorkloadName> {
        let connected: BTreeSet<&WorkloadName> = connected.iter().collect();
        let workloads = self.store.workloads();
        let is_away = |name: &WorkloadName| {
            let is_ephemeral = workloads.get(name).is_some_and(|workload| workload.ephemeral);
            is_ephemeral && !connected.contains(name)
        };
        self.away.retain(|name, _| is_away(name));
        for name in workloads.keys().filter(|name| is_away(name)) {
            self.away.entry(name.clone()).or_insert(at);
        }
        let is_long = |since: &Instant| at.saturating_duration_since(*since) >= AWAY;
        self.away.iter().filter(|(_, since)| is_long(since)).map(|(name, _)| name.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use pki::KeyHash;

    use super::*;
    use crate::store::{Joining, Minting, Pools, Proof, Settings, Target, unix_time};

    const MINUTE: Duration = Duration::from_mins(1);

    fn join(store: &Store, name: &str, ephemeral: bool) {
        let now = unix_time(1_000_000);
        let minting = Minting {
            ephemeral,
            ..Minting::new(
                Target::Group { namespace: "shop".to_owned(), name: "db".to_owned() },
                Duration::from_hours(1),
            )
        };
        let minted = store.mint(minting, now).unwrap();
        let joining = Joining {
            proof: Proof::Token { id: minted.token.id, secret: minted.secret },
            name: WorkloadName::try_new("shop", name).unwrap(),
            key: KeyHash::of_spki(name.as_bytes()),
            machine: Vec::new(),
            underlay: Vec::new(),
            source: None,
            agent_version: String::new(),
            wanted: Vec::new(),
            promised: std::collections::BTreeSet::new(),
        };
        store.join(&joining, now, now).unwrap();
    }

    #[test]
    fn an_ephemeral_host_is_forgotten_once_it_was_away_for_long_while_somebody_looked() {
        let folder = tempfile::tempdir().unwrap();
        let pools = Pools::try_new(&["10.0.0.0/24".parse().unwrap()]).unwrap();
        let settings = Settings { pools, cluster_id: 0, quarantine: Duration::from_hours(24) };
        let store = Arc::new(Store::open(folder.path(), settings).unwrap());
        let log = folder.path().join("audit.log");
        let audit = Arc::new(Audit::open(&log).unwrap());
        for (name, ephemeral) in [("lasting", false), ("brief", true), ("back", true)] {
            join(&store, name, ephemeral);
        }
        let mut keeper = Housekeeper::new(store.clone(), audit, Duration::from_hours(1));
        let name = |name: &str| WorkloadName::try_new("shop", name).unwrap();
        // The wall clock may be set to anything: only the time that passes counts.
        let (start, far) = (Instant::now(), unix_time(2_000_000));
        let mut look = |minutes: u32, connected: &[WorkloadName]| {
            keeper.tidy(connected, far, start + MINUTE * minutes).unwrap();
            store.workloads().keys().map(|name| name.name.clone()).collect::<Vec<_>>()
        };
        assert_eq!(look(0, &[]), ["back", "brief", "lasting"]);
        assert_eq!(look(29, &[name("back")]), ["back", "brief", "lasting"]);
        assert_eq!(look(30, &[]), ["back", "lasting"]);
        assert_eq!(look(59, &[]), ["back", "lasting"]);
        assert_eq!(look(60, &[]), ["lasting"]);
        let log = std::fs::read_to_string(log).unwrap();
        assert!(log.contains("shop/brief") && !log.contains("shop/lasting"), "{log}");
    }
}
