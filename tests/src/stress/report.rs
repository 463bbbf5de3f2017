//! What came of a run: the table, and the history of every finding as JSON.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use serde::Serialize;

use super::checker::{Checker, Circumstances, Finding, Tally};
use super::trouble::Log;

/// Findings that are told in full; of more there is a number.
const TOLD: usize = 200;
/// How long before and after a finding drop counters are told.
const AROUND_NS: u64 = 2_000_000_000;

/// Findings with what they were made of.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Findings(pub Vec<Told>);

/// A finding with its circumstances.
#[derive(Clone, Debug, Serialize)]
pub struct Told {
    /// The name of the flow.
    pub flow: String,
    /// Packet, judgement and windows.
    pub finding: Finding,
    /// What each enforcement point could have decided by.
    pub points: Vec<Circumstances>,
    /// What programs and queues dropped around that time: when, where, why, how many.
    pub drops: Vec<(u64, String, String, u64)>,
}

/// What was counted, in the order of time.
#[derive(Debug, Default)]
pub struct Evidence(Mutex<Vec<(u64, String, String, u64)>>);

/// The sum of a run.
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "each is a line of the table, which says what it is")]
pub struct Summary {
    pub seed: u64,
    pub seconds: u64,
    pub flows: usize,
    pub revisions: u64,
    pub policies: u64,
    pub endpoints: u64,
    pub generations: usize,
    pub acknowledged: Vec<usize>,
    pub agents_killed: u64,
    pub gateways_restarted: u64,
    pub connections_cut: u64,
    pub flood: u64,
    pub answered: u64,
    pub streams_doubled: u64,
    pub bulks: u64,
    pub refusals: u64,
    pub established: Vec<usize>,
    pub unsent: u64,
    pub streams_broken: u64,
    pub tally: Tally,
    pub findings: Findings,
}

#[derive(Serialize)]
struct History<'a> {
    summary: &'a Summary,
    deeds: Vec<super::trouble::Entry>,
    drops: BTreeMap<String, u64>,
}

impl Evidence {
    /// Notes a difference of a counter.
    pub fn dropped(&self, at_ns: u64, machine: &str, reason: &str, packets: u64) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.push((at_ns, machine.to_owned(), reason.to_owned(), packets));
    }

    fn around(&self, at_ns: u64) -> Vec<(u64, String, String, u64)> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let near = |entry: &&(u64, String, String, u64)| entry.0.abs_diff(at_ns) < AROUND_NS;
        all.iter().filter(near).cloned().collect()
    }

    fn sums(&self) -> BTreeMap<String, u64> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sums = BTreeMap::new();
        for (_, machine, reason, packets) in all.iter() {
            *sums.entry(format!("{machine} {reason}")).or_default() += packets;
        }
        sums
    }
}

impl Findings {
    /// Adds one.
    pub fn add(&mut self, checker: &Checker, finding: Finding, evidence: &Evidence) {
        if self.0.len() >= TOLD {
            return;
        }
        let flow = checker.paths.get(finding.packet.flow).map(|path| path.name.clone()).unwrap_or_default();
        let points = checker.circumstances(&finding);
        let drops = evidence.around(finding.packet.sent_ns);
        self.0.push(Told { flow, finding, points, drops });
    }
}

impl Summary {
    /// Whether nothing was found.
    #[must_use]
    pub const fn is_clean(&self) -> bool {
        self.tally.is_clean() && self.streams_broken == 0
    }

    /// Whether no packet was delivered that nothing allows.
    #[must_use]
    pub const fn lets_nothing_through(&self) -> bool {
        self.tally.wrongly_allowed == 0
    }

    /// Writes it with what was done, to `target/stress/<seed>.json`.
    pub(super) fn write(&self, log: &Log, evidence: &Evidence) -> Result<PathBuf> {
        let programs = crate::binaries::folder()?;
        let folder = programs.parent().context("the build folder has no parent")?.join("stress");
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let path = folder.join(format!("{}.json", self.seed));
        let history = History { summary: self, deeds: log.entries(), drops: evidence.sums() };
        std::fs::write(&path, serde_json::to_string_pretty(&history)? + "\n")?;
        Ok(path)
    }
}

/// Copies what the daemons wrote beside the history.
pub fn keep_logs(history: &Path, logs: &Path) -> Result<PathBuf> {
    let folder = history.with_extension("logs");
    std::fs::create_dir_all(&folder)?;
    for entry in std::fs::read_dir(logs)?.flatten() {
        std::fs::copy(entry.path(), folder.join(entry.file_name()))?;
    }
    Ok(folder)
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = |count: u64| format!("{count} ({} a second)", count / self.seconds.max(1));
        let tally = &self.tally;
        let mut rows = vec![
            ("policy changes", rate(self.policies)),
            ("endpoint changes", rate(self.endpoints)),
            ("generations of", format!("{} of {} revisions", self.generations, self.revisions)),
            ("of these acknowledged", format!("{:?} by the hosts and the transit node", self.acknowledged)),
            ("agents killed", self.agents_killed.to_string()),
            ("gateway restarts", self.gateways_restarted.to_string()),
            ("connections cut", self.connections_cut.to_string()),
            ("second streams", self.streams_doubled.to_string()),
            ("tables too full for", format!("{} policies, {} refusals seen", self.bulks, self.refusals)),
            ("flows of the flood", format!("{}, and {} answered", self.flood, self.answered)),
            ("established at the end", format!("{:?} flows on the hosts", self.established)),
            (
                "packets judged",
                format!("{} on {} flows, {} delivered", tally.packets, self.flows, tally.delivered),
            ),
            ("one outcome possible", format!("{} %", tally.sharp * 100 / tally.packets.max(1))),
        ];
        rows.extend(
            tally.excused.iter().map(|(reason, count)| (reason.as_str(), format!("{count} lost, excused"))),
        );
        rows.push(("streams broken", self.streams_broken.to_string()));
        rows.push(("wrongly dropped", tally.wrongly_dropped.to_string()));
        rows.push(("wrongly allowed", tally.wrongly_allowed.to_string()));
        writeln!(f)?;
        for (name, value) in rows {
            writeln!(f, "{name:24}{value}")?;
        }
        for told in self.findings.0.iter().take(10) {
            writeln!(f, "  {}: {:?}", told.flow, told.finding.judgement)?;
        }
        write!(
            f,
            "{}",
            if self.is_clean() { "every packet is explained" } else { "FOUND what nothing explains" }
        )
    }
}
