//! A process of the gateway: facts, the feed and the sessions, all by the gateway's own code, and the lines that the
//! sessions talk on.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use gateway::clock::Monotonic;
use gateway::index::MeshSettings;
use gateway::manifest::{Object, ObjectKey};
use gateway::pipeline::Publication;
use gateway::session::{Exchange, Feed, Next, Registry, is_revoked};
use gateway::store::{Workload, WorkloadName, Workloads, unix_time};
use prost::Message as _;
use proto::v1::gateway_message::Message;
use proto::v1::{AgentMessage, GatewayMessage, Hello};
use vm_agent::kernel::Tag;

use super::cut::cut;
use super::ledger::Ledger;
use super::source::Source;
use super::truth::Truth;
use crate::compiler::POOL;

/// The time, which passes when it is told to.
#[derive(Clone, Debug)]
pub(super) struct Time {
    zero: Instant,
    passed: Arc<AtomicU64>,
}

/// A connection between an agent and the gateway.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// Whose agent it is.
    pub machine: usize,
    /// On the way to the agent, each with the number of its update.
    pub down: VecDeque<(u64, Vec<u8>)>,
    /// On the way to the gateway.
    pub up: VecDeque<Vec<u8>>,
    /// Nothing is taken any more; what is under way arrives.
    pub is_cut: bool,
    /// The agent knows that it is over.
    pub is_left: bool,
    /// The update of which the agent heard last.
    pub heard: u64,
}

/// The process.
pub(super) struct Hub {
    /// Who is connected.
    pub registry: Arc<Registry>,
    /// What sessions follow.
    pub feed: Option<Feed>,
    /// The sessions by their lines.
    pub sessions: BTreeMap<u64, (Arc<Workload>, Exchange)>,
    publication: Publication,
    read: BTreeMap<ObjectKey, Object>,
}

/// Whether a session goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// It does, and something was done.
    Busy,
    /// It does, and nothing is to be done.
    Idle,
    /// It does not.
    Over,
}

impl Default for Time {
    fn default() -> Self {
        Self { zero: Instant::now(), passed: Arc::default() }
    }
}

impl Time {
    /// Milliseconds since the beginning.
    #[must_use]
    pub(super) fn passed(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }

    /// Lets time pass.
    pub(super) fn pass(&self, milliseconds: u64) {
        self.passed.fetch_add(milliseconds, Ordering::Relaxed);
    }

    fn now(&self) -> Instant {
        self.zero + Duration::from_millis(self.passed())
    }
}

impl Hub {
    /// A process starts with what the store has.
    pub(super) fn start(
        source: &Source,
        ledger: &Ledger,
        workloads: &Workloads,
        time: &Time,
    ) -> Result<Self> {
        let mesh = MeshSettings {
            cluster: "default".to_owned(),
            pools: vec![POOL.parse()?],
            pod_prefixes: vec!["10.1.0.0/16".parse()?],
            tunnel_port: 8479,
        };
        let clock = time.clone();
        let registry = Registry::with_time(Monotonic::new(move || clock.now()));
        let mut publication = Publication::new(mesh, vec!["gateway:7443".to_owned()]);
        let (kept, now) = (ledger.objects(), (unix_time(time.passed() / 1000), time.now()));
        publication.resume(&Arc::new(workloads.clone()), kept.iter(), &registry, ledger, now)?;
        let mut hub = Self {
            registry: Arc::new(registry),
            feed: None,
            sessions: BTreeMap::new(),
            publication,
            read: kept,
        };
        hub.publish(source, ledger, workloads, time);
        Ok(hub)
    }

    /// Reads, compiles and publishes; the number, where there is a new state. What the store refuses is tried again
    /// the next time.
    pub(super) fn publish(
        &mut self,
        source: &Source,
        ledger: &Ledger,
        workloads: &Workloads,
        time: &Time,
    ) -> Option<Tag> {
        self.registry.retain(|name| workloads.contains_key(name));
        self.publication.index.set_workloads(Arc::new(workloads.clone()));
        for change in source.changes(&self.read) {
            self.publication.index.apply(change);
        }
        self.read = source.objects();
        let now = (unix_time(time.passed() / 1000), time.now());
        let Ok(next) = self.publication.publish(self.feed.as_ref(), &self.registry, ledger, now) else {
            return None;
        };
        ledger.keep_objects(&self.read);
        let next = next?;
        let tag = tag_of(&next);
        self.feed = Some(next);
        Some(tag)
    }

    /// The number of what is published.
    #[must_use]
    pub(super) fn latest(&self) -> Option<Tag> {
        self.feed.as_ref().map(tag_of)
    }

    /// Whether relabels are under way.
    #[must_use]
    pub(super) fn is_relabelling(&self) -> bool {
        self.publication.index.deadline().is_some()
    }

    /// An agent says hello on a new line; whether it is let in.
    pub(super) fn accept(
        &mut self,
        line: u64,
        hello: &Hello,
        workload: &Arc<Workload>,
        workloads: &Workloads,
    ) -> bool {
        let Some(feed) = self.feed.as_ref().filter(|_| !is_revoked(workload, workloads)) else {
            return false;
        };
        let session = self.registry.begin(&workload.name, workload.key, &hello.machine, hello.applied);
        let Ok(session) = session else { return false };
        let exchange = Exchange::open(Arc::clone(workload), hello, feed, session);
        self.sessions.insert(line, (Arc::clone(workload), exchange));
        true
    }

    /// One step of a session, in the order of its task: what is to be said, whether it is over, what is heard.
    pub(super) fn talk(
        &mut self,
        number: u64,
        line: &mut Line,
        workloads: &Workloads,
        truth: &Truth,
        updates: &mut u64,
    ) -> Result<Turn> {
        let Some((workload, exchange)) = self.sessions.get_mut(&number) else { return Ok(Turn::Over) };
        match exchange.next(self.feed.as_ref(), workloads) {
            Next::Say(messages) => {
                *updates += 1;
                for message in smaller(messages, 40 + usize::try_from(*updates % 7)? * 60) {
                    check_said(&message, workload, workloads, truth)?;
                    let bytes = GatewayMessage { message: Some(message) }.encode_to_vec();
                    if !line.is_cut {
                        line.down.push_back((*updates, bytes));
                    }
                }
                return Ok(Turn::Busy);
            }
            Next::Wait | Next::Absent => {}
            Next::Behind | Next::Revoked => return Ok(Turn::Over),
        }
        if exchange.session().is_replaced() || is_revoked(workload, workloads) {
            return Ok(Turn::Over);
        }
        let Some(bytes) = line.up.pop_front() else { return Ok(Turn::Idle) };
        let heard = exchange.receive(AgentMessage::decode(bytes.as_slice())?);
        Ok(if heard.is_ok() { Turn::Busy } else { Turn::Over })
    }

    /// Whether a session is the one that its workload has.
    #[must_use]
    pub(super) fn is_current(&self, line: u64, of: &Workload) -> bool {
        let is_its = |workload: &Workload| workload.name == of.name && workload.key == of.key;
        let session = self.sessions.get(&line);
        session.is_some_and(|(workload, exchange)| is_its(workload) && !exchange.session().is_replaced())
    }

    /// What the gateway believes that a workload runs.
    #[must_use]
    pub(super) fn applied(&self, name: &WorkloadName) -> Option<Tag> {
        let applied = self.registry.status(name).applied;
        applied.map(|applied| Tag {
            incarnation: applied.incarnation,
            counter: applied.counter,
            origin: applied.origin,
        })
    }
}

fn tag_of(feed: &Feed) -> Tag {
    let generation = feed.latest.generation();
    Tag { incarnation: generation.incarnation, counter: generation.counter, origin: generation.origin }
}

/// The same in messages of at most so many bytes, or little more.
fn smaller(messages: Vec<Message>, most: usize) -> Vec<Message> {
    let update = |message: &Message| match message {
        Message::Update(update) => Some(update.clone()),
        Message::UpToDate(_) | Message::Behind(_) | Message::Renew(_) => None,
    };
    match messages.iter().map(update).collect::<Option<Vec<_>>>() {
        Some(updates) => cut(&updates, most).into_iter().map(Message::Update).collect(),
        None => messages,
    }
}

/// Nobody is told anything whose workload is none, or another one's, and nobody of a state in which he has no part.
fn check_said(message: &Message, workload: &Workload, workloads: &Workloads, truth: &Truth) -> Result<()> {
    let is_known = workloads.get(&workload.name).is_some_and(|now| now.key == workload.key);
    ensure!(is_known, "who is {} no more is told {message:?}", workload.name);
    let Message::Update(update) = message else { return Ok(()) };
    let generation = update.generation.context("an update without a generation")?;
    let tag =
        Tag { incarnation: generation.incarnation, counter: generation.counter, origin: generation.origin };
    ensure!(truth.is_for(tag, workload), "{} is told of {tag:?}, which is not for it", workload.name);
    Ok(())
}
