//! A host: its kernel, its disk and the process of its agent. The decisions are the agent's own code; what its tasks do
//! between them is here, one step at a time.

use std::sync::Arc;

use anyhow::{Result, bail, ensure};
use gateway::store::Workload;
use proto::node::Node;
use proto::v1::agent_message::Message as Up;
use proto::v1::{AgentMessage, GatewayMessage, Hello, Reject};
use vm_agent::kernel::{Applied, Reading, Refusal, Tables, Tag, TwinKernel};
use vm_agent::session::{Core, Outcome, Unconfirmed, Version, contradicts, generation};
use vm_agent::state_dir::{Entry, Journal, Snapshot, checksum};

use super::truth::Truth;

/// How long the state of the previous run may take before a gateway is asked.
const RESTORE: u64 = 15_000;
/// How long the disk may take before the hello is said without it.
const RECORD: u64 = 10_000;
/// Then a state is written whole.
const LONG: usize = 2000;

/// What becomes of a state in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is in force.
    Runs,
    /// It is in force, but the network lacks something.
    Lacks,
    /// It is refused, and tried again.
    Waits,
    /// It is refused for good.
    Refused,
    /// The process dies when it is written and not yet shown to packets.
    Dies,
}

/// What is left of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disk {
    /// All.
    Kept,
    /// What it had once.
    Older(usize),
    /// Nothing.
    Lost,
}

/// A host.
pub(super) struct Machine {
    /// Its number.
    pub number: usize,
    /// The workload it joined as.
    pub workload: Arc<Workload>,
    /// What its kernel runs.
    pub runs: Option<Tag>,
    /// The newest that its kernel ever ran.
    pub newest: Option<Tag>,
    /// The line its agent talks on.
    pub line: Option<u64>,
    tables: Tables,
    agent: Option<Agent>,
    disks: Vec<(Tag, Files)>,
    disk: Option<(Tag, Files)>,
    /// What it has said to run, as far as its disk was sound: a restart must not take it back.
    said: Option<Tag>,
    /// What it has said to run, whatever became of its disk.
    told: Option<Tag>,
    /// What its disk has lost of that: until it runs this again, it is older than anybody believes.
    pub(super) lost: Option<Tag>,
    /// What its clock is wrong by, in seconds.
    skew: i64,
}

/// The last good state on a disk.
#[derive(Clone, Default)]
struct Files {
    snapshot: Vec<u8>,
    journal: Vec<u8>,
}

/// The process.
struct Agent {
    core: Core,
    kernel: TwinKernel,
    unconfirmed: Unconfirmed,
    started: u64,
    restoring: bool,
    target: Option<Version>,
    waiting: Option<Version>,
    applied: Applied,
    is_news: bool,
    ran: Option<Tag>,
    running: Option<Version>,
    written: Option<Tag>,
    recorded: Option<Tag>,
    /// What was written last, and the end of its journal.
    kept: Option<(Arc<Node>, Journal)>,
    hello_wanted: Option<u64>,
    is_answered: bool,
}

/// What a message leads to.
#[derive(Default)]
pub(super) struct Reaction {
    /// What the agent says.
    pub says: Vec<AgentMessage>,
    /// Whether it ends the stream.
    pub ends: bool,
}

impl Files {
    fn read(&self) -> Result<Snapshot> {
        let mut snapshot = Snapshot::decode(&self.snapshot)?;
        if !self.journal.is_empty() {
            snapshot.continue_by(Journal::read(&self.journal, &checksum(&self.snapshot))?);
        }
        Ok(snapshot)
    }

    /// With one more state: an entry of the journal, or all of it.
    fn with(mut self, version: &Version, saved: u64, kept: &mut Option<(Arc<Node>, Journal)>) -> Self {
        let tag = version.tag;
        let entry = kept.take().and_then(|(before, end)| {
            let changes = version.node.changes_since(&before)?;
            end.with(&Entry { tag, saved, changes })
        });
        let end = if let Some((journal, entry)) = entry.filter(|(journal, _)| journal.length() < LONG) {
            self.journal.extend(entry);
            journal
        } else {
            self.snapshot = Snapshot { tag, saved, parts: Vec::from(version.node.parts()) }.encode();
            let (journal, head) = Journal::begin(&checksum(&self.snapshot));
            self.journal = head;
            journal
        };
        *kept = Some((version.node.clone(), end));
        self
    }
}

impl Machine {
    /// One that has just joined.
    #[must_use]
    pub(super) fn new(number: usize, workload: Arc<Workload>) -> Self {
        Self {
            number,
            workload,
            runs: None,
            newest: None,
            line: None,
            tables: Tables::default(),
            agent: None,
            disks: Vec::new(),
            disk: None,
            said: None,
            told: None,
            lost: None,
            skew: 0,
        }
    }

    /// What its packets read.
    #[must_use]
    pub(super) fn read(&self) -> Option<Reading> {
        self.tables.read()
    }

    /// Sets its clock.
    pub(super) const fn set_clock(&mut self, skew: i64) {
        self.skew = skew;
    }

    /// The process is gone; packets do not notice.
    pub(super) fn crash(&mut self, disk: Disk) {
        self.agent = None;
        self.line = None;
        match disk {
            Disk::Kept => {}
            Disk::Older(back) => {
                let at = self.disks.len().checked_sub(1 + back % self.disks.len().max(1));
                self.disk = at.and_then(|at| self.disks.get(at)).cloned();
            }
            Disk::Lost => self.disk = None,
        }
        if self.disk.as_ref().map(|(tag, _)| *tag) < self.told {
            self.lost = self.told;
            self.said = None;
        }
    }

    /// The kernel is gone as well.
    pub(super) fn reboot(&mut self, disk: Disk) {
        self.crash(disk);
        self.tables = Tables::default();
        self.runs = None;
    }

    /// Starts the agent, if it does not run.
    pub(super) fn start(&mut self, now: u64, truth: &Truth) -> Result<()> {
        if self.agent.is_some() {
            return Ok(());
        }
        let mut agent = Agent::new(self.tables.adopt()?, now);
        let mut outcome = None;
        if let Some((_, files)) = &self.disk {
            let Snapshot { tag, parts, .. } = files.read()?;
            let mut node = Node::default();
            node.apply(&parts)?;
            let Ok(version) = Version::try_new(tag, node) else { bail!("half a state was on the disk") };
            agent.restoring = true;
            (agent.written, agent.recorded) = (Some(tag), Some(tag));
            let (core, target) = Core::restored(version);
            agent.core = core;
            outcome = Some(target);
        }
        self.agent = Some(agent);
        if let Some(outcome) = outcome {
            self.act(outcome, &mut Reaction::default(), truth)?;
        }
        Ok(())
    }

    /// What the agent says first, as soon as it may.
    pub(super) fn hello(&mut self, now: u64) -> Result<Option<Hello>> {
        let Some(agent) = &mut self.agent else { return Ok(None) };
        if agent.restoring && now < agent.started + RESTORE {
            return Ok(None);
        }
        let applied = agent.core.applied().map(|version| version.tag);
        let recorded = applied.is_none() || applied == agent.recorded;
        let late = now >= *agent.hello_wanted.get_or_insert(now) + RECORD;
        if !recorded && !late {
            return Ok(None);
        }
        agent.restoring = false;
        agent.hello_wanted = None;
        agent.unconfirmed.told();
        agent.is_answered = false;
        let version = agent.core.connect().cloned();
        if let Some(version) = &version {
            self.says(version.tag, !recorded)?;
        }
        Ok(Some(Hello {
            applied: version.as_ref().map(|version| generation(version.tag)),
            digest: version.map(|version| version.node.digest().to_vec()).unwrap_or_default(),
            machine: vec![u8::try_from(self.number)?],
            ..Hello::default()
        }))
    }

    /// Takes one message of the gateway.
    pub(super) fn receive(&mut self, message: GatewayMessage, truth: &Truth) -> Result<Reaction> {
        let mut reaction = Reaction::default();
        let Some(agent) = &mut self.agent else { return Ok(reaction) };
        for outcome in agent.core.receive(message) {
            self.act(outcome, &mut reaction, truth)?;
            if reaction.ends {
                self.line = None;
                return Ok(reaction);
            }
        }
        let Some(agent) = &mut self.agent else { return Ok(reaction) };
        if !std::mem::replace(&mut agent.is_answered, true) {
            agent.core.forget_told();
            agent.is_news = true;
            reaction.says.extend(self.answer(truth)?.says);
        }
        Ok(reaction)
    }

    /// The kernel takes the newest state it was given, or tries again what it has refused.
    pub(super) fn run_kernel(&mut self, fate: Fate, truth: &Truth) -> Result<()> {
        let Some(agent) = &mut self.agent else { return Ok(()) };
        let Some(target) = agent.target.take().or(agent.waiting.take()) else { return Ok(()) };
        let refusal =
            |retrying| Some(Refusal { tag: target.tag, reason: "it does not fit".to_owned(), retrying });
        let trouble = (fate == Fate::Lacks).then(|| "a route".to_owned());
        match fate {
            Fate::Runs | Fate::Lacks => {
                agent.kernel.prepare(&target.state)?;
                agent.kernel.commit()?;
                agent.report(Applied { tag: Some(target.tag), epoch: 1, refused: None, trouble });
                self.ran(target.tag)?;
            }
            Fate::Waits => {
                agent.report(Applied { refused: refusal(true), ..agent.applied.clone() });
                agent.waiting = Some(target);
            }
            Fate::Refused => agent.report(Applied { refused: refusal(false), ..agent.applied.clone() }),
            Fate::Dies => {
                agent.kernel.prepare(&target.state)?;
                self.crash(Disk::Kept);
            }
        }
        self.check_tables(truth)
    }

    /// The agent takes the kernel's answer.
    pub(super) fn answer(&mut self, truth: &Truth) -> Result<Reaction> {
        let mut reaction = Reaction::default();
        let Some(agent) = &mut self.agent else { return Ok(reaction) };
        let is_nothing = agent.applied.tag.is_none() && agent.applied.refused.is_none();
        if !agent.is_news || (agent.restoring && is_nothing) {
            return Ok(reaction);
        }
        agent.is_news = false;
        agent.restoring = false;
        let applied = agent.applied.clone();
        for outcome in agent.core.answer(&applied) {
            self.act(outcome, &mut reaction, truth)?;
        }
        // An answer of the kernel never ends a stream.
        reaction.ends = false;
        Ok(reaction)
    }

    /// What the kernel runs is written to the disk; or the disk is full, and the agent goes on.
    pub(super) fn record(&mut self, is_sound: bool, now: u64) -> Result<Reaction> {
        let mut reaction = Reaction::default();
        let Some(agent) = &mut self.agent else { return Ok(reaction) };
        let Some(version) = agent.running.clone().filter(|version| agent.written != Some(version.tag)) else {
            return Ok(reaction);
        };
        agent.written = Some(version.tag);
        agent.recorded = Some(version.tag);
        if is_sound {
            let saved = (now / 1000).saturating_add_signed(self.skew);
            let before = self.disk.as_ref().map(|(_, files)| files.clone());
            let written = (version.tag, before.unwrap_or_default().with(&version, saved, &mut agent.kept));
            self.disks.push(written.clone());
            self.disk = Some(written);
        } else {
            agent.kept = None;
        }
        self.confirm(&mut reaction, !is_sound)?;
        Ok(reaction)
    }

    fn act(&mut self, outcome: Outcome, reaction: &mut Reaction, truth: &Truth) -> Result<()> {
        let Some(agent) = &mut self.agent else { return Ok(()) };
        match outcome {
            Outcome::Target(version) => {
                let is_published =
                    truth.states(version.tag, &self.workload).any(|state| state == *version.state);
                ensure!(
                    is_published,
                    "machine {} makes a state of generation {} that nobody published: {:#?}\nand not {:#?}",
                    self.number,
                    version.tag.counter,
                    version.state,
                    truth.states(version.tag, &self.workload).collect::<Vec<_>>()
                );
                agent.target = Some(version);
            }
            Outcome::Ack(version) => {
                agent.unconfirmed.runs(version.tag);
                agent.running = Some(version);
                self.confirm(reaction, false)?;
            }
            Outcome::Trouble(tag, trouble) => {
                let ack = agent.unconfirmed.troubled(tag, trouble).filter(|_| self.line.is_some());
                if let Some(ack) = ack {
                    self.says(tag, false)?;
                    reaction.says.push(AgentMessage { message: Some(Up::Ack(ack)) });
                }
            }
            Outcome::Current | Outcome::Renew(_) => {}
            Outcome::Contradicts(tag) => {
                reaction.says.push(AgentMessage { message: Some(Up::Reject(contradicts(tag))) });
            }
            Outcome::Reject(tag, reason) => {
                let reject = Reject { generation: Some(generation(tag)), reason, contradicts: false };
                reaction.says.push(AgentMessage { message: Some(Up::Reject(reject)) });
            }
            Outcome::Behind(_) | Outcome::Resync(_) => reaction.ends = true,
        }
        Ok(())
    }

    fn confirm(&mut self, reaction: &mut Reaction, is_lossy: bool) -> Result<()> {
        let Some(agent) = self.agent.as_mut().filter(|_| self.line.is_some()) else { return Ok(()) };
        let Some(ack) = agent.unconfirmed.confirm(agent.recorded) else { return Ok(()) };
        if let Some(said) = &ack.generation {
            self.says(
                Tag { incarnation: said.incarnation, counter: said.counter, origin: said.origin },
                is_lossy,
            )?;
        }
        reaction.says.push(AgentMessage { message: Some(Up::Ack(ack)) });
        Ok(())
    }

    /// The agent says that its kernel runs this.
    fn says(&mut self, tag: Tag, is_lossy: bool) -> Result<()> {
        let number = self.number;
        ensure!(
            self.runs.is_some_and(|runs| runs >= tag),
            "machine {number} says to run {tag:?}, but runs {:?}",
            self.runs
        );
        self.told = self.told.max(Some(tag));
        let on_disk = self.disk.as_ref().map(|(tag, _)| *tag);
        // A full or a hanging disk costs what it is for, and nothing else.
        if is_lossy
            || self.agent.as_ref().is_some_and(|agent| agent.recorded == Some(tag) && on_disk != Some(tag))
        {
            self.said = None;
            return Ok(());
        }
        ensure!(
            on_disk >= Some(tag),
            "machine {number} says to run {tag:?}, but has {on_disk:?} on its disk"
        );
        self.said = self.said.max(Some(tag));
        Ok(())
    }

    /// The kernel runs this from now on.
    fn ran(&mut self, tag: Tag) -> Result<()> {
        let Some(agent) = &mut self.agent else { return Ok(()) };
        let number = self.number;
        ensure!(agent.ran <= Some(tag), "machine {number} goes back from {:?} to {tag:?}", agent.ran);
        ensure!(
            self.said <= Some(tag),
            "machine {number} takes back {:?}, which it has confirmed, and runs {tag:?}",
            self.said
        );
        agent.ran = Some(tag);
        self.runs = Some(tag);
        self.newest = self.newest.max(Some(tag));
        Ok(())
    }

    /// What packets read is the whole of what the kernel runs, and nothing of anything else.
    fn check_tables(&self, truth: &Truth) -> Result<()> {
        let read = self.tables.read();
        let Some(tag) = self.runs else {
            ensure!(read.is_none(), "machine {} runs something that nobody gave it", self.number);
            return Ok(());
        };
        let whole = truth.states(tag, &self.workload).any(|state| Some(Reading::of(&state)) == read);
        ensure!(whole, "packets of machine {} do not see generation {}: {read:#?}", self.number, tag.counter);
        Ok(())
    }
}

impl Agent {
    fn new(kernel: TwinKernel, started: u64) -> Self {
        Self {
            core: Core::default(),
            kernel,
            unconfirmed: Unconfirmed::default(),
            started,
            restoring: false,
            target: None,
            waiting: None,
            applied: Applied::default(),
            is_news: false,
            ran: None,
            running: None,
            written: None,
            recorded: None,
            kept: None,
            hello_wanted: None,
            is_answered: false,
        }
    }

    /// The latest value; the agent may not have seen the one before.
    fn report(&mut self, applied: Applied) {
        self.is_news |= self.applied != applied;
        self.applied = applied;
    }
}
