//! When nothing breaks any more: everything that is due is done, and the mesh has to become one.

use anyhow::{Context as _, Result, bail, ensure};
use gateway::session::is_revoked;
use vm_agent::kernel::Tag;

use super::hub::Hub;
use super::machine::Fate;
use super::world::World;

/// How many rounds everything may take. A relabel has phases, each of which may wait for time.
const ROUNDS: usize = 200;
/// What a round takes, in milliseconds.
const ROUND: u64 = 2000;
/// How many more states may be needed after a restored store: until the numbers that agents have are passed.
const MORE: usize = 64;

impl World {
    /// One machine does what is due, with the gateway.
    pub(super) fn flow(&mut self, number: usize) -> Result<()> {
        let now = self.time.passed();
        if let Some(machine) = self.machines.get_mut(number) {
            machine.start(now, &self.truth)?;
        }
        for _ in 0..3 {
            self.run_kernel(number, Fate::Runs)?;
            self.answer(number)?;
            self.record(number, true)?;
            self.connect(number)?;
            let Some(line) = self.machines.get(number).and_then(|machine| machine.line) else {
                return Ok(());
            };
            while self.talk(line)? {}
            while self.deliver(number)? {}
        }
        Ok(())
    }

    /// Everything starts, connects and talks until nothing changes; then all of it has to be the newest.
    pub fn settle(&mut self) -> Result<()> {
        self.ledger.fill(false);
        for line in self.lines.keys().copied().collect::<Vec<_>>() {
            if let Some(line) = self.lines.get_mut(&line) {
                line.is_cut = true;
            }
            self.close(line);
        }
        for number in 0..self.machines.len() {
            self.agent_notices(number);
        }
        let (mut more, mut settled) = (0, None);
        for round in 0..ROUNDS {
            self.start_gateway()?;
            self.publish()?;
            for number in 0..self.machines.len() {
                self.flow(number)?;
                let is_cut = |line: u64| self.lines.get(&line).is_none_or(|line| line.is_cut);
                if self.machines.get(number).and_then(|machine| machine.line).is_some_and(is_cut) {
                    self.agent_notices(number);
                }
            }
            // Twice, because the gateway may learn last of all that a number stands for two states.
            let latest = self.hub.as_ref().and_then(Hub::latest).filter(|_| self.is_settled());
            if latest.is_some() && latest == settled {
                return self.check_settled();
            }
            settled = latest;
            self.time.pass(ROUND);
            // A state that was refused is not sent again, and a gateway whose store is older has numbers to pass.
            if self.is_stuck() && more < MORE {
                more += 1;
                self.source.save(0, round);
            }
        }
        let latest = self.hub.as_ref().and_then(Hub::latest);
        let runs: Vec<_> = self.machines.iter().map(|machine| machine.runs).collect();
        bail!("after {ROUNDS} rounds of peace the newest state is {latest:?}, and machines run {runs:?}")
    }

    fn is_settled(&self) -> bool {
        let Some(hub) = &self.hub else { return false };
        let latest = hub.latest();
        let is_up = |machine: &super::machine::Machine| {
            machine.runs == latest && hub.applied(&machine.workload.name) == latest
        };
        let mut members =
            self.machines.iter().filter(|machine| !is_revoked(&machine.workload, &self.workloads));
        !hub.is_relabelling() && members.all(is_up)
    }

    /// Whether only another state can help.
    fn is_stuck(&self) -> bool {
        let Some((hub, latest)) = self.hub.as_ref().and_then(|hub| Some((hub, hub.latest()?))) else {
            return false;
        };
        self.machines.iter().filter(|machine| !is_revoked(&machine.workload, &self.workloads)).any(
            |machine| {
                let status = hub.registry.status(&machine.workload.name);
                let is_refused = status.rejected.is_some_and(|rejected| {
                    Tag {
                        incarnation: rejected.generation.incarnation,
                        counter: rejected.generation.counter,
                        origin: rejected.generation.origin,
                    } == latest
                });
                is_refused || machine.runs > Some(latest)
            },
        )
    }

    fn check_settled(&self) -> Result<()> {
        let latest = self.hub.as_ref().and_then(Hub::latest).context("a published state")?;
        self.truth.check_settled(latest)?;
        for machine in self.machines.iter().filter(|machine| !is_revoked(&machine.workload, &self.workloads))
        {
            ensure!(
                self.truth.runs_newest(latest, &machine.workload, machine.read().as_ref()),
                "machine {} runs another state under the number of the newest",
                machine.number
            );
        }
        Ok(())
    }
}
