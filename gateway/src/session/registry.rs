//! Who is connected, and what each agent said last. One session per workload: the same machine replaces its old one,
//! another machine with the same key is refused.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pki::KeyHash;
use proto::v1::{Generation, NicReport, ProbeReport};
use tokio::sync::watch;

use super::{Told, Writes};
use crate::clock::Monotonic;
use crate::store::{Lineage, WorkloadName, Workloads};

/// How long an agent without a session is expected back. Its host goes on meanwhile with what it has.
const COMES_BACK: Duration = Duration::from_mins(5);

/// Why a session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The same machine connected again.
    Replaced,
    /// The workload was deleted, left, or was replaced.
    Revoked,
}

/// Two machines with one key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "DuplicateHost: workload {workload} has a session from machine {connected}, and machine {refused} came with the \
     same key: one of them is a copy; `outrigger leave` there and join it under its own name"
)]
pub struct DuplicateHost {
    /// The workload.
    pub workload: WorkloadName,
    /// The machine whose session stays, in hexadecimal digits.
    pub connected: String,
    /// The machine that was refused, in hexadecimal digits.
    pub refused: String,
}

/// An update that an agent refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Which one.
    pub generation: Generation,
    /// Why.
    pub reason: String,
}

/// What is known of a workload's agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionStatus {
    /// Whether it has a session.
    pub connected: bool,
    /// What it applied last.
    pub applied: Option<Generation>,
    /// What it refused and has not applied a later one since.
    pub rejected: Option<Rejection>,
    /// What its host's network lacks of what it applied; empty: nothing.
    pub trouble: String,
    /// A second machine that came with its key; until the next session begins.
    pub duplicate: Option<DuplicateHost>,
    /// Why what the host reports is not recorded; until it reports something else.
    pub refused_report: Option<String>,
    /// It came with a state that this gateway does not know to have been published: its store was restored from an older
    /// backup.
    pub ahead: bool,
    /// What its agent says about the policy of its NICs; the default: nothing.
    pub nic: NicReport,
    /// What it says about its probes; the default: nothing.
    pub probes: ProbeReport,
}

/// All sessions.
#[derive(Debug)]
pub struct Registry {
    workloads: Mutex<BTreeMap<WorkloadName, Slot>>,
    /// Counts what could let a change of an identity go on: acknowledgements and ends of sessions.
    progress: watch::Sender<u64>,
    /// The newest generation under whose number an agent has another state.
    contradicted: watch::Sender<u64>,
    writes: Arc<Writes>,
    lineage: Lineage,
    time: Monotonic,
}

/// A session, as its own stream has it. Dropping it ends it.
#[derive(Debug)]
pub struct Session {
    registry: Arc<Registry>,
    slot: Slot,
    number: u64,
    ended: watch::Receiver<Option<Ended>>,
    told: Told,
}

/// Locked after the map, where both are. A session has its own, and needs no look-up for what its agent says.
#[derive(Clone, Debug, Default)]
struct Slot(Arc<Mutex<Entry>>);

#[derive(Debug, Default)]
struct Entry {
    status: SessionStatus,
    live: Option<Live>,
    last_number: u64,
    /// When its last session ended, or this process began to expect one.
    gone: Option<Instant>,
    /// What this process sent to the agent last, and what the agent confirmed of it: it has one of both. A number that
    /// it brings from elsewhere may be that of another state, where the store was restored from a backup.
    sent: Option<Generation>,
    confirmed: Option<Generation>,
}

#[derive(Debug)]
struct Live {
    number: u64,
    key: KeyHash,
    machine: Vec<u8>,
    end: watch::Sender<Option<Ended>>,
}

impl Default for Registry {
    fn default() -> Self {
        Self {
            workloads: Mutex::default(),
            progress: watch::Sender::new(0),
            contradicted: watch::Sender::new(0),
            writes: Arc::default(),
            lineage: Lineage::default(),
            time: Monotonic::default(),
        }
    }
}

impl Registry {
    /// One that takes the time from a clock of the caller's.
    #[must_use]
    pub fn with_time(time: Monotonic) -> Self {
        Self { time, ..Self::default() }
    }

    /// One that knows where a store's numbers come from.
    #[must_use]
    pub fn with_lineage(lineage: Lineage) -> Self {
        Self { lineage, ..Self::default() }
    }

    /// Begins a session. One with the key that the workload had before it was replaced gives way.
    ///
    /// # Errors
    /// [`DuplicateHost`] while another machine has one.
    pub fn begin(
        self: &Arc<Self>,
        workload: &WorkloadName,
        key: KeyHash,
        machine: &[u8],
        applied: Option<Generation>,
    ) -> Result<Session, DuplicateHost> {
        let mut workloads = self.lock();
        let slot = workloads.entry(workload.clone()).or_default().clone();
        let mut entry = slot.lock();
        if let Some(live) = &entry.live {
            if live.key == key && live.machine != machine {
                let duplicate = DuplicateHost {
                    workload: workload.clone(),
                    connected: hex::encode(&live.machine),
                    refused: hex::encode(machine),
                };
                entry.status.duplicate = Some(duplicate.clone());
                return Err(duplicate);
            }
            live.end.send_replace(Some(Ended::Replaced));
        }
        let (end, ended) = watch::channel(None);
        entry.last_number += 1;
        let number = entry.last_number;
        entry.live = Some(Live { number, key, machine: machine.to_vec(), end });
        let told = match applied {
            Some(applied) if [entry.sent, entry.confirmed].contains(&Some(applied)) => Told::Here,
            Some(applied) if self.lineage.is_later(applied) => Told::Later,
            Some(_) | None => Told::Elsewhere,
        };
        entry.status.ahead = false;
        entry.status.connected = true;
        entry.status.duplicate = None;
        entry.status.applied = applied;
        entry.status.rejected = None;
        entry.status.refused_report = None;
        entry.status.trouble.clear();
        drop(entry);
        drop(workloads);
        Ok(Session { registry: Arc::clone(self), slot, number, ended, told })
    }

    /// Counts these as if their sessions had just ended: an earlier process had them.
    pub fn expect<'a>(&self, names: impl Iterator<Item = &'a WorkloadName>, now: Instant) {
        let mut workloads = self.lock();
        for name in names {
            workloads.entry(name.clone()).or_default().lock().gone = Some(now);
        }
    }

    /// What is known of a workload's agent.
    #[must_use]
    pub fn status(&self, workload: &WorkloadName) -> SessionStatus {
        self.lock().get(workload).map(|slot| slot.lock().status.clone()).unwrap_or_default()
    }

    /// The workloads that have a session.
    #[must_use]
    pub fn connected(&self) -> Vec<WorkloadName> {
        let workloads = self.lock();
        let connected = workloads.iter().filter(|(_, slot)| slot.lock().live.is_some());
        connected.map(|(name, _)| name.clone()).collect()
    }

    /// How many these are.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.lock().values().filter(|slot| slot.lock().live.is_some()).count()
    }

    /// The oldest generation of this incarnation that an agent has applied: 0 where one has applied none, `None` without
    /// agents. Agents count while they are connected and a while after, since their hosts go on without a session.
    /// Agents that refuse a generation count with what they keep.
    #[must_use]
    pub fn acknowledged(&self, incarnation: u64, now: Instant) -> Option<u64> {
        let workloads = self.lock();
        let counts = |entry: &Entry| {
            let recent = |gone| now.saturating_duration_since(gone) < COMES_BACK;
            entry.live.is_some() || entry.gone.is_some_and(recent)
        };
        let applied = workloads.values().filter_map(|slot| {
            let entry = slot.lock();
            let applied = entry.status.applied.filter(|applied| applied.incarnation == incarnation);
            counts(&entry).then(|| applied.map_or(0, |applied| applied.counter))
        });
        applied.min()
    }

    /// Changes when [`Registry::acknowledged`] may have.
    #[must_use]
    pub fn progress(&self) -> watch::Receiver<u64> {
        self.progress.subscribe()
    }

    /// An agent has another state under this number: it is not used any longer.
    pub fn contradict(&self, counter: u64) {
        self.contradicted.send_if_modified(|newest| {
            let newer = counter > *newest;
            *newest = counter.max(*newest);
            newer
        });
    }

    /// The newest number that is not to be used any longer.
    #[must_use]
    pub fn contradicted(&self) -> watch::Receiver<u64> {
        self.contradicted.subscribe()
    }

    /// The workloads that came with states this gateway does not know.
    #[must_use]
    pub fn ahead(&self) -> Vec<WorkloadName> {
        let workloads = self.lock();
        let ahead = workloads.iter().filter(|(_, slot)| slot.lock().status.ahead);
        ahead.map(|(name, _)| name.clone()).collect()
    }

    /// What is on its way to agents.
    #[must_use]
    pub const fn writes(&self) -> &Arc<Writes> {
        &self.writes
    }

    /// Ends the sessions of those that are none of these workloads any more. One look for all: to wake every session for
    /// each workload that joins or reports something would cost more than the sessions themselves.
    pub fn end_revoked(&self, workloads: &Workloads) {
        for (name, slot) in self.lock().iter() {
            let entry = slot.lock();
            let live = entry.live.as_ref();
            if let Some(live) = live.filter(|live| workloads.get(name).is_none_or(|now| now.key != live.key))
            {
                live.end.send_if_modified(|ended| ended.is_none() && ended.replace(Ended::Revoked).is_none());
            }
        }
    }

    /// Forgets workloads that are gone.
    pub fn retain(&self, exists: impl Fn(&WorkloadName) -> bool) {
        self.lock().retain(|workload, slot| slot.lock().live.is_some() || exists(workload));
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<WorkloadName, Slot>> {
        self.workloads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session {
    /// Who told the agent the state it came with.
    #[must_use]
    pub const fn told(&self) -> Told {
        self.told
    }

    /// The agent is sent a generation.
    pub fn sent(&self, generation: Option<Generation>) {
        let mut entry = self.slot.lock();
        if entry.is_at(self.number) {
            entry.sent = generation;
        }
    }

    /// The agent knows of more than this gateway.
    pub fn is_ahead(&self) {
        self.update(|entry| entry.status.ahead = true);
    }

    /// The agent applied a generation.
    pub fn acknowledged(&self, generation: Generation) {
        self.update(|entry| {
            entry.confirmed = Some(generation);
            entry.status.applied = Some(generation);
            entry.status.rejected = None;
        });
    }

    /// The agent refused a generation.
    pub fn refused(&self, rejection: Rejection) {
        self.update(|entry| entry.status.rejected = Some(rejection));
    }

    /// What the host reports is not recorded, or (`None`) is again.
    pub fn refused_report(&self, reason: Option<String>) {
        self.update(|entry| entry.status.refused_report = reason);
    }

    /// The agent says what its host's network lacks.
    pub fn troubled(&self, trouble: String) {
        self.update(|entry| entry.status.trouble = trouble);
    }

    /// The agent says what became of the policy of its NICs; whether that is news.
    #[must_use]
    pub fn nic(&self, nic: &NicReport) -> bool {
        let mut is_news = false;
        self.update(|entry| {
            is_news = entry.status.nic != *nic;
            entry.status.nic.clone_from(nic);
        });
        is_news
    }

    /// The agent says whether its workload serves. One that has just started and does not know yet changes nothing.
    pub fn probes(&self, probes: ProbeReport) {
        self.update(|entry| {
            if probes.state != "pending" {
                entry.status.probes = probes;
            }
        });
    }

    /// Whether the agent never said anything about the policy of its NICs.
    #[must_use]
    pub fn is_silent_about_nics(&self) -> bool {
        self.slot.lock().status.nic == NicReport::default()
    }

    /// Returns when the session is over although its stream is not.
    pub fn ended(&self) -> impl Future<Output = Ended> + Send + use<> {
        let mut ended = self.ended.clone();
        async move {
            match ended.wait_for(Option::is_some).await.map(|ended| *ended) {
                Ok(Some(ended)) => ended,
                // The registry has forgotten it, which only a newer session does.
                Ok(None) | Err(_) => Ended::Replaced,
            }
        }
    }

    /// Whether a newer session took its place.
    #[must_use]
    pub fn is_replaced(&self) -> bool {
        self.ended.borrow().is_some()
    }

    /// The agent has another state under this number, which is not used any longer: what it has confirms nothing.
    pub fn contradicts(&self, generation: Generation) {
        self.update(|entry| {
            entry.status.applied = None;
            (entry.sent, entry.confirmed) = (None, None);
        });
        self.registry.contradict(generation.counter);
    }

    fn update(&self, change: impl FnOnce(&mut Entry)) {
        let mut entry = self.slot.lock();
        if entry.is_at(self.number) {
            change(&mut entry);
        }
        drop(entry);
        self.registry.progress.send_modify(|count| *count += 1);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let mut entry = self.slot.lock();
        if entry.is_at(self.number) {
            entry.live = None;
            entry.gone = Some(self.registry.time.now());
            entry.status.connected = false;
        }
        drop(entry);
        self.registry.progress.send_modify(|count| *count += 1);
    }
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, Entry> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn is_at(&self, number: u64) -> bool {
        self.live.as_ref().is_some_and(|live| live.number == number)
    }
}

#[cfg(test)]
mod tests;
