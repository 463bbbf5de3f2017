//! What a session says and hears, without its stream: the greeting, then what the cursor says, and what an agent's
//! messages mean. Time, network and store are the caller's.

use std::sync::Arc;

use proto::v1::gateway_message::Message;
use proto::v1::{Ack, AgentMessage, Behind, Hello, HostReport, Reject, UpToDate, agent_message};

use super::{Cursor, Feed, Greeting, Rejection, Session, Step};
use crate::store::{Workload, Workloads};

/// A longer reason of a rejection is cut.
const MAX_REASON: usize = 1024;

/// One session's talk.
#[derive(Debug)]
pub struct Exchange {
    workload: Arc<Workload>,
    cursor: Cursor,
    session: Session,
    /// What the hello is answered with, until it is.
    greeting: Option<Greeting>,
    /// How often the agent said that it has another state under a number.
    contradictions: u32,
}

/// Each one makes every agent take another generation. After a restored backup there are two of them at most: the state
/// that the kernel runs, and the one that it was handed.
const MOST_CONTRADICTIONS: u32 = 2;

/// What to do next.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// Say this, in order.
    Say(Vec<Message>),
    /// Nothing before the agent speaks or the state changes.
    Wait,
    /// The workload is no part of the state.
    Absent,
    /// The agent knows more than this gateway and is to look for another one.
    Behind,
    /// Nothing any more: the workload was deleted, left, or was replaced.
    Revoked,
}

/// What an agent said.
#[derive(Clone, Debug, PartialEq)]
pub enum Heard {
    /// It runs what it was sent.
    Acknowledged,
    /// It does not run what it was sent.
    Refused(Rejection),
    /// Something of its host changed.
    Report(HostReport),
    /// Nothing that changes anything.
    Nothing,
}

/// What the protocol does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unexpected(pub &'static str);

impl Exchange {
    /// Begins with the agent's hello.
    #[must_use]
    pub fn open(workload: Arc<Workload>, hello: &Hello, feed: &Feed, session: Session) -> Self {
        let (cursor, greeting) = Cursor::open(workload.name.clone(), hello, feed, session.told());
        Self { workload, cursor, session, greeting: Some(greeting), contradictions: 0 }
    }

    /// The session.
    #[must_use]
    pub const fn session(&self) -> &Session {
        &self.session
    }

    /// What to say now; `None` for the feed: there is no state yet. `workloads` are as new as the feed or newer: a state
    /// in which another one has the name is not for this agent.
    pub fn next(&mut self, feed: Option<&Feed>, workloads: &Workloads) -> Next {
        if is_revoked(&self.workload, workloads) {
            return Next::Revoked;
        }
        match self.greeting.take() {
            Some(Greeting::UpToDate(generation)) => {
                self.session.acknowledged(generation);
                return Next::Say(vec![Message::UpToDate(UpToDate { generation: Some(generation) })]);
            }
            Some(Greeting::Behind(generation)) => {
                self.session.is_ahead();
                return Next::Say(vec![Message::Behind(Behind { generation: Some(generation) })]);
            }
            Some(Greeting::Contradicts(generation)) => self.session.contradicts(generation),
            Some(Greeting::Follows) | None => {}
        }
        match feed.map_or(Step::Wait, |feed| self.cursor.next(feed)) {
            Step::Wait => Next::Wait,
            Step::Absent => Next::Absent,
            Step::Behind => Next::Behind,
            Step::Send(updates) => {
                self.session.sent(updates.first().and_then(|update| update.generation));
                Next::Say(updates.into_iter().map(Message::Update).collect())
            }
        }
    }

    /// Takes what the agent says.
    ///
    /// # Errors
    /// [`Unexpected`] ends the session.
    pub fn receive(&mut self, received: AgentMessage) -> Result<Heard, Unexpected> {
        match received.message {
            Some(agent_message::Message::Ack(Ack { generation, trouble })) => {
                let generation = generation.ok_or(Unexpected("an ack names its generation"))?;
                let expected = self.cursor.acknowledge(generation);
                if expected {
                    self.session.acknowledged(generation);
                }
                if self.cursor.applied() == Some(generation) {
                    self.session.troubled(trouble.chars().take(MAX_REASON).collect());
                }
                Ok(if expected { Heard::Acknowledged } else { Heard::Nothing })
            }
            Some(agent_message::Message::Reject(Reject { generation, reason, contradicts })) => {
                let generation = generation.ok_or(Unexpected("a reject names its generation"))?;
                let rejection = Rejection { generation, reason: reason.chars().take(MAX_REASON).collect() };
                if contradicts {
                    if !self.cursor.contradict(generation) {
                        return Ok(Heard::Nothing);
                    }
                    self.contradictions += 1;
                    if self.contradictions > MOST_CONTRADICTIONS {
                        return Err(Unexpected("the agent has another state under too many numbers"));
                    }
                    self.session.contradicts(generation);
                    return Ok(Heard::Refused(rejection));
                }
                if !self.cursor.refuse(generation) {
                    return Ok(Heard::Nothing);
                }
                self.session.refused(rejection.clone());
                Ok(Heard::Refused(rejection))
            }
            Some(agent_message::Message::Report(report)) => Ok(Heard::Report(report)),
            Some(agent_message::Message::Hello(_)) => Err(Unexpected("a session has one hello")),
            // What a newer agent says beside this.
            None => Ok(Heard::Nothing),
        }
    }
}

/// Whether who was let in as this workload is none any more: it was deleted, left, or was replaced.
#[must_use]
pub fn is_revoked(workload: &Workload, workloads: &Workloads) -> bool {
    workloads.get(&workload.name).is_none_or(|now| now.key != workload.key)
}
