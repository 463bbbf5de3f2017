//! Where an agent stands, and what it is sent next: one update at a time, from what it has confirmed to the latest
//! state. However far it lags, it costs its place and nothing else.

use proto::v1::{Generation, Hello, Update};

use super::{Feed, encode};
use crate::store::WorkloadName;

/// An agent's place.
#[derive(Debug)]
pub struct Cursor {
    workload: WorkloadName,
    /// What the agent has applied, as it calls it; `None`: nothing it could go on from.
    applied: Option<Generation>,
    /// The generation of this gateway with the same state.
    at: Option<u64>,
    /// It knows more than this gateway, whatever the numbers say.
    ahead: bool,
    /// What it was sent and has not answered.
    sent: Option<Generation>,
    /// The newest it refused; it is tried again with the next one.
    refused: Option<Generation>,
    /// The number under which it has another state: what it is sent must have another one.
    contradicted: Option<Generation>,
}

/// Who told an agent the state it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// This process.
    Here,
    /// Another one.
    Elsewhere,
    /// One of which this store knows nothing, because it was restored from an older backup.
    Later,
}

/// The answer to a hello.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Greeting {
    /// The agent has the latest state.
    UpToDate(Generation),
    /// The agent knows more than this gateway.
    Behind(Generation),
    /// The agent has another state under the number of the latest one: updates follow under a new number.
    Contradicts(Generation),
    /// Updates follow.
    Follows,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Nothing before the agent answers or the state changes.
    Wait,
    /// Send these.
    Send(Vec<Update>),
    /// The workload is no part of the state.
    Absent,
    /// The agent knows more than this gateway and is to look for another one.
    Behind,
}

impl Cursor {
    /// The place that a hello tells; `told` is who told the agent the state it has. An agent of another
    /// incarnation starts from nothing: the numbers of two stores cannot be compared, and only an administrator gives
    /// the mesh another store. So does one that was told its state by somebody else: where the store was restored from
    /// a backup, numbers are given a second time, and a delta from one of them could build on another state.
    #[must_use]
    pub fn open(workload: WorkloadName, hello: &Hello, feed: &Feed, told: Told) -> (Self, Greeting) {
        let latest = feed.latest.generation();
        let digest = feed.latest.digest(&workload);
        let is_same = digest.is_some_and(|digest| *hello.digest == digest);
        let place = |applied, at, greeting| {
            let ahead = matches!(greeting, Greeting::Behind(_));
            (Self { workload, applied, at, ahead, sent: None, refused: None, contradicted: None }, greeting)
        };
        match hello.applied {
            Some(applied)
                if is_newer(applied, latest)
                    || (applied.incarnation == latest.incarnation && told == Told::Later) =>
            {
                place(Some(applied), None, Greeting::Behind(latest))
            }
            Some(applied) if applied == latest && is_same => {
                place(Some(applied), Some(latest.counter), Greeting::UpToDate(latest))
            }
            // The same state under another number, for instance after a restart of the gateway.
            Some(applied) if is_same && applied != latest => {
                place(Some(applied), Some(latest.counter), Greeting::Follows)
            }
            Some(applied) if applied == latest => {
                let (place, greeting) = place(None, None, Greeting::Contradicts(latest));
                (Self { contradicted: Some(latest), ..place }, greeting)
            }
            Some(applied) if applied.incarnation == latest.incarnation && told == Told::Here => {
                place(Some(applied), Some(applied.counter), Greeting::Follows)
            }
            Some(_) | None => place(None, None, Greeting::Follows),
        }
    }

    /// What to send now, if anything.
    pub fn next(&mut self, feed: &Feed) -> Step {
        let latest = feed.latest.generation();
        if self.ahead || self.applied.is_some_and(|applied| is_newer(applied, latest)) {
            return Step::Behind;
        }
        if self.sent.is_some() || [self.applied, self.refused, self.contradicted].contains(&Some(latest)) {
            return Step::Wait;
        }
        let Some(audience) = feed.latest.audience(&self.workload) else { return Step::Absent };
        let delta = self.at.and_then(|at| match at {
            at if at == latest.counter => Some(Vec::new()),
            at => feed.log.since(at, &self.workload, audience),
        });
        let (base, parts) = match delta {
            Some(parts) => (self.applied, parts),
            None => match feed.latest.snapshot(&self.workload) {
                Some(parts) => (None, parts),
                None => return Step::Absent,
            },
        };
        self.sent = Some(latest);
        Step::Send(encode::updates(base, latest, parts))
    }

    /// The agent applied a generation. Whether it is the one it was sent, or the one that it refused at first and went
    /// on trying.
    pub fn acknowledge(&mut self, generation: Generation) -> bool {
        if self.sent == Some(generation) {
            self.sent = None;
        } else if self.refused != Some(generation) {
            return false;
        }
        self.applied = Some(generation);
        self.at = Some(generation.counter);
        self.refused = None;
        true
    }

    /// The agent keeps what it had. Whether it refused what it was sent.
    pub fn refuse(&mut self, generation: Generation) -> bool {
        let expected = self.sent == Some(generation);
        if expected {
            self.refused = self.sent.take();
        }
        expected
    }

    /// The agent has another state under a number: it is nothing to go on from. Whether it was sent that.
    pub fn contradict(&mut self, generation: Generation) -> bool {
        let expected = [self.sent, self.applied].contains(&Some(generation));
        if expected {
            (self.applied, self.at, self.sent, self.refused) = (None, None, None, None);
            self.contradicted = Some(generation);
        }
        expected
    }

    /// What the agent has confirmed.
    #[must_use]
    pub const fn applied(&self) -> Option<Generation> {
        self.applied
    }
}

/// Whether a generation came after another of the same store.
const fn is_newer(generation: Generation, than: Generation) -> bool {
    generation.incarnation == than.incarnation && generation.counter > than.counter
}
