//! The world of most tests: a cluster with the pods `api` and `web`, the hosts `db-1` and `batch-1`, and a policy
//! by which only `api` may reach `db-1`.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::cluster::{Cluster, Member, allow_ingress};
use crate::host::Host;
use crate::net::Net;
use crate::node::Pod;
use crate::process::Process;
use crate::shared::World;
use crate::traffic::ping::PingReport;
use crate::traffic::tcp::{EchoReport, StreamReport};
use crate::traffic::udp::{Received, SendReport, SinkReport};
use crate::wait::wait_for;

/// UDP port of the sinks.
pub const UDP: u16 = 9000;

/// TCP port of the echos.
pub const TCP: u16 = 9001;

/// How long servers and first packets may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The world.
#[derive(Debug)]
pub struct Shop {
    /// May reach `db-1`, and has labels of its own.
    pub api: Pod,
    /// May not.
    pub web: Pod,
    /// The host the policy `shop/db-clients` selects.
    pub db: Member,
    /// A host that no policy selects.
    pub batch: Member,
    /// Gateway, transit node, network.
    pub cluster: Cluster,
}

impl World for Shop {
    fn make() -> Result<Self> {
        Self::with("")
    }

    fn net(&self) -> &Net {
        &self.cluster.net
    }
}

/// The world with certificates that live for seconds.
#[derive(Debug)]
pub struct Brief(pub Shop);

impl World for Brief {
    fn make() -> Result<Self> {
        Shop::with("certificateTtl: 6s\n").map(Self)
    }

    fn net(&self) -> &Net {
        &self.0.cluster.net
    }
}

impl Shop {
    /// The world with further lines of the gateway's configuration.
    pub fn with(settings: &str) -> Result<Self> {
        let cluster = Cluster::try_with(crate::net::Underlay::Dual, settings)?;
        let (api, web) = (cluster.pod("api", 2)?, cluster.pod("web", 3)?);
        cluster.group("db")?;
        cluster.group("batch")?;
        cluster.gateway.apply("db-clients.yaml", &db_clients(&["api"]))?;
        let (db, batch) = (cluster.member("db", "db-1")?, cluster.member("batch", "batch-1")?);
        cluster.settle()?;
        Ok(Self { api, web, db, batch, cluster })
    }

    /// Turns the machine of `db-1` off.
    pub fn power_off(&mut self) -> Result<()> {
        self.db.power_off()
    }
}

/// The policy `shop/db-clients`, which lets these apps reach the hosts of the group `db`.
#[must_use]
pub fn db_clients(apps: &[&str]) -> String {
    allow_ingress("db-clients", "db", apps, None)
}

/// Numbered traffic toward a machine: UDP flows that must lose nothing, TCP connections that must not pause for
/// ever, and flows that must deliver nothing. IPv4 and IPv6.
#[derive(Debug)]
pub struct Traffic {
    sink: Process,
    echo: Process,
    allowed: Vec<(u32, Process)>,
    denied: Vec<(u32, Process)>,
    streams: Vec<Process>,
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// Datagrams sent on allowed flows.
    pub sent: u64,
    /// The longest time without one at the receiver.
    pub longest_gap: Duration,
}

impl Traffic {
    /// Starts traffic to `addresses` of `to`, from a machine that may and one that may not, and waits until it
    /// flows.
    pub fn start(to: &Host, addresses: &[IpAddr], allowed: &Host, denied: &Host) -> Result<Self> {
        let sink = to.traffic("sink", &format!("udp-sink --port {UDP} --echo"))?;
        let echo = to.traffic("echo", &format!("tcp-echo --port {TCP}"))?;
        wait_for("servers", PATIENCE, || {
            sink.report::<SinkReport>().is_ok_and(|report| report.listening)
                && echo.report::<EchoReport>().is_ok_and(|report| report.listening)
        })?;
        let mut traffic = Self { sink, echo, allowed: Vec::new(), denied: Vec::new(), streams: Vec::new() };
        for (address, index) in addresses.iter().zip(1_u32..) {
            let (udp, tcp) = (SocketAddr::new(*address, UDP), SocketAddr::new(*address, TCP));
            let send = |flow| format!("udp-send --to {udp} --flow {flow} --rate 500");
            traffic.allowed.push((index, allowed.traffic(&format!("allowed-{index}"), &send(index))?));
            let forbidden = index + 100;
            traffic.denied.push((forbidden, denied.traffic(&format!("denied-{index}"), &send(forbidden))?));
            let stream = format!("tcp-stream --to {tcp} --interval-us 5000 --patient");
            traffic.streams.push(allowed.traffic(&format!("stream-{index}"), &stream)?);
        }
        traffic.wait_flowing(20)?;
        Ok(traffic)
    }

    /// Waits until this many more datagrams and records arrived on every allowed flow.
    pub fn wait_flowing(&self, more: u64) -> Result<()> {
        self.wait_flowing_within(more, PATIENCE)
    }

    /// The same with another patience.
    pub fn wait_flowing_within(&self, more: u64, patience: Duration) -> Result<()> {
        let counts = || -> Vec<u64> {
            let sunk = self.sink.report::<SinkReport>().unwrap_or_default();
            let datagrams = self.allowed.iter().map(|(flow, _)| sunk.flow(*flow).received);
            let records = self.streams.iter().map(|stream| {
                stream.report::<StreamReport>().map(|report| report.echoed).unwrap_or_default()
            });
            datagrams.chain(records).collect()
        };
        let before = counts();
        wait_for("allowed traffic to flow", patience, || {
            counts().iter().zip(&before).all(|(now, before)| *now >= before + more)
        })
        .with_context(|| format!("{:?}\n{}\n{}", counts(), self.sink.output(), self.echo.output()))
        .map(|_| ())
    }

    /// Ends it, and fails if an allowed packet or its echo was lost or a denied one delivered.
    pub fn finish(self) -> Result<Outcome> {
        self.end(true)
    }

    /// The same after an outage, in which datagrams may be lost; connections may not.
    pub fn finish_after_outage(self) -> Result<Outcome> {
        self.end(false)
    }

    fn end(mut self, is_whole: bool) -> Result<Outcome> {
        let mut outcome = Outcome { sent: 0, longest_gap: Duration::ZERO };
        let mut sent = Vec::new();
        for (flow, process) in &mut self.allowed {
            sent.push((*flow, process.finish::<SendReport>()?));
        }
        for (_, process) in &mut self.denied {
            let report: SendReport = process.finish()?;
            ensure!(report.sent > 0, "the denied flow sent nothing: {report:?}");
            ensure!(report.echoed == 0, "echoes of a denied flow: {report:?}");
        }
        for stream in &mut self.streams {
            let report: StreamReport = stream.finish()?;
            let whole = report.error.is_none() && report.sent == report.echoed && report.sent > 0;
            ensure!(whole, "a connection suffered: {report:?}");
        }
        let sunk: SinkReport = self.sink.finish()?;
        for (flow, report) in sent {
            let received = sunk.flow(flow);
            if is_whole {
                no_loss(flow, &report, &received)?;
            }
            ensure!(received.duplicates == 0 && received.damaged == 0, "flow {flow}: {received:?}");
            outcome.sent += report.sent;
            outcome.longest_gap = outcome.longest_gap.max(Duration::from_nanos(received.longest_gap_ns));
        }
        for (flow, _) in &self.denied {
            let received = sunk.flow(*flow);
            ensure!(
                received.received == 0,
                "{} datagrams of a denied flow were delivered",
                received.received
            );
        }
        Ok(outcome)
    }
}

fn no_loss(flow: u32, sent: &SendReport, received: &Received) -> Result<()> {
    let whole = received.received == sent.sent && sent.errors.is_empty();
    ensure!(whole, "flow {flow} lost datagrams: {sent:?}, {received:?}");
    ensure!(sent.echoed == sent.sent, "flow {flow} lost echoes: {sent:?}");
    Ok(())
}

/// Whether `from` gets echo replies from `to`.
pub fn pings(from: &Host, to: IpAddr, size: usize) -> Result<bool> {
    let (to, size) = (to.to_string(), size.to_string());
    let answer = from.run(&["traffic", "ping", &to, "--size", &size, "--count", "2"])?.json()?;
    let report: PingReport = serde_json::from_value(answer)?;
    Ok(report.received == report.sent && report.sent > 0)
}
