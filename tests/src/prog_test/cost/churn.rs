//! Many live flows while the epoch changes: each flow proves itself again with its next packet, none is lost.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use datapath::abi::{Bank, Control, Hook, counter_slot};
use datapath::{Direction, FlowTable, Reason};

use super::super::kernel::{Kernel, PASSED, Rotation, object};
use super::Cost;
use super::cell::{Cell, Family, Kind};
use super::tables::{Size, endpoints, tables};

/// Of each family.
const FLOWS: u32 = 50_000;
/// Every number of a packet is a flow of its own.
const ALL_PORTS: u32 = 0xffff_0000;
/// Time between publications, at most as many as an agent makes.
const BETWEEN: Duration = Duration::from_millis(50);
/// Packets between two looks at the clock.
const CHUNK: u32 = 10_000;
const SIZE: Size = Size { identities: 1 << 12, endpoints: 1 << 17 };

/// Nanoseconds per packet of 100,000 live flows: without publications, right after one, and with 20 a second; and how
/// many packets of them were dropped.
pub fn publications(quick: bool) -> Result<Vec<Cost>> {
    let rounds = if quick { 3 } else { 10 };
    let lasting = Duration::from_secs(if quick { 1 } else { 5 });
    let mut live = Live::open()?;
    let empty = live.best(rounds, Some("test_rotating_empty"), false)?;
    let steady = live.best(rounds, None, false)?;
    let proving = live.best(rounds, None, true)?;
    let (packets, published, churning) = live.churn(lasting)?;
    let dropped = live.dropped()?;
    let flows = live.kernel.flows(FlowTable::Confirmed)?.len();
    ensure!(flows == 2 * usize::try_from(FLOWS)?, "{flows} flows are live");
    let of = |what: &str, ns: f64| {
        Cost::ns(format!("established, {flows} live flows: {what}"), (ns - empty).max(0.0), None)
    };
    let count = |what: &str, value, limit| Cost {
        name: format!("established, {flows} live flows, 20 publications a second: {what}"),
        value,
        unit: "",
        limit,
    };
    Ok(vec![
        of("no publications", steady),
        of("the first packet after a publication", proving),
        of("20 publications a second", churning),
        count("publications", published, None),
        count("packets", packets, None),
        count("dropped", dropped, Some(0.0)),
    ])
}

/// Flows of both families that are open both ways.
struct Live {
    kernel: Kernel,
    kinds: [Flows; 2],
    epoch: u32,
}

/// The packets of the flows of a family.
struct Flows {
    program: &'static str,
    frame: Vec<u8>,
    rotation: Rotation,
}

impl Flows {
    fn of(cell: Cell) -> Self {
        let mut rotation = cell.rotation(SIZE);
        let [site, ..] = &mut rotation.control_buffer;
        *site |= ALL_PORTS;
        Self { program: cell.program(), frame: cell.frame(), rotation }
    }
}

impl Live {
    fn open() -> Result<Self> {
        let sizes = [("FLOWS", 1 << 18), ("HALF_OPEN", 1 << 18), ("ENDPOINTS", 300_000)];
        let mut kernel = Kernel::load_with(&object(), &sizes)?;
        kernel.publish(Control::new(Bank::A, 0, 1))?;
        kernel.write_tables(&tables(SIZE.identities))?;
        kernel.add_endpoints(&endpoints(SIZE))?;
        let cell = |family| Cell { kind: Kind::Established, family, direction: Direction::Ingress };
        let cells = [Family::V4, Family::V6].map(cell);
        for opener in cells.into_iter().flat_map(Cell::openers) {
            let Flows { program, frame, rotation } = Flows::of(opener);
            let run = kernel.rotate(program, &frame, &rotation, 0, FLOWS)?;
            ensure!(run.action == PASSED, "{opener} does not pass");
        }
        Ok(Self { kernel, kinds: cells.map(Flows::of), epoch: 1 })
    }

    fn publish(&mut self) -> Result<()> {
        self.epoch += 1;
        self.kernel.publish(Control::new(Bank::A, 0, self.epoch))
    }

    /// Packets of the flows of each family from this number on, or the same for another program; nanoseconds of each.
    fn packets(&self, program: Option<&str>, first: u32, count: u32) -> Result<u64> {
        let mut sum = 0;
        for flows in &self.kinds {
            let program = program.unwrap_or(flows.program);
            let run = self.kernel.rotate(program, &flows.frame, &flows.rotation, first, count)?;
            ensure!(run.action == PASSED, "a packet of a live flow was dropped");
            sum += run.ns;
        }
        Ok(sum / 2)
    }

    /// One packet of every flow, the fastest of some rounds.
    fn best(&mut self, rounds: u32, program: Option<&str>, publishes: bool) -> Result<f64> {
        let mut best = u64::MAX;
        for _ in 0..rounds {
            if publishes {
                self.publish()?;
            }
            best = best.min(self.packets(program, 0, FLOWS)?);
        }
        Ok(f64::from(u32::try_from(best)?))
    }

    /// Packets of all flows in turn, while the epoch changes 20 times a second: how many packets and publications,
    /// and nanoseconds of a packet on average.
    fn churn(&mut self, lasting: Duration) -> Result<(f64, f64, f64)> {
        let began = Instant::now();
        let (mut published, mut chunks, mut sum) = (0, 0, 0);
        while began.elapsed() < lasting {
            if began.elapsed() >= BETWEEN * published {
                self.publish()?;
                published += 1;
            }
            sum += self.packets(None, chunks * CHUNK % FLOWS, CHUNK)?;
            chunks += 1;
        }
        let packets = f64::from(chunks) * f64::from(CHUNK) * 2.0;
        Ok((packets, f64::from(published), f64::from(u32::try_from(sum / u64::from(chunks.max(1)))?)))
    }

    /// Packets that were dropped for whatever reason.
    fn dropped(&mut self) -> Result<f64> {
        let counters = self.kernel.counters()?;
        let drops =
            |hook: Hook| Reason::ALL.iter().filter(|r| !r.passes()).map(move |r| counter_slot(hook, *r));
        let slots: Vec<u32> = Hook::ALL.into_iter().flat_map(drops).collect();
        let of_drops = counters.into_iter().filter(|(slot, _)| slots.contains(slot));
        Ok(crate::bench::float(of_drops.map(|(_, counter)| counter.packets).sum()))
    }
}
