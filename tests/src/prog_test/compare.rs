//! One packet, twice: in the kernel and by the host build. Everything that can be seen of both has to be equal.

use anyhow::{Context, Result, ensure};
use datapath::abi::{Event, Flow, FragmentEntry, Hook, counter_slot};
use datapath::model::Frame;
use datapath::{Direction, FlowTable, Moment, Outer, Reason, Verdict, decide, guard};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::frames::{self, Sent};
use super::kernel::{DROPPED, Kernel, PASSED, REDIRECTED, Run, control_buffer, route};
use super::mesh::Mesh;

/// What was compared.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// How often each reason came, by hook.
    pub reasons: std::collections::BTreeMap<(Hook, Reason), u32>,
}

/// Runs a random sequence of packets, publications and ageing through both.
pub fn sequence(kernel: &mut Kernel, seed: u64, packets: u32) -> Result<Seen> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut mesh = Mesh::random(&mut rng);
    let mut counts = Seen::default();
    let mut earlier: Vec<Sent> = Vec::new();
    kernel.forget()?;
    kernel.write_tables(&mesh.model)?;
    kernel.publish(mesh.control)?;
    for number in 0..packets {
        let context = || format!("seed {seed}, packet {number}");
        let next = frames::random(&mut rng, &earlier);
        match rng.random_range(0..200) {
            0 => {
                mesh.republish(&mut rng);
                kernel.write_tables(&mesh.model)?;
                kernel.publish(mesh.control)?;
            }
            _ if !frames::is_runnable(&next.frame) => {}
            1 => age(kernel, &mesh, *[20, 100, 400, 30_000].get(rng.random_range(0..4)).unwrap_or(&20))?,
            2..=9 => bare(kernel, &mesh, &next, &mut counts).with_context(context)?,
            _ => {
                let sent = next;
                let outer = match sent.direction {
                    Direction::Ingress => mesh.outer(sent.source, &mut rng),
                    Direction::Egress => Outer::NONE,
                };
                let verdict = packet(kernel, &mesh, &sent, &outer).with_context(context)?;
                *counts.reasons.entry((hook_of(sent.direction), verdict.reason)).or_default() += 1;
                earlier.push(sent);
                if earlier.len() > 30 {
                    earlier.remove(0);
                }
            }
        }
    }
    maps(kernel, &mesh).with_context(|| format!("seed {seed}, at the end"))?;
    Ok(counts)
}

const fn hook_of(direction: Direction) -> Hook {
    match direction {
        Direction::Ingress => Hook::MeshIngress,
        Direction::Egress => Hook::MeshEgress,
    }
}

/// One packet of the mesh device through both; returns what they agree on.
pub fn packet(kernel: &mut Kernel, mesh: &Mesh, sent: &Sent, outer: &Outer) -> Result<Verdict> {
    let hook = hook_of(sent.direction);
    let program = match sent.direction {
        Direction::Ingress => "test_mesh_ingress",
        Direction::Egress => "test_mesh_egress",
    };
    let frame = Frame { ifindex: 1, ..Frame::of_ethernet(&sent.frame).context("a frame")? };
    let moment = Moment { hook, control: mesh.control, now_ns: now_ns() };
    let verdict = decide(&frame, outer, &moment, &mesh.model);
    let run = kernel.run(program, &sent.frame, control_buffer(outer))?;
    let told = || format!("{sent:02x?} {outer:?}\nhost: {verdict:?}");
    counters(kernel, hook, verdict.reason, frame.bytes.len()).with_context(told)?;
    outcome(&run, &verdict, sent).with_context(told)?;
    events(kernel, mesh, 0).with_context(told)?;
    kernel.reset(counter_slot(hook, verdict.reason))?;
    mesh.model.refill();
    flows_of(kernel, mesh, &verdict, sent).with_context(told)?;
    Ok(verdict)
}

/// The kernel did with the packet what the verdict says.
pub(super) fn outcome(run: &Run, verdict: &Verdict, sent: &Sent) -> Result<()> {
    let is_relayed = verdict.reason == Reason::Relayed && sent.direction == Direction::Ingress;
    let expected = match (is_relayed, verdict.reason.passes()) {
        (true, _) => REDIRECTED,
        (false, true) => PASSED,
        (false, false) => DROPPED,
    };
    ensure!(run.action == expected, "the kernel returned {}", run.action);
    if expected == REDIRECTED {
        ensure!(run.frame == with_a_hop_less(&sent.frame)?, "the frame became {:02x?}", run.frame);
    }
    if verdict.reason.passes() && sent.direction == Direction::Egress {
        ensure!(route(run.control_buffer) == (verdict.tunnel, verdict.mark), "{run:x?}");
    }
    Ok(())
}

/// The frame as a router would send it on.
fn with_a_hop_less(frame: &[u8]) -> Result<Vec<u8>> {
    let mut frame = frame.to_vec();
    let (_, packet) = frame.split_at_mut_checked(14).context("a frame")?;
    match packet.first().map(|byte| byte >> 4) {
        Some(4) => {
            // RFC 1624: the sum changes by what the hops do, which stand in an upper byte.
            let sum = packet.get_mut(10..12).context("a checksum")?;
            let old = u16::from_be_bytes([*sum.first().context("a byte")?, *sum.last().context("a byte")?]);
            let (new, carry) = old.overflowing_add(0x0100);
            sum.copy_from_slice(&(new + u16::from(carry)).to_be_bytes());
            *packet.get_mut(8).context("hops")? -= 1;
        }
        _ => *packet.get_mut(7).context("hops")? -= 1,
    }
    Ok(frame)
}

/// A packet on another device.
fn bare(kernel: &mut Kernel, mesh: &Mesh, sent: &Sent, seen: &mut Seen) -> Result<()> {
    let hook = match sent.direction {
        Direction::Ingress => Hook::GuardIngress,
        Direction::Egress => Hook::GuardEgress,
    };
    let frame = Frame { ifindex: 1, ..Frame::of_ethernet(&sent.frame).context("a frame")? };
    let moment = Moment { hook, control: mesh.control, now_ns: now_ns() };
    let passes = guard(&frame, &moment, &mesh.model);
    let run = kernel.run(hook.program(), &sent.frame, [mesh.control.0, 0, 0, 0, 0])?;
    ensure!(run.action == if passes { PASSED } else { DROPPED }, "{hook:?} {sent:02x?}: {run:?}");
    let host: Vec<_> = mesh.model.take_events().iter().map(|event| comparable(event, 14)).collect();
    let theirs: Vec<_> = kernel.take_events()?.iter().map(|event| comparable(event, 0)).collect();
    ensure!(host == theirs, "host: {host:?}\nkernel: {theirs:?}");
    for event in host {
        let reason = Reason::from_u8(event.reason).context("a reason")?;
        kernel.reset(counter_slot(hook, reason))?;
        *seen.reasons.entry((hook, reason)).or_default() += 1;
    }
    mesh.model.refill();
    Ok(())
}

/// Exactly one counter has moved, by one packet of this length.
fn counters(kernel: &mut Kernel, hook: Hook, reason: Reason, length: usize) -> Result<()> {
    let counters = kernel.counters()?;
    let expected = u64::try_from(length)?;
    match counters.as_slice() {
        [(slot, counter)]
            if *slot == counter_slot(hook, reason) && counter.packets == 1 && counter.bytes == expected =>
        {
            Ok(())
        }
        other => {
            let names: Vec<_> = other
                .iter()
                .map(|(slot, counter)| {
                    (slot / 64, u8::try_from(slot % 64).ok().and_then(Reason::from_u8), *counter)
                })
                .collect();
            anyhow::bail!("counters of the kernel: {names:?}; expected one of {expected} bytes")
        }
    }
}

/// The events of the kernel since the last look are those of the host, whose frames count so many bytes less.
pub(super) fn events(kernel: &mut Kernel, mesh: &Mesh, more: u32) -> Result<()> {
    let host: Vec<_> = mesh.model.take_events().iter().map(|event| comparable(event, more)).collect();
    let theirs: Vec<_> = kernel.take_events()?.iter().map(|event| comparable(event, 0)).collect();
    ensure!(host == theirs, "events of the host: {host:?}\nof the kernel: {theirs:?}");
    Ok(())
}

/// Without the clock; the guard counts whole frames.
const fn comparable(event: &Event, more: u32) -> Event {
    Event { time_ns: 0, length: event.length + more, ..*event }
}

/// The flow of a packet is the same in both maps, or absent from the same.
fn flows_of(kernel: &mut Kernel, mesh: &Mesh, verdict: &Verdict, sent: &Sent) -> Result<()> {
    if matches!(verdict.reason, Reason::Malformed | Reason::UnknownEtherType | Reason::Arp) {
        return Ok(());
    }
    let frame = Frame::of_ethernet(&sent.frame).context("a frame")?;
    let mut parsed = datapath::parse::Parsed::new(sent.direction);
    if datapath::parse::parse(&frame, &mut parsed).is_err() {
        return Ok(());
    }
    for table in [FlowTable::Confirmed, FlowTable::HalfOpen] {
        let host = mesh.model.flows(table).get(&parsed.key).map(timeless);
        let theirs = kernel.flow(table, &parsed.key)?.as_ref().map(timeless);
        ensure!(host == theirs, "{table:?} of the host: {host:?}\nof the kernel: {theirs:?}");
    }
    Ok(())
}

/// All that packets write is equal.
pub(super) fn maps(kernel: &mut Kernel, mesh: &Mesh) -> Result<()> {
    for table in [FlowTable::Confirmed, FlowTable::HalfOpen] {
        let host: Vec<_> = mesh.model.flows(table).iter().map(|(key, flow)| (*key, timeless(flow))).collect();
        let mut theirs: Vec<_> =
            kernel.flows(table)?.iter().map(|(key, flow)| (*key, timeless(flow))).collect();
        theirs.sort();
        ensure!(host == theirs, "{table:?} differ: {} and {} entries", host.len(), theirs.len());
    }
    let forget = |entry: &FragmentEntry| (entry.source_port, entry.destination_port);
    let host: Vec<_> = mesh.model.fragments().iter().map(|(key, entry)| (*key, forget(entry))).collect();
    let mut theirs: Vec<_> = kernel.fragments()?.iter().map(|(key, entry)| (*key, forget(entry))).collect();
    theirs.sort();
    ensure!(host == theirs, "fragments differ: {host:?} and {theirs:?}");
    Ok(())
}

/// Lets time pass for all flows.
fn age(kernel: &mut Kernel, mesh: &Mesh, ticks: u32) -> Result<()> {
    use datapath::Tables as _;
    for table in [FlowTable::Confirmed, FlowTable::HalfOpen] {
        for (key, flow) in mesh.model.flows(table) {
            let aged = Flow { last_seen: flow.last_seen.wrapping_sub(ticks), ..flow };
            mesh.model.insert(table, &key, &aged);
            kernel.write_flow(table, &key, &aged)?;
        }
    }
    Ok(())
}

const fn timeless(flow: &Flow) -> Flow {
    Flow { last_seen: 0, ..*flow }
}

/// The clock that programs read.
pub(super) fn now_ns() -> u64 {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).map_or(0, |time| {
        let (seconds, rest) = (u64::try_from(time.tv_sec()), u64::try_from(time.tv_nsec()));
        seconds.unwrap_or(0) * 1_000_000_000 + rest.unwrap_or(0)
    })
}
