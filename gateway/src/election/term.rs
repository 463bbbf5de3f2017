//! The time for which a replica holds the lease.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Api, PostParams};
use tokio::sync::{Notify, watch};

use super::lease::Held;
use super::{DURATION, NAME, RENEW, answer};
use crate::store::Beginning;

/// Between an attempt that failed and the next.
const AGAIN: Duration = Duration::from_millis(500);
/// Attempts whose answer is not known: the Lease may be what any of them wrote.
const UNANSWERED: usize = 64;

/// A term. Clones are of the same.
#[derive(Clone, Debug)]
pub struct Term {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    leases: Api<Lease>,
    beginning: Beginning,
    state: Mutex<State>,
    /// Renewed now, and not when it is due.
    now: Notify,
    /// When the last renewal that succeeded was begun; `Err`: the term is over, and why.
    renewed: watch::Sender<Result<Instant, String>>,
}

#[derive(Debug)]
struct State {
    held: Held,
    /// Nobody else can have taken it before.
    until: Instant,
    /// What was written without an answer.
    unanswered: Vec<Timestamp>,
    address: Option<SocketAddr>,
}

/// What became of an attempt to renew.
enum Attempt {
    Renewed(Box<Held>),
    /// Somebody else wrote it, or it is gone.
    Over(String),
    Unknown(String),
}

impl Term {
    /// Begins with the Lease as it was written at `begun`; `before` is what it said then.
    pub(super) fn begin(leases: Api<Lease>, held: Held, before: Option<Held>, begun: Instant) -> Self {
        let before =
            before.filter(|before| before.run != 0).map(|before| (before.run, seconds(before.renewed)));
        let beginning = Beginning { run: held.run, before };
        let state = State { held, until: begun + DURATION, unanswered: Vec::new(), address: None };
        let shared = Shared {
            leases,
            beginning,
            state: Mutex::new(state),
            now: Notify::new(),
            renewed: watch::Sender::new(Ok(begun)),
        };
        Self { shared: Arc::new(shared) }
    }

    /// One that nobody renews, whose cluster is never asked.
    #[cfg(test)]
    pub(crate) fn of_a_test() -> Self {
        let uri = "http://127.0.0.1:1".parse().unwrap();
        let client = kube::Client::try_from(kube::Config::new(uri)).unwrap();
        let leases = Api::namespaced(client, "mesh");
        let held = Held::of_a_test();
        Self::begin(leases, held, None, Instant::now())
    }

    /// The run that it is, and what is known of the one before.
    #[must_use]
    pub fn beginning(&self) -> Beginning {
        self.shared.beginning
    }

    /// The second since 1970 that the Lease names: what is published under it was published no later.
    #[must_use]
    pub fn renewed(&self) -> u64 {
        seconds(self.shared.lock().held.renewed)
    }

    /// How long nobody else can have the lease.
    ///
    /// # Errors
    /// Since when that is not certain, or who has it.
    pub fn remaining(&self) -> Result<Duration, String> {
        if let Err(reason) = &*self.shared.renewed.borrow() {
            return Err(reason.clone());
        }
        let (until, now) = (self.shared.lock().until, Instant::now());
        until.checked_duration_since(now).filter(|remaining| !remaining.is_zero()).ok_or_else(|| {
            let late = now.saturating_duration_since(until) + DURATION;
            format!("the lease of the gateways could not be renewed for {} s", late.as_secs())
        })
    }

    /// Says where the replica takes over connections.
    pub fn serve_at(&self, address: SocketAddr) {
        self.shared.lock().address = Some(address);
        self.shared.now.notify_one();
    }

    /// Waits until the lease was renewed by an attempt that began after this call: what was read before is what a cluster
    /// says that has not gone back. Never returns when the term is over.
    pub async fn confirmed(&self) {
        let (asked, mut renewed) = (Instant::now(), self.shared.renewed.subscribe());
        self.shared.now.notify_one();
        let is_done = |renewed: &Result<Instant, String>| renewed.as_ref().is_ok_and(|begun| *begun >= asked);
        if renewed.wait_for(is_done).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits until the term is over, and says why.
    pub async fn over(&self) -> String {
        let mut renewed = self.shared.renewed.subscribe();
        match renewed.wait_for(Result::is_err).await.map(|reason| reason.clone()) {
            Ok(Err(reason)) => reason,
            // The sender is in this very struct.
            Ok(Ok(_)) | Err(_) => std::future::pending().await,
        }
    }

    /// Ends the term: somebody says who knows.
    pub fn end(&self, reason: &str) {
        self.shared.end(reason.to_owned());
    }

    /// Renews the lease until the term is over.
    pub async fn renew(self) {
        let mut pause = RENEW;
        loop {
            let _early = tokio::time::timeout(pause, self.shared.now.notified()).await;
            if self.shared.renewed.borrow().is_err() {
                return;
            }
            pause = if self.shared.renew().await { RENEW } else { AGAIN };
        }
    }

    /// Gives the lease up, if it is still held.
    pub async fn release(&self) {
        if self.shared.renewed.borrow().is_err() {
            return;
        }
        self.end("the lease was given up");
        let released = self.shared.lock().held.released(Timestamp::now());
        if let Err(reason) =
            answer("update", self.shared.leases.replace(NAME, &PostParams::default(), &released)).await
        {
            tracing::info!(reason, "the lease is not given up: others wait until its time is over");
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, reason: String) {
        self.renewed.send_if_modified(|renewed| {
            let is_news = renewed.is_ok();
            if is_news {
                *renewed = Err(reason);
            }
            is_news
        });
    }

    /// Whether it was renewed, or is over.
    async fn renew(&self) -> bool {
        let begun = Instant::now();
        match self.attempt().await {
            Attempt::Renewed(held) => {
                let mut state = self.lock();
                state.held = *held;
                state.until = begun + DURATION;
                state.unanswered.clear();
                drop(state);
                self.renewed.send_if_modified(|renewed| {
                    let goes_on = renewed.is_ok();
                    if goes_on {
                        *renewed = Ok(begun);
                    }
                    goes_on
                });
                true
            }
            Attempt::Over(reason) => {
                self.end(reason);
                true
            }
            Attempt::Unknown(reason) => {
                let is_late = self.lock().until <= Instant::now();
                if is_late {
                    tracing::warn!(
                        reason,
                        "the lease of the gateways is not renewed: nothing new is published or written"
                    );
                } else {
                    tracing::debug!(reason, "the lease of the gateways is not renewed yet");
                }
                false
            }
        }
    }

    async fn attempt(&self) -> Attempt {
        let wanted = {
            let mut state = self.lock();
            let wanted = state.held.renewed_at(Timestamp::now(), state.address);
            if let Some(held) = Held::of(&wanted) {
                state.unanswered.push(held.renewed);
            }
            if state.unanswered.len() > UNANSWERED {
                state.unanswered.remove(0);
            }
            wanted
        };
        let replaced = answer("update", self.leases.replace(NAME, &PostParams::default(), &wanted)).await;
        let trouble = match replaced {
            Ok(written) => match Held::of(&written) {
                Some(held) => return Attempt::Renewed(Box::new(held)),
                None => return Attempt::Over("the lease of the gateways says nothing".to_owned()),
            },
            Err(trouble) => trouble,
        };
        // A refusal says that somebody wrote it, which may have been this replica.
        let found = match answer("get", self.leases.get_opt(NAME)).await {
            Ok(found) => found,
            Err(_also) => return Attempt::Unknown(trouble),
        };
        let state = self.lock();
        match found.as_ref().map(Held::of) {
            None => Attempt::Over("the lease of the gateways is gone".to_owned()),
            Some(Some(found)) if state.is_own(&found) => {
                drop(state);
                self.lock().held = found;
                Attempt::Unknown(trouble)
            }
            Some(Some(found)) if found.holder == state.held.holder => Attempt::Over(
                "the lease of the gateways is not as it was written: the cluster was restored from a backup"
                    .to_owned(),
            ),
            Some(found) => {
                let holder = found.map(|found| found.holder).filter(|holder| !holder.is_empty());
                let holder = holder.unwrap_or_else(|| "nobody".to_owned());
                Attempt::Over(format!("the lease of the gateways is held by {holder}"))
            }
        }
    }
}

impl State {
    /// Whether a Lease is what this replica wrote last, or tried to write since.
    fn is_own(&self, found: &Held) -> bool {
        let is_known = |time: &Timestamp| seconds_and_more(*time) == seconds_and_more(found.renewed);
        found.holder == self.held.holder
            && found.run == self.held.run
            && (is_known(&self.held.renewed) || self.unanswered.iter().any(is_known))
    }
}

/// A time as a Lease has it, in microseconds.
fn seconds_and_more(time: Timestamp) -> i64 {
    time.as_microsecond()
}

fn seconds(time: Timestamp) -> u64 {
    u64::try_from(time.as_second()).unwrap_or_default()
}
