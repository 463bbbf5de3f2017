//! Load: the servers of the benchmarks in one process, and what asks them as often as possible for a time.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::{Shared, Stop, report_while_serving};

/// TCP port that receives.
pub const SINK: u16 = 9002;
/// TCP port that answers every request of a connection.
pub const ECHO: u16 = 9003;
/// TCP port that answers one request and closes.
pub const ONCE: u16 = 9004;
/// UDP port that counts.
pub const COUNT: u16 = 9005;
/// UDP port that counts, where nothing should arrive.
pub const CLOSED: u16 = 9006;

/// Bytes of a request, a response and a datagram.
const MESSAGE: usize = 64;

/// A congestion control that does not pace, which every kernel has: with the default of some machines, bulk is as fast as
/// their timers happen to fire.
const UNPACED: &[u8] = b"reno";

/// How long to wait for a server.
const PATIENCE: Duration = Duration::from_secs(3);

/// The servers.
#[derive(Debug, Args)]
pub struct Serve {
    /// Address to listen on.
    #[arg(long, default_value_t = super::everywhere())]
    address: IpAddr,
}

/// What the servers saw.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ServeReport {
    /// Whether they listen.
    pub listening: bool,
    /// Datagrams at [`COUNT`].
    pub datagrams: u64,
    /// Datagrams at [`CLOSED`].
    pub closed: u64,
}

/// What to ask, and for how long.
#[derive(Debug, Args)]
pub struct Load {
    /// The server.
    #[arg(long)]
    to: SocketAddr,
    /// For how long.
    #[arg(long, default_value_t = 1000)]
    ms: u64,
}

/// How it went.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct LoadReport {
    /// Bytes, round trips, connections or datagrams.
    pub done: u64,
    /// In this time.
    pub ns: u64,
}

impl Serve {
    pub(super) fn run(&self) -> Result<()> {
        // Receivers and senders do not push each other from a CPU.
        run_on(1)?;
        let listener = |port| TcpListener::bind((self.address, port)).with_context(|| format!("port {port}"));
        let socket = |port| UdpSocket::bind((self.address, port)).with_context(|| format!("port {port}"));
        let (sink, echo, once) = (listener(SINK)?, listener(ECHO)?, listener(ONCE)?);
        let (count, closed) = (socket(COUNT)?, socket(CLOSED)?);
        let report = Shared::new(ServeReport { listening: true, ..ServeReport::default() });
        let stop = Stop::on_input_closed();
        serve_each(sink, drain);
        serve_each(echo, answer_all);
        thread::spawn(move || {
            for stream in once.incoming().flatten() {
                // A client that goes away in the middle is its own affair.
                let _ = answer_once(stream);
            }
        });
        let shared = report.clone();
        thread::spawn(move || receive(&count, || shared.update(|report| report.datagrams += 1)));
        let shared = report.clone();
        thread::spawn(move || receive(&closed, || shared.update(|report| report.closed += 1)));
        report_while_serving(&report, &stop)
    }
}

/// Runs this process on one CPU, if there are more.
fn run_on(number: usize) -> Result<()> {
    if thread::available_parallelism()?.get() < 2 {
        return Ok(());
    }
    let mut cpus = CpuSet::new();
    cpus.set(number)?;
    sched_setaffinity(Pid::from_raw(0), &cpus).context("cannot choose a CPU")
}

/// A thread for each connection.
fn serve_each(listener: TcpListener, serve: fn(TcpStream) -> Result<()>) {
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A client that goes away in the middle is its own affair.
            thread::spawn(move || drop(serve(stream)));
        }
    });
}

fn drain(mut stream: TcpStream) -> Result<()> {
    let mut buffer = vec![0; 256 * 1024];
    while stream.read(&mut buffer)? > 0 {}
    Ok(())
}

fn answer_all(mut stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut message = [0; MESSAGE];
    loop {
        stream.read_exact(&mut message)?;
        stream.write_all(&message)?;
    }
}

/// The server closes first, so that the client's ports are free again at once.
fn answer_once(mut stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut message = [0; MESSAGE];
    stream.read_exact(&mut message)?;
    stream.write_all(&message)?;
    Ok(())
}

fn receive(socket: &UdpSocket, count: impl Fn()) {
    // More than a moment without the CPU.
    let _ = socket2::SockRef::from(socket).set_recv_buffer_size(4 << 20);
    let mut buffer = [0; 2048];
    loop {
        if socket.recv(&mut buffer).is_ok() {
            count();
        }
    }
}

impl Load {
    /// Sends bytes over one connection.
    pub(super) fn blast(&self) -> Result<()> {
        let mut stream = self.connect()?;
        socket2::SockRef::from(&stream).set_tcp_congestion(UNPACED)?;
        let buffer = vec![0x5a; 256 * 1024];
        self.report(|| Ok(u64::try_from(stream.write(&buffer)?)?))
    }

    /// Asks over one connection.
    pub(super) fn requests(&self) -> Result<()> {
        let mut stream = self.connect()?;
        self.report(|| ask(&mut stream).map(|()| 1))
    }

    /// Asks once over each connection.
    pub(super) fn connections(&self) -> Result<()> {
        self.report(|| {
            let mut stream = self.connect()?;
            ask(&mut stream)?;
            let mut rest = [0; 1];
            anyhow::ensure!(stream.read(&mut rest)? == 0, "more than was asked for");
            Ok(1)
        })
    }

    /// Sends datagrams.
    pub(super) fn datagrams(&self) -> Result<()> {
        let any: IpAddr = match self.to {
            SocketAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect(self.to)?;
        let message = [0x5a; MESSAGE];
        // An answer that the port is closed is not this one's business; a full queue drops.
        self.report(|| Ok(u64::from(socket.send(&message).is_ok())))
    }

    fn connect(&self) -> Result<TcpStream> {
        let stream = TcpStream::connect_timeout(&self.to, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    /// Works for the time that was asked for and prints how much was done.
    fn report(&self, mut work: impl FnMut() -> Result<u64>) -> Result<()> {
        run_on(0)?;
        let limit = Duration::from_millis(self.ms);
        let mut report = LoadReport::default();
        let started = Instant::now();
        while started.elapsed() < limit {
            report.done += work()?;
        }
        report.ns = u64::try_from(started.elapsed().as_nanos())?;
        println!("{}", serde_json::to_string(&report)?);
        Ok(())
    }
}

fn ask(stream: &mut TcpStream) -> Result<()> {
    let mut message = [0x5a; MESSAGE];
    stream.write_all(&message)?;
    stream.read_exact(&mut message)?;
    Ok(())
}
