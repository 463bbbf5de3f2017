//! The traffic tools: what the program `traffic` does, and the reports it gives to the fixtures. A tool that stays
//! writes a report of one line of JSON every few milliseconds and ends when its standard input is closed.

pub mod bare;
pub mod hold;
pub mod http;
pub mod inject;
pub mod knock;
pub mod load;
pub mod ping;
pub mod proxy;
pub mod sniff;
pub mod storm;
pub mod tcp;
pub mod udp;

use std::io::{Read, Write};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};
use etherparse::{Ethernet2Header, IpHeaders, PacketBuilderStep};
use serde::Serialize;

/// How often a tool reports.
const REPORT: Duration = Duration::from_millis(20);

/// Sends, receives, watches and forges packets for the tests.
#[derive(Debug, Parser)]
#[command(name = "traffic")]
pub struct Arguments {
    #[command(subcommand)]
    tool: Tool,
}

#[derive(Debug, Subcommand)]
enum Tool {
    /// Answer HTTP requests: `/` with a line that names the server and the client, `/bytes/N` with N bytes.
    ServeHttp(http::Serve),
    /// Make one HTTP request and print the body.
    Get(http::Get),
    /// Send every byte back.
    TcpEcho(tcp::Echo),
    /// Send numbered records over one connection to an echo and report what came back.
    TcpStream(tcp::Stream),
    /// Serve what the loads below ask for.
    LoadServe(load::Serve),
    /// Send bytes as fast as possible for a time and report how many.
    TcpBlast(load::Load),
    /// Ask and wait for the answer, over and over on one connection, and report how often.
    TcpRr(load::Load),
    /// The same with a connection for each request.
    TcpCrr(load::Load),
    /// Send datagrams of 64 bytes as fast as possible and report how many.
    UdpFlood(load::Load),
    /// Try to connect again and again, and wait for no answer.
    Knock(knock::Knock),
    /// Open connections and keep them.
    Hold(hold::Hold),
    /// Receive numbered datagrams and report gaps.
    UdpSink(udp::Sink),
    /// Send numbered datagrams.
    UdpSend(udp::Send),
    /// Send echo requests and report the replies.
    Ping(ping::Ping),
    /// Watch packets on a device.
    Sniff(sniff::Sniff),
    /// Send crafted frames.
    Bare(bare::Bare),
    /// Connect clients to where they ask, as an HTTP proxy does.
    ConnectProxy(proxy::Proxy),
    /// Send random forged VXLAN packets as fast as possible.
    Storm(storm::Storm),
    /// Send crafted VXLAN packets.
    Vxlan(inject::Vxlan),
}

/// Runs the tool that the arguments name.
pub fn run(arguments: &Arguments) -> Result<()> {
    match &arguments.tool {
        Tool::ServeHttp(tool) => tool.run(),
        Tool::Get(tool) => tool.run(),
        Tool::TcpEcho(tool) => tool.run(),
        Tool::TcpStream(tool) => tool.run(),
        Tool::LoadServe(tool) => tool.run(),
        Tool::TcpBlast(tool) => tool.blast(),
        Tool::TcpRr(tool) => tool.requests(),
        Tool::TcpCrr(tool) => tool.connections(),
        Tool::UdpFlood(tool) => tool.datagrams(),
        Tool::Knock(tool) => tool.run(),
        Tool::Hold(tool) => tool.run(),
        Tool::UdpSink(tool) => tool.run(),
        Tool::UdpSend(tool) => tool.run(),
        Tool::Ping(tool) => tool.run(),
        Tool::Sniff(tool) => tool.run(),
        Tool::Bare(tool) => tool.run(),
        Tool::ConnectProxy(tool) => tool.run(),
        Tool::Storm(tool) => tool.run(),
        Tool::Vxlan(tool) => tool.run(),
    }
}

/// A report that workers change and the main thread prints.
#[derive(Debug)]
pub(crate) struct Shared<T>(Arc<Mutex<T>>);

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: Serialize> Shared<T> {
    pub(crate) fn new(report: T) -> Self {
        Self(Arc::new(Mutex::new(report)))
    }

    /// Changes the report.
    pub(crate) fn update<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Prints the report as one line, if it is another than `last`.
    fn print(&self, last: &mut String) -> Result<()> {
        let line = self.update(|report| serde_json::to_string(report))?;
        if line != *last {
            let mut out = std::io::stdout().lock();
            writeln!(out, "{line}")?;
            out.flush()?;
            *last = line;
        }
        Ok(())
    }
}

/// Set when standard input is closed.
#[derive(Clone, Debug)]
pub(crate) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Watches standard input.
    pub(crate) fn on_input_closed() -> Self {
        let stop = Self(Arc::new(AtomicBool::new(false)));
        let set = stop.clone();
        thread::spawn(move || {
            let mut sink = [0; 64];
            while matches!(std::io::stdin().read(&mut sink), Ok(read) if read > 0) {}
            set.0.store(true, Ordering::Relaxed);
        });
        stop
    }

    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Reports until `stop` is set and `work` has ended, then once more.
pub(crate) fn report_until<T: Serialize>(
    report: &Shared<T>,
    stop: &Stop,
    work: thread::JoinHandle<Result<()>>,
) -> Result<()> {
    let mut last = String::new();
    loop {
        report.print(&mut last)?;
        if work.is_finished() {
            break;
        }
        thread::sleep(REPORT);
    }
    stop.set();
    let outcome = work.join().unwrap_or_else(|_| Err(anyhow::anyhow!("the tool's worker panicked")));
    report.print(&mut last)?;
    outcome
}

/// A packet from one address to another of its family.
pub(crate) fn between(
    ethernet: PacketBuilderStep<Ethernet2Header>,
    source: IpAddr,
    destination: IpAddr,
) -> Result<PacketBuilderStep<IpHeaders>> {
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            Ok(ethernet.ipv4(source.octets(), destination.octets(), 64))
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            Ok(ethernet.ipv6(source.octets(), destination.octets(), 64))
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
            bail!("{source} and {destination} are of different families")
        }
    }
}

/// Reports until `stop` is set: of servers, whose threads end with the process.
pub(crate) fn report_while_serving<T: Serialize>(report: &Shared<T>, stop: &Stop) -> Result<()> {
    let mut last = String::new();
    while !stop.is_set() {
        report.print(&mut last)?;
        thread::sleep(REPORT);
    }
    report.print(&mut last)
}

/// The address a server listens on by default: every one of both families.
pub(crate) fn everywhere() -> IpAddr {
    std::net::Ipv6Addr::UNSPECIFIED.into()
}
