//! Nanoseconds per packet, over an empty program, in `BPF_PROG_TEST_RUN`.
//!
//! Every repetition of a run is another packet, of so many flows and peers: one packet alone would find all it reads in
//! the cache. What the change of packets costs by itself is measured beside and taken off. Each value is the best of
//! several runs, since anything else on the machine only adds.

mod cell;
mod churn;
mod guard;
mod tables;

use anyhow::{Context, Result, ensure};
use datapath::abi::{Bank, Control};
use datapath::{FlowTable, Outer};

pub use self::churn::publications;

use self::cell::{Cell, Kind, cells};
use self::tables::{FLOWS, Size, endpoints, tables};
use super::frames::{ethernet, ipv4, tcp};
use super::kernel::{Kernel, PASSED, Rotation, control_buffer, object};
use super::mesh::address;

/// Nanoseconds that a packet of an established flow may cost, and a new flow with a thousand endpoints.
const ESTABLISHED: [f64; 2] = [100.0, 120.0];
const NEW: f64 = 450.0;
/// How much more than with one identity and one endpoint, and a new flow more than with a thousand endpoints.
const FLAT: f64 = 1.10;
const NEW_GROWTH: f64 = 1.5;
/// Nanoseconds that the comparison of the outer facts may take.
const FACTS: f64 = 10.0;

const ENDPOINTS: [u32; 3] = [1, 1 << 10, 1 << 17];
const IDENTITIES: [u32; 2] = [1, 1 << 16];

/// One measured value.
#[derive(Clone, Debug, PartialEq)]
pub struct Cost {
    /// What was measured.
    pub name: String,
    /// The value.
    pub value: f64,
    /// Its unit.
    pub unit: &'static str,
    /// What it may be at most.
    pub limit: Option<f64>,
}

impl Cost {
    fn ns(name: String, value: f64, limit: Option<f64>) -> Self {
        Self { name, value, unit: "ns over empty", limit }
    }
}

/// Measures every kind of packet with few and many identities and endpoints; `quick` leaves out what is between.
pub fn measure(quick: bool) -> Result<Vec<Cost>> {
    let rounds = if quick { 5 } else { 15 };
    let mut costs = Vec::new();
    let mut values = Vec::new();
    for identities in IDENTITIES {
        let mut kernel = load()?;
        if identities == 1 {
            costs.extend(plain(&mut kernel, rounds)?);
        }
        kernel.write_tables(&tables(identities))?;
        for number in ENDPOINTS {
            if quick && (identities == 1) != (number == 1) && number != ENDPOINTS[1] {
                continue;
            }
            let size = Size { identities, endpoints: number };
            kernel.add_endpoints(&endpoints(size))?;
            for cell in cells() {
                let ns = cell.cost(&mut kernel, size, rounds)?;
                costs.push(Cost::ns(format!("{cell}, {size}"), ns, limit(cell, size)));
                values.push((cell, size, ns));
            }
        }
    }
    costs.extend(growth(&values));
    Ok(costs)
}

/// Loads the object with room for all that is measured, and publishes.
fn load() -> Result<Kernel> {
    let sizes = [("FLOWS", 1 << 16), ("HALF_OPEN", 1 << 16), ("ENDPOINTS", 300_000)];
    let mut kernel = Kernel::load_with(&object(), &sizes)?;
    kernel.publish(Control::new(Bank::A, 0, 1))?;
    Ok(kernel)
}

fn limit(cell: Cell, size: Size) -> Option<f64> {
    if cell.kind == Kind::Established {
        Some(if cell.family.is_v4() { ESTABLISHED[0] } else { ESTABLISHED[1] })
    } else {
        (cell.kind == Kind::New && size.endpoints == ENDPOINTS[1]).then_some(NEW)
    }
}

/// How much more it costs with more identities and endpoints.
fn growth(values: &[(Cell, Size, f64)]) -> Vec<Cost> {
    let mut costs = Vec::new();
    for cell in cells() {
        let of = |from: u32| {
            let all = values.iter().filter(move |(other, size, _)| *other == cell && size.endpoints >= from);
            all.map(|(_, _, ns)| *ns)
        };
        let (what, limit, first) = if cell.kind == Kind::Established {
            ("most / with 1 identity and 1 endpoint", FLAT, of(1).next())
        } else if cell.kind == Kind::New {
            ("most / with 1 identity and 1,024 endpoints", NEW_GROWTH, of(ENDPOINTS[1]).next())
        } else {
            continue;
        };
        if let Some(first) = first.filter(|ns| *ns > 0.0) {
            let value = of(1).fold(0.0, f64::max) / first;
            costs.push(Cost { name: format!("{cell}: {what}"), value, unit: "ratio", limit: Some(limit) });
        }
    }
    costs
}

/// What does not depend on the tables: the empty program, the comparison of outer facts, the tunnel header, the guard.
fn plain(kernel: &mut Kernel, rounds: u32) -> Result<Vec<Cost>> {
    const TIMES: u32 = 20_000;
    kernel.write_tables(&tables(1))?;
    kernel.add_endpoints(&endpoints(Size { identities: 1, endpoints: 1 }))?;
    let [own, peer] = ["10.0.0.1", "10.64.0.0"].map(address);
    let outer = control_buffer(&Outer { source: address(tables::TUNNEL), vni: tables::IDENTITY });
    let frame = |flags| ethernet(&ipv4(peer, own, 6, [0; 4], &tcp(4000, 80, flags)));
    let answer = ethernet(&ipv4(own, peer, 6, [0; 4], &tcp(80, 4000, 0x12)));
    for (program, frame) in [("test_mesh_ingress", frame(2)), ("test_mesh_egress", answer)] {
        ensure!(kernel.run(program, &frame, outer)?.action == PASSED, "the handshake passes");
    }
    let best = |program: &str, frame: &[u8], control: [u32; 5]| -> Result<f64> {
        let mut best = u64::MAX;
        for _ in 0..rounds {
            let run = kernel.repeat(program, frame, control, TIMES)?;
            ensure!(run.action == PASSED, "{program} returned {}", run.action);
            best = best.min(run.ns);
        }
        Ok(f64::from(u32::try_from(best)?))
    };
    let packet = frame(0x10);
    let empty = best("test_empty", &packet, outer)?;
    let (lookup, facts) = (best("test_lookup", &packet, outer)?, best("test_lookup_facts", &packet, outer)?);
    let tunnel = best("test_encapsulate", &packet, outer)? - empty;
    let mut costs = vec![
        Cost { name: "empty program".to_owned(), value: empty, unit: "ns", limit: None },
        Cost::ns("parse and look up a flow, same packet".to_owned(), lookup - empty, None),
        Cost {
            name: "comparison of the outer facts".to_owned(),
            value: facts - lookup,
            unit: "ns",
            limit: Some(FACTS),
        },
        Cost::ns("tunnel header alone, same packet".to_owned(), tunnel, None),
    ];
    costs.extend(guard::guard(kernel, empty, rounds)?);
    Ok(costs)
}

impl Cell {
    /// Nanoseconds over the program that only changes packets.
    fn cost(self, kernel: &mut Kernel, size: Size, rounds: u32) -> Result<f64> {
        self.prepare(kernel, size)?;
        let (frame, rotation) = (self.frame(), self.rotation(size));
        let (mut best, mut idle) = (u64::MAX, u64::MAX);
        let mut turn = 0;
        // Between two runs of new flows their entries are removed, which takes longer than the run.
        let rounds = if self.kind == Kind::New { rounds } else { rounds * 6 };
        for _ in 0..rounds {
            let empty = kernel.rotate("test_rotating_empty", &frame, &rotation, turn, FLOWS)?;
            ensure!(empty.action == PASSED, "packets cannot be changed");
            idle = idle.min(empty.ns);
            let run = kernel.rotate(self.program(), &frame, &rotation, turn, FLOWS)?;
            ensure!(run.action == self.action(), "{self}, {size}: the program returned {}", run.action);
            best = best.min(run.ns);
            if self.kind == Kind::New {
                kernel.remove_flows(FlowTable::HalfOpen)?;
                turn = turn.wrapping_add(FLOWS);
            }
        }
        let ns = best.checked_sub(idle).context("less than nothing")?;
        Ok(f64::from(u32::try_from(ns)?))
    }

    /// Opens the flows that the packets belong to.
    fn prepare(self, kernel: &mut Kernel, size: Size) -> Result<()> {
        kernel.remove_flows(FlowTable::Confirmed)?;
        kernel.remove_flows(FlowTable::HalfOpen)?;
        for opener in self.openers() {
            let run = kernel.rotate(opener.program(), &opener.frame(), &opener.rotation(size), 0, FLOWS)?;
            ensure!(run.action == PASSED, "{self}: {opener} does not pass");
        }
        Ok(())
    }
}

/// How packets change from one to the next, in the form of the test programs.
impl Rotation {
    fn of(port: u32, ports: u32, peer: u32, size: Size, source: [u8; 4]) -> Self {
        let control_buffer =
            [port | ports << 16, peer, size.endpoints - 1, u32::from_ne_bytes(source), tables::IDENTITY];
        Self { control_buffer, priority: size.identities - 1 }
    }
}
