//! The mesh: a gateway, its store and folder, machines, and the lines between them. One thing happens at a time, and
//! after each the promises are checked.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use gateway::index::LONGEST_PHASE;
use gateway::session::is_revoked;
use gateway::store::Workloads;
use prost::Message as _;
use proto::v1::{AgentMessage, GatewayMessage};
use vm_agent::kernel::Tag;

use super::action::{Action, Blow, Garble};
use super::hub::{Hub, Line, Time, Turn};
use super::ledger::{Kept, Ledger};
use super::machine::{Fate, Machine};
use super::source::{Library, Source, is_contested, joined, workload};
use super::truth::{Record, Truth};

/// The whole.
pub struct World {
    pub(super) time: Time,
    pub(super) source: Source,
    pub(super) ledger: Ledger,
    pub(super) workloads: Workloads,
    pub(super) hub: Option<Hub>,
    pub(super) machines: Vec<Machine>,
    pub(super) lines: BTreeMap<u64, Line>,
    pub(super) truth: Truth,
    backup: Option<Kept>,
    next_line: u64,
    keys: usize,
    updates: u64,
    /// Whole updates that machines were sent, for those that come twice.
    sent: BTreeMap<usize, Vec<Vec<Vec<u8>>>>,
    /// Since when a machine has no session; `None`: it has one.
    gone: Vec<Option<u64>>,
    is_restored: bool,
}

impl World {
    /// All machines have joined, nothing runs but the gateway.
    pub fn new(library: &Arc<Library>) -> Result<Self> {
        let workloads = joined()?;
        let machines: Vec<_> = (0..super::source::MACHINES)
            .map(|number| Ok(Machine::new(number, workload(number, number)?)))
            .collect::<Result<_>>()?;
        let mut world = Self {
            time: Time::default(),
            source: Source::new(Arc::clone(library)),
            ledger: Ledger::new(7),
            workloads,
            hub: None,
            gone: vec![Some(0); machines.len()],
            machines,
            lines: BTreeMap::new(),
            truth: Truth::default(),
            backup: None,
            next_line: 0,
            keys: super::source::MACHINES,
            updates: 0,
            sent: BTreeMap::new(),
            is_restored: false,
        };
        world.start_gateway()?;
        Ok(world)
    }

    /// One thing happens.
    pub fn happen(&mut self, action: Action) -> Result<()> {
        match action {
            Action::Save(object, version) => self.source.save(object, version),
            Action::Join(machine) => self.join(machine)?,
            Action::Delete(machine) => self.delete(machine),
            Action::Publish => self.publish()?,
            Action::Connect(machine) => self.connect(machine)?,
            Action::Talk(nth) => {
                let open: Vec<_> = self.hub.iter().flat_map(|hub| hub.sessions.keys().copied()).collect();
                if let Some(line) = open.get(nth % open.len().max(1)) {
                    self.talk(*line)?;
                }
            }
            Action::Deliver(machine, count) => {
                for _ in 0..count {
                    self.deliver(machine)?;
                }
            }
            Action::Kernel(machine, fate) => self.run_kernel(machine, fate)?,
            Action::Answer(machine) => self.answer(machine)?,
            Action::Record(machine, is_sound) => self.record(machine, is_sound)?,
            Action::Flow(machine) => self.flow(machine)?,
            Action::Cut(machine, down, up) => self.cut(machine, down, up),
            Action::AgentNotices(machine) => self.agent_notices(machine),
            Action::GatewayNotices(nth) => {
                let cut: Vec<_> =
                    self.lines.iter().filter(|(_, line)| line.is_cut).map(|(at, _)| *at).collect();
                if let Some(line) = cut.get(nth % cut.len().max(1)) {
                    self.close(*line);
                }
            }
            Action::Machine(machine, blow) => self.happen_to_machine(machine, blow)?,
            Action::CrashGateway => self.crash_gateway(),
            Action::StartGateway => self.start_gateway()?,
            Action::Fill(is_full) => self.ledger.fill(is_full),
            Action::Backup => self.backup = Some(self.ledger.backup()),
            Action::Restore => self.restore()?,
            Action::Pass(milliseconds) => self.time.pass(milliseconds),
            Action::Line(machine, garble) => self.happen_to_line(machine, garble),
        }
        Ok(())
    }

    fn happen_to_machine(&mut self, number: usize, blow: Blow) -> Result<()> {
        if blow != Blow::Start {
            self.leave_line(number);
        }
        let now = self.time.passed();
        let Some(machine) = self.machines.get_mut(number) else { return Ok(()) };
        match blow {
            Blow::Crash(disk) => machine.crash(disk),
            Blow::Reboot(disk) => machine.reboot(disk),
            Blow::Start => machine.start(now, &self.truth)?,
            Blow::Clock(skew) => machine.set_clock(skew),
        }
        Ok(())
    }

    /// The agent's end is gone, and with it what nobody has read.
    fn leave_line(&mut self, number: usize) {
        let line = self.machines.get_mut(number).and_then(|machine| machine.line.take());
        if let Some(line) = line.and_then(|line| self.lines.get_mut(&line)) {
            (line.is_cut, line.is_left) = (true, true);
            line.down.clear();
        }
    }

    fn join(&mut self, number: usize) -> Result<()> {
        let is_member =
            |machine: &Machine| machine.number == number && !is_revoked(&machine.workload, &self.workloads);
        if number >= self.machines.len() || self.machines.iter().any(is_member) {
            return Ok(());
        }
        self.keys += 1;
        let workload = workload(number, self.keys)?;
        self.leave_line(number);
        self.sent.remove(&number);
        if let Some(machine) = self.machines.get_mut(number) {
            *machine = Machine::new(number, Arc::clone(&workload));
        }
        self.workloads.insert(workload.name.clone(), workload);
        Ok(())
    }

    fn delete(&mut self, number: usize) {
        let Some(machine) = self.machines.get(number) else { return };
        if !is_revoked(&machine.workload, &self.workloads) {
            self.workloads.remove(&machine.workload.name);
        }
    }

    pub(super) fn publish(&mut self) -> Result<()> {
        let Some(hub) = &mut self.hub else { return Ok(()) };
        let tag = hub.publish(&self.source, &self.ledger, &self.workloads, &self.time);
        if let Some(tag) = tag {
            self.note(tag, false)?;
        }
        Ok(())
    }

    fn note(&mut self, tag: Tag, is_contested: bool) -> Result<()> {
        let feed = self.hub.as_ref().and_then(|hub| hub.feed.as_ref()).context("what was published")?;
        let at = self.time.passed();
        let is_given_up = |gone: &Option<u64>| {
            gone.is_some_and(|gone| u128::from(at.saturating_sub(gone)) >= LONGEST_PHASE.as_millis())
        };
        let given_up = self.gone.iter().enumerate().filter(|(_, gone)| is_given_up(gone));
        let record = Record {
            compiled: Arc::clone(feed.latest.compiled()),
            at,
            given_up: given_up.map(|(number, _)| number).collect(),
            is_contested,
        };
        self.truth.publish(tag, record);
        Ok(())
    }

    pub(super) fn start_gateway(&mut self) -> Result<()> {
        if self.hub.is_some() {
            return Ok(());
        }
        let is_contested = [self.ledger.objects(), self.source.objects()].iter().any(is_contested);
        let hub = Hub::start(&self.source, &self.ledger, &self.workloads, &self.time)?;
        // Where the first state cannot be made the process ends.
        let Some(tag) = hub.latest() else { return Ok(()) };
        self.hub = Some(hub);
        self.note(tag, is_contested)
    }

    fn crash_gateway(&mut self) {
        let Some(hub) = self.hub.take() else { return };
        for line in hub.sessions.keys() {
            if let Some(line) = self.lines.get_mut(line) {
                line.is_cut = true;
                line.up.clear();
            }
        }
        let now = self.time.passed();
        for gone in &mut self.gone {
            gone.get_or_insert(now);
        }
        self.ledger.crash();
    }

    fn restore(&mut self) -> Result<()> {
        let Some(kept) = self.backup.clone() else { return Ok(()) };
        self.crash_gateway();
        self.ledger.restore(&kept);
        self.is_restored = true;
        self.start_gateway()
    }

    pub(super) fn connect(&mut self, number: usize) -> Result<()> {
        let now = self.time.passed();
        let Some(machine) = self.machines.get_mut(number).filter(|machine| machine.line.is_none()) else {
            return Ok(());
        };
        let Some(hub) = &mut self.hub else { return Ok(()) };
        let Some(hello) = machine.hello(now)? else { return Ok(()) };
        self.next_line += 1;
        if hub.accept(self.next_line, &hello, &machine.workload, &self.workloads) {
            machine.line = Some(self.next_line);
            self.lines.insert(self.next_line, Line { machine: number, ..Line::default() });
            if let Some(gone) = self.gone.get_mut(number) {
                *gone = None;
            }
        }
        Ok(())
    }

    /// One step of a session; whether something was done.
    pub(super) fn talk(&mut self, number: u64) -> Result<bool> {
        let (Some(hub), Some(line)) = (&mut self.hub, self.lines.get_mut(&number)) else { return Ok(false) };
        let before = self.updates;
        let turn = hub.talk(number, line, &self.workloads, &self.truth, &mut self.updates)?;
        let machine = line.machine;
        if self.updates > before {
            let whole = line.down.iter().filter(|(update, _)| *update == self.updates);
            let whole: Vec<_> = whole.map(|(_, bytes)| bytes.clone()).collect();
            self.sent.entry(machine).or_default().push(whole);
        }
        if let Some(machine) = self.machines.get(machine) {
            let believed =
                hub.applied(&machine.workload.name).filter(|_| hub.is_current(number, &machine.workload));
            ensure!(
                believed <= machine.newest || self.is_restored,
                "the gateway believes that machine {} runs {believed:?}; it has never run more than {:?}",
                machine.number,
                machine.newest
            );
        }
        if turn == Turn::Over {
            self.close(number);
        }
        Ok(turn == Turn::Busy)
    }

    /// The gateway's end of a line is gone; what it has said may still arrive.
    pub(super) fn close(&mut self, number: u64) {
        let Some(hub) = &mut self.hub else { return };
        let Some(line) = self.lines.get_mut(&number) else { return };
        (line.is_cut, line.up) = (true, VecDeque::new());
        if hub.sessions.remove(&number).is_none() {
            return;
        }
        let machine = line.machine;
        let stays = hub
            .sessions
            .keys()
            .any(|other| self.lines.get(other).is_some_and(|line| line.machine == machine));
        if let Some(gone) = self.gone.get_mut(machine).filter(|_| !stays) {
            *gone = Some(self.time.passed());
        }
    }

    pub(super) fn deliver(&mut self, number: usize) -> Result<bool> {
        let Some(machine) = self.machines.get_mut(number) else { return Ok(false) };
        let Some(line) = machine.line.and_then(|line| self.lines.get_mut(&line)) else { return Ok(false) };
        let Some((update, bytes)) = line.down.pop_front() else { return Ok(false) };
        line.heard = update;
        let reaction = machine.receive(GatewayMessage::decode(bytes.as_slice())?, &self.truth)?;
        if reaction.ends {
            (line.is_cut, line.is_left) = (true, true);
            line.down.clear();
        }
        Self::say(line, &reaction.says);
        Ok(true)
    }

    fn say(line: &mut Line, says: &[AgentMessage]) {
        if !line.is_cut {
            line.up.extend(says.iter().map(AgentMessage::encode_to_vec));
        }
    }

    pub(super) fn run_kernel(&mut self, number: usize, fate: Fate) -> Result<()> {
        if fate == Fate::Dies {
            self.leave_line(number);
        }
        let Some(machine) = self.machines.get_mut(number) else { return Ok(()) };
        let before = machine.runs;
        machine.run_kernel(fate, &self.truth)?;
        let Some(machine) = self.machines.get(number).filter(|machine| machine.runs != before) else {
            return Ok(());
        };
        let is_known = |machine: &&Machine| {
            !is_revoked(&machine.workload, &self.workloads) && machine.runs >= machine.lost
        };
        if self.is_restored || !is_known(&machine) {
            return Ok(());
        }
        for other in self.machines.iter().filter(|other| other.number != number).filter(is_known) {
            if let Some((one, two)) = machine.runs.zip(other.runs) {
                let pair = ((number, one, &*machine.workload), (other.number, two, &*other.workload));
                self.truth.check_numbers(pair.0, pair.1)?;
            }
        }
        Ok(())
    }

    pub(super) fn answer(&mut self, number: usize) -> Result<()> {
        let Some(machine) = self.machines.get_mut(number) else { return Ok(()) };
        let reaction = machine.answer(&self.truth)?;
        if let Some(line) = machine.line.and_then(|line| self.lines.get_mut(&line)) {
            Self::say(line, &reaction.says);
        }
        Ok(())
    }

    pub(super) fn record(&mut self, number: usize, is_sound: bool) -> Result<()> {
        let Some(machine) = self.machines.get_mut(number) else { return Ok(()) };
        let reaction = machine.record(is_sound, self.time.passed())?;
        if let Some(line) = machine.line.and_then(|line| self.lines.get_mut(&line)) {
            Self::say(line, &reaction.says);
        }
        Ok(())
    }

    fn cut(&mut self, number: usize, down: usize, up: usize) {
        let line = self.machines.get(number).and_then(|machine| machine.line);
        if let Some(line) = line.and_then(|line| self.lines.get_mut(&line)).filter(|line| !line.is_cut) {
            line.is_cut = true;
            line.down.truncate(down);
            line.up.truncate(up);
        }
    }

    pub(super) fn agent_notices(&mut self, number: usize) {
        let line = self.machines.get(number).and_then(|machine| machine.line);
        if line.and_then(|line| self.lines.get(&line)).is_some_and(|line| line.is_cut) {
            self.leave_line(number);
        }
    }

    fn happen_to_line(&mut self, number: usize, garble: Garble) {
        let line = self.machines.get(number).and_then(|machine| machine.line);
        let Some(line) = line.and_then(|line| self.lines.get_mut(&line)).filter(|line| !line.is_cut) else {
            return;
        };
        match garble {
            Garble::Lose => {
                let newest = line.down.back().map(|(update, _)| *update);
                // Of an update that arrives in part, what is missing is lost with the stream.
                let is_whole = newest != Some(line.heard);
                line.down.retain(|(update, _)| !is_whole || Some(*update) != newest);
            }
            Garble::Double(nth) => {
                let all = self.sent.get(&number).map(Vec::as_slice).unwrap_or_default();
                if let Some(again) = all.get(nth % all.len().max(1)).filter(|_| line.down.is_empty()) {
                    self.updates += 1;
                    line.down.extend(again.iter().map(|bytes| (self.updates, bytes.clone())));
                }
            }
            Garble::LoseWord => drop(line.up.pop_back()),
            Garble::DoubleWord => line.up.extend(line.up.back().cloned()),
            Garble::SwapWords => {
                if let Some((last, before)) = line.up.pop_back().zip(line.up.pop_back()) {
                    line.up.extend([last, before]);
                }
            }
        }
    }
}
