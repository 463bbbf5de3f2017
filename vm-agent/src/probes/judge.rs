//! What follows from attempts: so many in a row change what is thought.

use policy::state::Probe;

/// What is thought of a probe.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it succeeds.
    pub state: State,
    /// Why it began to fail.
    pub reason: String,
    /// What came of the last attempt; empty: success.
    pub message: String,
}

/// Whether a probe succeeds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Nobody knows yet.
    #[default]
    Pending,
    /// It does.
    Passing,
    /// It does not.
    Failing,
}

/// Counts.
#[derive(Debug)]
pub(super) struct Judge {
    verdict: Verdict,
    successes: u32,
    failures: u32,
    /// How many in a row matter.
    needed: [u32; 2],
}

impl State {
    /// The word of the interface.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Passing => "passing",
            Self::Failing => "failing",
        }
    }
}

impl Judge {
    /// Goes on from what is known.
    pub(super) fn new(probe: &Probe, known: Verdict) -> Self {
        let needed = [probe.successes.max(1), probe.failures.max(1)];
        Self { verdict: known, successes: 0, failures: 0, needed }
    }

    /// Takes what came of an attempt.
    pub(super) fn take(&mut self, result: Result<(), String>) -> Verdict {
        let [successes, failures] = self.needed;
        match result {
            Ok(()) => {
                (self.successes, self.failures) = (self.successes.saturating_add(1), 0);
                self.verdict.message.clear();
                if self.successes >= successes && self.verdict.state != State::Passing {
                    (self.verdict.state, self.verdict.reason) = (State::Passing, String::new());
                }
            }
            Err(message) => {
                (self.successes, self.failures) = (0, self.failures.saturating_add(1));
                if self.failures >= failures && self.verdict.state != State::Failing {
                    (self.verdict.state, self.verdict.reason) = (State::Failing, message.clone());
                }
                self.verdict.message = message;
            }
        }
        self.verdict.clone()
    }
}
