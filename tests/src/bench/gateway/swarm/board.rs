//! What the agents report together.

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::wait::monotonic_ns;

/// What the gateway calls its count of acknowledgements.
const COUNTER: &str = "outrigger_gateway_updates_acknowledged_total ";
/// How long to wait for acknowledgements that are on their way.
const AGAIN: Duration = Duration::from_millis(1);

/// A line of the program's output. Times are those of the monotonic clock, in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Agents that joined.
    pub joined: u32,
    /// Sessions that were opened.
    pub sessions: u64,
    /// Agents that have what their session was answered with.
    pub connected: u32,
    /// The newest generation that was acknowledged.
    pub generation: u64,
    /// Agents that have it.
    pub acked: u32,
    /// When the last of them had it.
    pub acked_ns: u64,
    /// The newest generation whose acknowledgements the gateway has counted, all of them.
    pub confirmed: u64,
    /// When that was seen.
    pub confirmed_ns: u64,
    /// Bytes of messages that agents received.
    pub bytes: u64,
    /// Why an agent lost its session last.
    pub lost: String,
}

/// Where agents note what became of them.
#[derive(Debug)]
pub(super) struct Board {
    agents: u32,
    report: Mutex<Report>,
    complete: Notify,
}

impl Board {
    pub(super) fn new(agents: u32) -> Self {
        Self { agents, report: Mutex::default(), complete: Notify::new() }
    }

    pub(super) fn note<T>(&self, change: impl FnOnce(&mut Report) -> T) -> T {
        change(&mut self.report.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// An agent has a generation; `before` is what it had in this session.
    pub(super) fn has(&self, generation: u64, before: Option<u64>) {
        let complete = self.note(|report| {
            report.connected += u32::from(before.is_none());
            if generation > report.generation {
                (report.generation, report.acked) = (generation, 0);
            }
            if generation == report.generation && before != Some(generation) {
                report.acked += 1;
                report.acked_ns = monotonic_ns();
            }
            report.acked == self.agents
        });
        if complete {
            self.complete.notify_one();
        }
    }

    /// An agent that had a generation lost its session.
    pub(super) fn lost(&self, before: Option<u64>, reason: String) {
        self.note(|report| {
            report.connected -= u32::from(before.is_some());
            report.acked -= u32::from(before == Some(report.generation));
            report.lost = reason;
        });
    }
}

/// Prints the report whenever it became another one.
pub(super) async fn print(board: Arc<Board>, period: Duration) {
    let mut due = tokio::time::interval(period);
    let mut last = Report::default();
    loop {
        due.tick().await;
        let report = board.note(|report| report.clone());
        if report != last
            && let Ok(line) = serde_json::to_string(&report)
        {
            let mut out = std::io::stdout().lock();
            let _closed = writeln!(out, "{line}").and_then(|()| out.flush());
            last = report;
        }
    }
}

/// Asks the gateway whether it has counted the acknowledgements, whenever all agents have sent theirs.
pub(super) async fn confirm(board: Arc<Board>, metrics: SocketAddr) {
    let mut counted = 0;
    loop {
        board.complete.notified().await;
        let generation = board.note(|report| report.generation);
        // Another gateway counts from zero, and the first state is counted once.
        loop {
            match scrape(metrics).await {
                Ok(now) if now < counted => counted = 0,
                Ok(now) if now >= counted + u64::from(board.agents) => {
                    counted = now;
                    break;
                }
                Ok(_) | Err(_) => tokio::time::sleep(AGAIN).await,
            }
            if board.note(|report| report.generation) != generation {
                break;
            }
        }
        board.note(|report| (report.confirmed, report.confirmed_ns) = (generation, monotonic_ns()));
    }
}

async fn scrape(metrics: SocketAddr) -> Result<u64> {
    let mut stream = TcpStream::connect(metrics).await?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n\r\n").await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    let line = text.lines().find_map(|line| line.strip_prefix(COUNTER)).context("no count")?;
    Ok(line.trim().parse()?)
}
