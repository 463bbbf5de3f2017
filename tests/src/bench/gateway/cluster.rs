//! The same with a cluster's API as source and state: from a change there to the last agent's acknowledgement, what so many
//! pods cost in memory and at the start, and what is written while nothing happens.

use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use super::bed::Bed;
use super::{SILENCE, WARM_UP, change, usage};
use crate::apiserver::fixture::{ApiServer, WRITES};
use crate::bench::{Measurement, float};
use crate::gateway::objects::{Objects, USER};

/// Agents and pods, and a tenth of them where it shall be quick.
const AGENTS: u32 = 1_000;
const PODS: u32 = 20_000;
/// Milliseconds from a change in the API until the gateway has the last agent's acknowledgement, in all but one of a hundred.
const CHANGE_MS: f64 = 500.0;
/// Bytes of the gateway.
const MEMORY: f64 = 300e6;
/// Seconds until a gateway without a disk serves.
const START_S: f64 = 10.0;
/// Changes that are measured.
const CHANGES: usize = 200;

/// Measures with a cluster.
pub(crate) fn measure(quick: bool) -> Result<Vec<Measurement>> {
    let (agents, pods) = if quick { (AGENTS / 10, PODS / 10) } else { (AGENTS, PODS) };
    println!("cluster: {pods} pods are made, {agents} agents join");
    let mut bed = Bed::of_cluster(agents, pods)?;
    bed.connect()?;
    let back_end = server(&mut bed)?.back_end();
    let names = [
        "change to last ack, p50",
        "change to last ack, p99",
        "memory",
        "start without a disk",
        "writes during the changes",
        "writes in a minute of silence",
    ];
    let names = names.map(|what| format!("cluster ({back_end}), {agents} agents, {pods} pods: {what}"));
    let [p50, p99, memory, start, changing, silent] = names;
    for number in 0..WARM_UP {
        change(&mut bed, number)?;
    }
    let before = writes(&mut bed)?;
    let mut times = Vec::new();
    for number in 0..CHANGES {
        times.push(change(&mut bed, WARM_UP + number)?);
    }
    let after = writes(&mut bed)?;
    times.sort_by(f64::total_cmp);
    let at = |percent: usize| times.get((times.len() - 1) * percent / 100).copied().unwrap_or_default();
    let rested = usage::rested(bed.pid()?)?;
    println!("cluster: {} s of silence", SILENCE.as_secs());
    let quiet = writes(&mut bed)?;
    std::thread::sleep(SILENCE);
    let still = writes(&mut bed)?;
    bed.gateway.kill()?;
    let state = bed.gateway.config().with_file_name("state");
    std::fs::remove_dir_all(&state).with_context(|| state.display().to_string())?;
    let killed = Instant::now();
    bed.gateway.launch()?;
    let started = killed.elapsed().as_secs_f64();
    Ok(vec![
        Measurement::known(&p50, at(50), "ms"),
        Measurement::at_most(&p99, at(99), "ms", CHANGE_MS),
        Measurement::at_most(&memory, float(rested), "bytes", MEMORY),
        Measurement::at_most(&start, started, "s", START_S),
        Measurement::known(&changing, float(after - before), ""),
        Measurement::at_most(&silent, float(still - quiet), "", 0.0),
    ])
}

fn server(bed: &mut Bed) -> Result<&ApiServer> {
    match bed.gateway.objects() {
        Objects::Cluster(api) => Ok(&api.server),
        Objects::Folder(folder) => bail!("{} is no cluster", folder.display()),
    }
}

fn writes(bed: &mut Bed) -> Result<u64> {
    server(bed)?.count(USER, &WRITES, "")
}
