//! Many packets through both at the price of few calls of the kernel.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use datapath::abi::{Counter, Hook, counter_slot};
use datapath::model::Frame;
use datapath::{Direction, Moment, Outer, Reason, Verdict, decide, guard};
use rand::{Rng, RngExt};

use super::compare::{Seen, events, maps, now_ns, outcome};
use super::frames::{self, Sent};
use super::kernel::{DROPPED, Kernel, PASSED, control_buffer};
use super::mesh::Mesh;

/// Runs a few packets, chosen by whatever gives the numbers, on one mesh. Verdicts, routes and events are compared
/// packet by packet, counters and maps at the end, which is many times faster.
pub fn batch(kernel: &mut Kernel, rng: &mut impl Rng, packets: u32) -> Result<Seen> {
    let mesh = Mesh::random(rng);
    let mut seen = Seen::default();
    let mut earlier: Vec<Sent> = Vec::new();
    kernel.forget()?;
    kernel.write_tables(&mesh.model)?;
    kernel.publish(mesh.control)?;
    for number in 0..packets {
        let sent = frames::random(rng, &earlier);
        if !frames::is_runnable(&sent.frame) {
            continue;
        }
        let is_bare = rng.random_range(0..8) == 0;
        let outer = match sent.direction {
            Direction::Ingress if !is_bare => mesh.outer(sent.source, rng),
            Direction::Ingress | Direction::Egress => Outer::NONE,
        };
        let (verdict, hook) = both(kernel, &mesh, &sent, &outer, is_bare)
            .and_then(|outcome| events(kernel, &mesh, if is_bare { 14 } else { 0 }).map(|()| outcome))
            .with_context(|| format!("packet {number}: {sent:02x?} {outer:?}"))?;
        if let Some(verdict) = verdict {
            *seen.reasons.entry((hook, verdict.reason)).or_default() += 1;
        }
        earlier.push(sent);
    }
    totals(kernel, &mesh)?;
    maps(kernel, &mesh)?;
    Ok(seen)
}

/// One packet in the kernel and by the host build: both let it go on the same way, or not at all.
fn both(
    kernel: &Kernel,
    mesh: &Mesh,
    sent: &Sent,
    outer: &Outer,
    is_bare: bool,
) -> Result<(Option<Verdict>, Hook)> {
    let frame = Frame { ifindex: 1, ..Frame::of_ethernet(&sent.frame).context("a frame")? };
    let (hook, program) = match (sent.direction, is_bare) {
        (Direction::Ingress, false) => (Hook::MeshIngress, "test_mesh_ingress"),
        (Direction::Egress, false) => (Hook::MeshEgress, "test_mesh_egress"),
        (Direction::Ingress, true) => (Hook::GuardIngress, Hook::GuardIngress.program()),
        (Direction::Egress, true) => (Hook::GuardEgress, Hook::GuardEgress.program()),
    };
    let moment = Moment { hook, control: mesh.control, now_ns: now_ns() };
    if is_bare {
        let passes = guard(&frame, &moment, &mesh.model);
        let run = kernel.run(program, &sent.frame, [mesh.control.0, 0, 0, 0, 0])?;
        ensure!(run.action == if passes { PASSED } else { DROPPED }, "{hook:?}: {run:?}");
        return Ok((None, hook));
    }
    let verdict = decide(&frame, outer, &moment, &mesh.model);
    let run = kernel.run(program, &sent.frame, control_buffer(outer))?;
    outcome(&run, &verdict, sent).with_context(|| format!("the host: {verdict:?}"))?;
    Ok((Some(verdict), hook))
}

/// All counters are equal, and set back.
fn totals(kernel: &mut Kernel, mesh: &Mesh) -> Result<()> {
    let mut host = BTreeMap::new();
    for hook in Hook::ALL {
        for reason in Reason::ALL {
            let counter = mesh.model.counter(hook, *reason);
            if counter.packets != 0 {
                host.insert(counter_slot(hook, *reason), counter);
            }
        }
    }
    let theirs: BTreeMap<_, _> = kernel.counters()?.into_iter().collect();
    for slot in theirs.keys() {
        kernel.reset(*slot)?;
    }
    // The guard counts whole frames.
    let packets = |counters: &BTreeMap<u32, Counter>| {
        counters.iter().map(|(slot, counter)| (*slot, counter.packets)).collect::<Vec<_>>()
    };
    ensure!(packets(&host) == packets(&theirs), "counters of the host: {host:?}\nof the kernel: {theirs:?}");
    Ok(())
}
