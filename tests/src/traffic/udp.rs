//! UDP: numbered datagrams of numbered flows, and who got which.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use serde::{Deserialize, Serialize};

use super::{Shared, Stop, report_until};
use crate::wait::monotonic_ns;

/// First bytes of every datagram.
const MAGIC: [u8; 8] = *b"ogr-seq1";

/// Bytes of a datagram that mean something; the rest is padding.
pub const SMALLEST: usize = 24;

/// Receiver.
#[derive(Debug, Args)]
pub struct Sink {
    /// Port to listen on.
    #[arg(long)]
    port: u16,
    /// Address to listen on.
    #[arg(long, default_value_t = super::everywhere())]
    address: IpAddr,
    /// Send every datagram back.
    #[arg(long)]
    echo: bool,
}

/// What a receiver saw.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SinkReport {
    /// Whether it listens.
    pub listening: bool,
    /// By flow number.
    pub flows: BTreeMap<u32, Received>,
    /// Datagrams that no sender of this package made.
    pub foreign: u64,
}

impl SinkReport {
    /// What arrived of one flow.
    #[must_use]
    pub fn flow(&self, number: u32) -> Received {
        self.flows.get(&number).cloned().unwrap_or_default()
    }
}

/// What arrived of one flow.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Received {
    /// Datagrams, duplicates not counted.
    pub received: u64,
    /// The next number after the highest seen.
    pub next: u64,
    /// Datagrams that came twice.
    pub duplicates: u64,
    /// Datagrams of another length than they say.
    pub damaged: u64,
    /// The longest time between two of them.
    pub longest_gap_ns: u64,
    /// When the last one came.
    pub last_ns: u64,
    /// Where it came from.
    pub source: Option<SocketAddr>,
}

/// Sender.
#[derive(Debug, Args)]
pub struct Send {
    /// The receiver.
    #[arg(long)]
    to: SocketAddr,
    /// The number of the flow.
    #[arg(long, default_value_t = 1)]
    flow: u32,
    /// Datagrams a second.
    #[arg(long, default_value_t = 500)]
    rate: u32,
    /// Bytes of a datagram.
    #[arg(long, default_value_t = 64)]
    size: usize,
    /// End after so many.
    #[arg(long)]
    count: Option<u64>,
    /// Send from this address.
    #[arg(long)]
    source: Option<IpAddr>,
    /// Send from this port.
    #[arg(long, default_value_t = 0)]
    port: u16,
}

/// What a sender did.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SendReport {
    /// Datagrams the kernel took.
    pub sent: u64,
    /// Datagrams that came back from an echo.
    pub echoed: u64,
    /// Errors of the kernel and how often.
    pub errors: BTreeMap<String, u64>,
}

/// A datagram of a flow.
#[must_use]
pub fn datagram(flow: u32, number: u64, size: usize) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(flow.to_be_bytes());
    bytes.extend(u32::try_from(size).unwrap_or_default().to_be_bytes());
    bytes.extend(number.to_be_bytes());
    bytes.resize(size.max(SMALLEST), 0xa5);
    bytes
}

/// Flow, number and size of a datagram; `None` for one of somebody else's.
fn parse(bytes: &[u8]) -> Option<(u32, u64, usize)> {
    let rest = bytes.strip_prefix(&MAGIC)?;
    let (flow, rest) = rest.split_first_chunk()?;
    let (size, rest) = rest.split_first_chunk()?;
    let (number, _) = rest.split_first_chunk()?;
    let size = usize::try_from(u32::from_be_bytes(*size)).ok()?;
    Some((u32::from_be_bytes(*flow), u64::from_be_bytes(*number), size))
}

impl Sink {
    pub(super) fn run(&self) -> Result<()> {
        let socket = UdpSocket::bind((self.address, self.port))?;
        socket2::SockRef::from(&socket).set_recv_buffer_size(4 << 20)?;
        socket.set_read_timeout(Some(Duration::from_millis(20)))?;
        let report = Shared::new(SinkReport { listening: true, ..SinkReport::default() });
        let stop = Stop::on_input_closed();
        let (shared, until, echo) = (report.clone(), stop.clone(), self.echo);
        let work = thread::spawn(move || sink(&socket, echo, &shared, &until));
        report_until(&report, &stop, work)
    }
}

/// Receives until `stop` is set and nothing more comes.
fn sink(socket: &UdpSocket, echo: bool, report: &Shared<SinkReport>, stop: &Stop) -> Result<()> {
    let mut buffer = vec![0; 1 << 16];
    let mut seen: BTreeMap<u32, Vec<bool>> = BTreeMap::new();
    loop {
        let (length, source) = match socket.recv_from(&mut buffer) {
            Ok(received) => received,
            Err(_) if stop.is_set() => return Ok(()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
            // An ICMP error about an echo.
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => continue,
            Err(error) => return Err(error.into()),
        };
        let bytes = buffer.get(..length).unwrap_or_default();
        let Some((flow, number, size)) = parse(bytes) else {
            report.update(|report| report.foreign += 1);
            continue;
        };
        let marks = seen.entry(flow).or_default();
        let index = usize::try_from(number)?;
        if marks.len() <= index {
            marks.resize(index + 1, false);
        }
        let first = marks.get_mut(index).is_some_and(|mark| !std::mem::replace(mark, true));
        report.update(|report| {
            let entry = report.flows.entry(flow).or_default();
            entry.note(first, number, length == size.max(SMALLEST), source);
        });
        if echo {
            // A refused echo shows at the sender.
            let _ = socket.send_to(bytes, source);
        }
    }
}

impl Received {
    fn note(&mut self, first: bool, number: u64, whole: bool, source: SocketAddr) {
        let now = monotonic_ns();
        if self.received > 0 {
            self.longest_gap_ns = self.longest_gap_ns.max(now.saturating_sub(self.last_ns));
        }
        self.last_ns = now;
        self.source = Some(source);
        self.next = self.next.max(number + 1);
        self.received += u64::from(first);
        self.duplicates += u64::from(!first);
        self.damaged += u64::from(!whole);
    }
}

impl Send {
    pub(super) fn run(&self) -> Result<()> {
        let any: IpAddr = match self.to {
            SocketAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((self.source.unwrap_or(any), self.port)).context("cannot bind")?;
        let report = Shared::new(SendReport::default());
        let stop = Stop::on_input_closed();
        let echoes = socket.try_clone()?;
        echoes.set_read_timeout(Some(Duration::from_millis(20)))?;
        let counted = report.clone();
        // Ends with the process: echoes come until the last report.
        thread::spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            loop {
                if matches!(echoes.recv_from(&mut buffer), Ok((length, _)) if length >= SMALLEST) {
                    counted.update(|report| report.echoed += 1);
                }
            }
        });
        let (shared, until) = (report.clone(), stop.clone());
        let (to, flow, size) = (self.to, self.flow, self.size);
        let (interval, count) = (Duration::from_secs(1) / self.rate.max(1), self.count);
        let work = thread::spawn(move || {
            let started = Instant::now();
            let mut number = 0;
            while !until.is_set() && count.is_none_or(|count| number < count) {
                let due = interval * u32::try_from(number)?;
                thread::sleep(due.saturating_sub(started.elapsed()));
                let outcome = socket.send_to(&datagram(flow, number, size), to);
                number += 1;
                shared.update(|report| match outcome {
                    Ok(_) => report.sent += 1,
                    Err(error) => *report.errors.entry(error.to_string()).or_default() += 1,
                });
            }
            // The last echoes are still under way.
            thread::sleep(Duration::from_millis(100));
            Ok(())
        });
        report_until(&report, &stop, work)
    }
}
