//! TCP: numbered records to an echo and back.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use serde::{Deserialize, Serialize};

use super::{Shared, Stop, report_until, report_while_serving};
use crate::wait::monotonic_ns;

/// Echo server.
#[derive(Debug, Args)]
pub struct Echo {
    /// Port to listen on.
    #[arg(long)]
    port: u16,
    /// Address to listen on.
    #[arg(long, default_value_t = super::everywhere())]
    address: IpAddr,
}

/// What an echo server saw.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct EchoReport {
    /// Whether it listens.
    pub listening: bool,
    /// Connections accepted.
    pub connections: u64,
    /// Bytes received.
    pub received: u64,
}

/// A connection with numbered records.
#[derive(Debug, Args)]
pub struct Stream {
    /// The echo.
    #[arg(long)]
    to: SocketAddr,
    /// Time between records.
    #[arg(long, default_value_t = 2000)]
    interval_us: u64,
    /// Give up connecting after this time.
    #[arg(long, default_value_t = 3000)]
    timeout_ms: u64,
    /// Wait out a full buffer, which is what an outage of seconds leads to.
    #[arg(long)]
    patient: bool,
}

/// How a stream went.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct StreamReport {
    /// Whether the connection was made.
    pub connected: bool,
    /// Records sent.
    pub sent: u64,
    /// Records that came back, each once and in order.
    pub echoed: u64,
    /// When the last one came back, by the monotonic clock.
    pub last_ns: u64,
    /// The longest time without one.
    pub longest_gap_ns: u64,
    /// What ended the connection.
    pub error: Option<String>,
}

impl Echo {
    pub(super) fn run(&self) -> Result<()> {
        let listener = TcpListener::bind((self.address, self.port))?;
        let report = Shared::new(EchoReport { listening: true, ..EchoReport::default() });
        let stop = Stop::on_input_closed();
        let shared = report.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let report = shared.clone();
                report.update(|report| report.connections += 1);
                thread::spawn(move || echo(stream, &report));
            }
        });
        report_while_serving(&report, &stop)
    }
}

fn echo(mut stream: TcpStream, report: &Shared<EchoReport>) {
    let mut buffer = vec![0; 256 * 1024];
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        report.update(|report| report.received += u64::try_from(length).unwrap_or_default());
        let bytes = buffer.get(..length).unwrap_or_default();
        if stream.write_all(bytes).is_err() {
            break;
        }
    }
}

impl Stream {
    pub(super) fn run(&self) -> Result<()> {
        let report = Shared::new(StreamReport::default());
        let stop = Stop::on_input_closed();
        let (to, interval) = (self.to, Duration::from_micros(self.interval_us));
        let limit = Duration::from_millis(self.timeout_ms);
        let patient = self.patient;
        let (shared, until) = (report.clone(), stop.clone());
        let work = thread::spawn(move || {
            let outcome = stream(to, (limit, patient), interval, &shared, &until);
            if let Err(error) = outcome {
                shared.update(|report| report.error = Some(format!("{error:#}")));
            }
            // The report stays readable until the fixture has had enough.
            while !until.is_set() {
                thread::sleep(Duration::from_millis(5));
            }
            Ok(())
        });
        report_until(&report, &stop, work)
    }
}

fn stream(
    to: SocketAddr,
    (limit, patient): (Duration, bool),
    interval: Duration,
    report: &Shared<StreamReport>,
    stop: &Stop,
) -> Result<()> {
    let mut stream = TcpStream::connect_timeout(&to, limit)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_millis(20)))?;
    // A connection that was cut must not leave the writer in a full buffer for ever.
    stream.set_write_timeout(Some(Duration::from_millis(500)))?;
    report.update(|report| (report.connected, report.last_ns) = (true, monotonic_ns()));
    let (reader, shared, until) = (stream.try_clone()?, report.clone(), stop.clone());
    let reading = thread::spawn(move || read_echoes(reader, &shared, &until));
    let mut number = 0_u64;
    while !stop.is_set() && !reading.is_finished() {
        write(&mut stream, number.to_be_bytes(), patient, stop)?;
        number += 1;
        report.update(|report| report.sent = number);
        thread::sleep(interval);
    }
    reading.join().unwrap_or_else(|_| Err(anyhow::anyhow!("the reader panicked")))
}

/// Writes a whole record; a patient one goes on after a time without room for it.
fn write(stream: &mut TcpStream, record: [u8; 8], patient: bool, stop: &Stop) -> Result<()> {
    let mut left = record.as_slice();
    while !left.is_empty() {
        match stream.write(left) {
            Ok(written) => left = left.get(written..).unwrap_or_default(),
            Err(error) if patient && error.kind() == ErrorKind::WouldBlock && !stop.is_set() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Reads until `stop` is set and everything sent came back, or for a second after that.
fn read_echoes(mut stream: TcpStream, report: &Shared<StreamReport>, stop: &Stop) -> Result<()> {
    let (mut record, mut filled, mut expected) = ([0_u8; 8], 0, 0_u64);
    let mut stopped: Option<Instant> = None;
    loop {
        if stop.is_set() {
            let since = *stopped.get_or_insert_with(Instant::now);
            let done = report.update(|report| report.echoed == report.sent);
            if done || since.elapsed() > Duration::from_secs(1) {
                return Ok(());
            }
        }
        match stream.read(record.get_mut(filled..).unwrap_or_default()) {
            Ok(0) => anyhow::bail!("closed by the echo"),
            Ok(length) => filled += length,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
            Err(error) => return Err(error.into()),
        }
        if filled == record.len() {
            anyhow::ensure!(u64::from_be_bytes(record) == expected, "record {expected} came back altered");
            (filled, expected) = (0, expected + 1);
            let now = monotonic_ns();
            report.update(|report| {
                report.longest_gap_ns = report.longest_gap_ns.max(now.saturating_sub(report.last_ns));
                (report.last_ns, report.echoed) = (now, expected);
            });
        }
    }
}
