//! Who runs what: the gateway is asked which generation each agent has acknowledged, its audit log which revision of
//! the source each generation was made of, and the kernels what they counted as dropped.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use aya::maps::{HashMap, Map, MapData, PerCpuArray};
use datapath::Reason;
use datapath::abi::{Flow, FlowKey, Hook, counter_slot};
use proto::v1::ListWorkloadsRequest;
use proto::v1::admin_client::AdminClient;
use serde_json::Value;
use tonic::transport::{Channel, Endpoint};

use super::checker::{Checker, Revision};
use super::world;
use crate::wait::monotonic_ns;

/// How often agents are asked for.
const PERIOD: Duration = Duration::from_millis(10);

/// The revisions of the source by their digests, and the generations that were made of them.
#[derive(Debug, Default)]
pub struct Revisions {
    /// By digest.
    pub by_digest: BTreeMap<String, Revision>,
    generations: BTreeMap<u64, Revision>,
    read: u64,
    rest: String,
    /// Enforcement points whose last state was refused for a full table.
    full: BTreeSet<usize>,
    refusals: u64,
}

/// Where to look.
#[derive(Clone, Debug)]
pub struct Watched {
    /// The gateway's socket.
    pub socket: PathBuf,
    /// Its audit log.
    pub audit: PathBuf,
    /// The workload of each enforcement point.
    pub workloads: Vec<String>,
}

impl Revisions {
    /// Reads what is new in the audit log.
    pub fn read(&mut self, audit: &Path) -> Result<()> {
        let mut file = File::open(audit).with_context(|| format!("cannot open {}", audit.display()))?;
        file.seek(SeekFrom::Start(self.read))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        self.read += u64::try_from(bytes.len())?;
        self.rest.push_str(&String::from_utf8_lossy(&bytes));
        let Some(end) = self.rest.rfind('\n') else { return Ok(()) };
        let rest = self.rest.split_off(end + 1);
        let lines = std::mem::replace(&mut self.rest, rest);
        lines.lines().for_each(|line| self.line(line));
        Ok(())
    }

    fn line(&mut self, line: &str) {
        let Ok(record) = serde_json::from_str::<Value>(line) else { return };
        let Some(digest) = record.pointer(&format!("/files/{}", world::FILE)).and_then(Value::as_str) else {
            return;
        };
        let generation = crate::json::number(&record, "generation");
        if let Some(revision) = self.by_digest.get(digest) {
            self.generations.insert(generation, *revision);
        }
    }

    /// The revision a generation was made of.
    #[must_use]
    pub fn of(&self, generation: u64) -> Option<Revision> {
        self.generations.range(..=generation).next_back().map(|(_, revision)| *revision)
    }

    /// Learns why an enforcement point refused its last state; empty: it did not.
    fn refused(&mut self, point: usize, reason: &str) {
        if !reason.contains("is full") {
            self.full.remove(&point);
        } else if self.full.insert(point) {
            self.refusals += 1;
        }
    }

    /// How often a table was seen to be too full.
    #[must_use]
    pub const fn refusals(&self) -> u64 {
        self.refusals
    }

    /// How many generations came of revisions.
    #[must_use]
    pub fn generations(&self) -> usize {
        self.generations.len()
    }
}

/// Follows the agents until `stop`.
pub fn follow(
    watched: &Watched,
    revisions: &Mutex<Revisions>,
    checker: &Mutex<Checker>,
    stop: &AtomicBool,
) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut client: Option<AdminClient<Channel>> = None;
        while !stop.load(Ordering::Relaxed) {
            tokio::time::sleep(PERIOD).await;
            let connected = match client.take() {
                Some(client) => client,
                None => match connect(&watched.socket).await {
                    Ok(client) => client,
                    Err(_) => continue,
                },
            };
            client = ask(connected, watched, revisions, checker).await;
        }
        Ok(())
    })
}

async fn connect(socket: &Path) -> Result<AdminClient<Channel>> {
    let channel = Endpoint::try_from(format!("unix:{}", socket.display()))?.connect().await?;
    Ok(AdminClient::new(channel).max_decoding_message_size(usize::MAX))
}

/// Asks once. A gateway that does not answer is asked anew over another connection.
async fn ask(
    mut client: AdminClient<Channel>,
    watched: &Watched,
    revisions: &Mutex<Revisions>,
    checker: &Mutex<Checker>,
) -> Option<AdminClient<Channel>> {
    let asked = client.list_workloads(ListWorkloadsRequest {});
    let answer = tokio::time::timeout(Duration::from_secs(1), asked).await.ok()?.ok()?.into_inner();
    let at_ns = monotonic_ns();
    let mut revisions = revisions.lock().unwrap_or_else(PoisonError::into_inner);
    revisions.read(&watched.audit).ok()?;
    let mut checker = checker.lock().unwrap_or_else(PoisonError::into_inner);
    for workload in answer.workloads {
        let name = format!("{}/{}", workload.namespace, workload.name);
        let point = watched.workloads.iter().position(|known| *known == name);
        if let Some(point) = point {
            revisions.refused(point, &workload.rejected_reason);
        }
        if let Some((point, revision)) = point.zip(revisions.of(workload.acked_generation)) {
            checker.acknowledge(point, at_ns, revision);
        }
    }
    Some(client)
}

/// Packets that a machine's programs dropped so far, by reason.
pub fn drops(holder: u32) -> Result<BTreeMap<&'static str, u64>> {
    let path = format!("/proc/{holder}/root/sys/fs/bpf/outrigger/default/stable/COUNTERS");
    let data = MapData::from_pin(&path).with_context(|| path.clone())?;
    let array: PerCpuArray<MapData, [u64; 2]> = PerCpuArray::try_from(Map::PerCpuArray(data))?;
    let mut drops = BTreeMap::new();
    for hook in Hook::ALL {
        for reason in Reason::ALL.iter().filter(|reason| !reason.passes()) {
            let values = array.get(&counter_slot(hook, *reason), 0)?;
            let packets: u64 = values.iter().map(|[packets, _]| *packets).sum();
            if packets > 0 {
                *drops.entry(reason.name()).or_default() += packets;
            }
        }
    }
    Ok(drops)
}

/// Flows in a host's table of those that are established.
pub fn established(holder: u32) -> Result<usize> {
    let path = format!("/proc/{holder}/root/sys/fs/bpf/outrigger/default/stable/FLOWS");
    let data = MapData::from_pin(&path).with_context(|| path.clone())?;
    let flows: HashMap<MapData, [u8; size_of::<FlowKey>()], [u8; size_of::<Flow>()]> =
        HashMap::try_from(Map::LruHashMap(data))?;
    Ok(flows.keys().flatten().count())
}

/// Datagrams that no longer fitted into the buffers of sockets on a machine.
#[must_use]
pub fn overflows(holder: u32) -> u64 {
    let tables = ["udp", "udp6"].map(|table| std::fs::read_to_string(format!("/proc/{holder}/net/{table}")));
    let lines = tables.iter().flatten().flat_map(|table| table.lines().skip(1));
    lines.filter_map(|line| line.split_whitespace().next_back()?.parse::<u64>().ok()).sum()
}

/// Frames that a machine's devices dropped because a queue was full. What programs drop is not among them.
#[must_use]
pub fn device_drops(holder: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{holder}/net/dev")).unwrap_or_default();
    let dropped = |line: &str| {
        let fields: Vec<u64> =
            line.split_once(':')?.1.split_whitespace().filter_map(|field| field.parse().ok()).collect();
        Some(fields.get(3)? + fields.get(11)?)
    };
    text.lines().filter_map(dropped).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_is_made_of_what_the_log_said_last_before_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        let mut revisions = Revisions::default();
        revisions.by_digest.extend([("aa".to_owned(), 1), ("bb".to_owned(), 2)]);
        let line = |generation: u64, digest: &str| {
            format!(
                "{{\"event\":\"published\",\"generation\":{generation},\"files\":{{\"world.yaml\":\"{digest}\"}}}}\n"
            )
        };
        let text = line(5, "aa") + "{\"event\":\"joined\"}\n" + &line(9, "bb");
        let (first, second) = text.split_at(text.len() - 10);
        std::fs::write(&path, first).unwrap();
        revisions.read(&path).unwrap();
        assert_eq!((revisions.of(4), revisions.of(5), revisions.of(20)), (None, Some(1), Some(1)));
        std::fs::write(&path, [first, second].concat()).unwrap();
        revisions.read(&path).unwrap();
        assert_eq!((revisions.of(8), revisions.of(9)), (Some(1), Some(2)));
    }
}
