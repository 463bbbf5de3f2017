//! The decisions of a session, as a state machine: messages and kernel answers in, [`Outcome`]s out.
//!
//! Three states of the mesh matter: what the kernel runs, what it was given and has not answered, and the newest
//! received. An update applies whole to the state it names as its base or not at all, and nothing ever goes back
//! within one incarnation of the gateway's store: a newer incarnation exists only because an administrator
//! restored it, and begins with a snapshot.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use policy::state::NodeState;
use proto::node::Node;
use proto::parts::Parts;
use proto::pool::Pool;
use proto::v1;

use crate::kernel::{Applied, Tag};

/// States in the kernel's hands at once. Of more, only the newest counts.
const HANDED: usize = 2;

/// A state with its generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// The generation.
    pub tag: Tag,
    /// What was received.
    pub node: Arc<Node>,
    /// The same, as the kernel takes it.
    pub state: Arc<NodeState>,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The kernel shall run this.
    Target(Version),
    /// The kernel runs this: tell the gateway, and keep it for the next boot.
    Ack(Version),
    /// Tell the gateway what the host's network lacks of the generation that the kernel runs; nothing if empty.
    Trouble(Tag, String),
    /// The gateway confirms that the state is the current one.
    Current,
    /// Tell the gateway that the generation is not in force, and why.
    Reject(Tag, String),
    /// Tell the gateway that this host has another state under the number of this generation.
    Contradicts(Tag),
    /// The gateway wants the certificate renewed within this time.
    Renew(Duration),
    /// The gateway knows less than this agent: try another one.
    Behind(String),
    /// What came does not fit: close the stream and say hello again.
    Resync(String),
}

/// The state machine.
#[derive(Clone, Debug, Default)]
pub struct Core {
    applied: Option<Version>,
    handed: VecDeque<Version>,
    head: Option<Version>,
    /// What the hello named, until the update that follows it has come.
    greeted: Option<Version>,
    /// The number that means another state to the gateway of this stream: nothing of its builds on it.
    contradicted: Option<Tag>,
    chunks: Option<Chunks>,
    /// The last refusal that was passed on: a refusal that the kernel retries is told once.
    told: Option<(Tag, String)>,
    /// The trouble that was passed on last.
    trouble: Option<String>,
    /// What the endpoints of the states have in common.
    pool: Pool,
}

/// An update that is not complete yet.
#[derive(Clone, Debug)]
struct Chunks {
    generation: Tag,
    base: Option<Tag>,
    parts: Parts,
}

impl Version {
    /// Of what was received.
    ///
    /// # Errors
    /// Where policy or settings are missing: half a state is none.
    pub fn try_new(tag: Tag, node: Node) -> Result<Self, &'static str> {
        let state = node.state().ok_or("the state has no policy or no settings")?;
        Ok(Self { tag, node: Arc::new(node), state: Arc::new(state) })
    }
}

impl Core {
    /// Starts from the last good state of the previous run, which the kernel is given first.
    #[must_use]
    pub fn restored(version: Version) -> (Self, Outcome) {
        let pool = Pool::of(&version.state.endpoints);
        let mut core = Self { head: Some(version.clone()), pool, ..Self::default() };
        core.handed.push_back(version.clone());
        (core, Outcome::Target(version))
    }

    /// What the kernel runs, as far as it was received by this agent.
    #[must_use]
    pub const fn applied(&self) -> Option<&Version> {
        self.applied.as_ref()
    }

    /// A stream begins: chunks of the previous one are worth nothing. Returns what the hello names.
    pub fn connect(&mut self) -> Option<&Version> {
        (self.chunks, self.contradicted) = (None, None);
        self.greeted = self.applied.clone();
        self.applied()
    }

    /// What was passed on before is news to whoever listens now.
    pub fn forget_told(&mut self) {
        (self.told, self.trouble) = (None, None);
    }

    /// Takes one message of the gateway.
    pub fn receive(&mut self, message: v1::GatewayMessage) -> Vec<Outcome> {
        match message.message {
            Some(v1::gateway_message::Message::UpToDate(v1::UpToDate { generation })) => {
                vec![self.up_to_date(generation.map(tag))]
            }
            Some(v1::gateway_message::Message::Behind(v1::Behind { generation })) => {
                let theirs =
                    generation.map_or_else(|| "none".to_owned(), |generation| generation.counter.to_string());
                vec![Outcome::Behind(format!(
                    "the gateway, which has generation {theirs}, does not know the newer state of this host"
                ))]
            }
            Some(v1::gateway_message::Message::Update(update)) => self.update(update),
            Some(v1::gateway_message::Message::Renew(v1::Renew { within_seconds })) => {
                vec![Outcome::Renew(Duration::from_secs(within_seconds.into()))]
            }
            // A kind of a newer gateway.
            None => Vec::new(),
        }
    }

    /// Takes what became of the states that the kernel was given.
    pub fn answer(&mut self, answer: &Applied) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        let runs = answer.tag.and_then(|tag| self.handed.iter().position(|version| version.tag == tag));
        if let Some(version) = runs.and_then(|at| self.handed.drain(..=at).next_back()) {
            self.applied = Some(version.clone());
            outcomes.push(Outcome::Ack(version));
        }
        if let Some(version) = &self.applied
            && (answer.trouble != self.trouble || (runs.is_some() && answer.trouble.is_some()))
        {
            self.trouble.clone_from(&answer.trouble);
            outcomes.push(Outcome::Trouble(version.tag, answer.trouble.clone().unwrap_or_default()));
        }
        if let Some(refusal) = &answer.refused {
            let at = self.handed.iter().position(|version| version.tag == refusal.tag);
            if let Some(at) = at {
                let told = Some((refusal.tag, refusal.reason.clone()));
                if self.told != told {
                    outcomes.push(Outcome::Reject(refusal.tag, refusal.reason.clone()));
                    self.told = told;
                }
                if !refusal.retrying {
                    self.handed.drain(..=at);
                    self.forget(refusal.tag);
                }
            }
        }
        outcomes.extend(self.hand_over());
        outcomes
    }

    /// The refused state is the newest no longer: what comes next builds on one that runs, or replaces all.
    fn forget(&mut self, refused: Tag) {
        if self.head.as_ref().is_some_and(|head| head.tag == refused) {
            self.head = self.handed.back().or(self.applied.as_ref()).cloned();
        }
    }

    fn up_to_date(&self, theirs: Option<Tag>) -> Outcome {
        let mine = [self.head.as_ref(), self.applied.as_ref()];
        if theirs.is_some() && mine.iter().flatten().any(|version| Some(version.tag) == theirs) {
            Outcome::Current
        } else {
            Outcome::Resync("the gateway confirms a generation that this host does not have".to_owned())
        }
    }

    fn update(&mut self, update: v1::Update) -> Vec<Outcome> {
        let v1::Update { generation, base, last, parts, continues } = update;
        let Some(generation) = generation.map(tag) else {
            return vec![Outcome::Resync("an update without a generation".to_owned())];
        };
        let base = base.map(tag);
        let mut chunks = match self.chunks.take() {
            Some(chunks) if chunks.generation == generation && chunks.base == base => chunks,
            Some(_) | None => Chunks { generation, base, parts: Parts::default() },
        };
        chunks.parts.add(parts, continues);
        if last {
            self.complete(chunks)
        } else {
            self.chunks = Some(chunks);
            Vec::new()
        }
    }

    fn complete(&mut self, update: Chunks) -> Vec<Outcome> {
        let generation = update.generation;
        let Ok(parts) = update.parts.finish() else {
            return vec![Outcome::Resync("an update ended within a part".to_owned())];
        };
        let base = self.base(update.base);
        self.greeted = None;
        if let Some(head) = &self.head
            && head.tag.incarnation == generation.incarnation
            && head.tag.counter > generation.counter
        {
            let (theirs, mine) = (generation.counter, head.tag.counter);
            return vec![Outcome::Behind(format!("the gateway sent generation {theirs} after {mine}"))];
        }
        let Some(mut node) = base else {
            return vec![Outcome::Resync(
                "an update builds on a generation that this host does not have".to_owned(),
            )];
        };
        if let Err(error) = node.apply_shared(&parts, &mut self.pool) {
            return vec![Outcome::Reject(generation, error.to_string())];
        }
        if let Some(head) = self.head.as_ref().filter(|head| head.tag == generation) {
            // The numbers of a store that was restored from a backup are given a second time.
            if *head.node != node {
                self.contradicted = Some(generation);
                return vec![Outcome::Contradicts(generation)];
            }
            let applied = self.applied.iter().filter(|version| version.tag == generation);
            return applied.cloned().map(Outcome::Ack).collect();
        }
        match Version::try_new(generation, node) {
            Ok(version) => self.head = Some(version),
            Err(reason) => return vec![Outcome::Reject(generation, reason.to_owned())],
        }
        self.hand_over().into_iter().collect()
    }

    /// A copy of the state that an update builds on: nothing for a snapshot; `None` where it is not known.
    fn base(&self, base: Option<Tag>) -> Option<Node> {
        let Some(base) = base else { return Some(Node::default()) };
        let known = self.greeted.iter().chain(&self.head).chain(&self.handed).chain(&self.applied);
        let known = known.filter(|_| self.contradicted != Some(base));
        known.into_iter().find(|version| version.tag == base).map(|version| Node::clone(&version.node))
    }

    /// Gives the kernel the newest state if it does not have it.
    fn hand_over(&mut self) -> Option<Outcome> {
        let head = self.head.clone()?;
        let newest = self.handed.back().or(self.applied.as_ref());
        if newest.is_some_and(|newest| newest.tag == head.tag) {
            return None;
        }
        if self.handed.len() >= HANDED {
            self.handed.pop_back();
        }
        self.handed.push_back(head.clone());
        Some(Outcome::Target(head))
    }
}

fn tag(generation: v1::Generation) -> Tag {
    Tag { incarnation: generation.incarnation, counter: generation.counter, origin: generation.origin }
}

#[cfg(test)]
mod tests;
