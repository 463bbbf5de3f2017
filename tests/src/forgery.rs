//! Forged packets for the tunnel of `db-1`, and what has to become of them: none is delivered, each is counted.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::agent::Agent;
use crate::host::Host;
use crate::json;
use crate::process::Process;
use crate::shop::{Shop, UDP};
use crate::traffic::udp::{SendReport, SinkReport};
use crate::wait::wait_for;

/// Packets of one forgery.
pub const COUNT: u64 = 50;

/// UDP port of the tunnel.
pub const TUNNEL: u16 = 8479;

const PATIENCE: Duration = Duration::from_secs(5);

/// One forgery: sent by `from` to the tunnel of `db-1`.
#[derive(Clone, Copy, Debug)]
pub struct Forgery<'a> {
    /// Who sends it.
    pub from: &'a Host,
    /// The VNI.
    pub vni: u64,
    /// The inner source.
    pub source: IpAddr,
    /// The inner destination.
    pub destination: IpAddr,
    /// The number of the flow in a datagram.
    pub flow: u32,
    /// What is inside: `udp`, `syn`, `ack`, `echo`.
    pub inner: &'a str,
    /// Further options of the tool.
    pub more: &'a str,
}

impl Forgery<'_> {
    /// Sends it [`COUNT`] times.
    pub fn send(&self, shop: &Shop) -> Result<()> {
        let tunnel = SocketAddr::new(shop.db.host.v4().into(), TUNNEL);
        let words = format!(
            "traffic vxlan --to {tunnel} --vni {} --source {} --destination {} --port {UDP} --flow {} --inner {} \
             --count {COUNT} {}",
            self.vni, self.source, self.destination, self.flow, self.inner, self.more
        );
        let report = self.from.run(&words.split_whitespace().collect::<Vec<_>>())?.json()?;
        let report: SendReport = serde_json::from_value(report)?;
        ensure!(report.sent == COUNT, "the forger sent {report:?}");
        Ok(())
    }
}

/// A sink for datagrams on `db-1`.
pub fn sink(shop: &Shop) -> Result<Process> {
    let sink = shop.db.host.traffic("sink", &format!("udp-sink --port {UDP}"))?;
    wait_for("the sink", PATIENCE, || sink.report::<SinkReport>().is_ok_and(|report| report.listening))?;
    Ok(sink)
}

/// Sends the forgery and expects its packets under `reason`, and none at the sink.
pub fn refused(shop: &Shop, forgery: &Forgery<'_>, reason: &str) -> Result<()> {
    let mut sink = sink(shop)?;
    let before = shop.db.counted(reason)?;
    forgery.send(shop)?;
    wait_for(reason, PATIENCE, || shop.db.counted(reason).is_ok_and(|now| now >= before + COUNT))
        .with_context(|| format!("{forgery:?}\n{:#}", shop.db.status().unwrap_or_default()))?;
    let received: SinkReport = sink.finish()?;
    ensure!(received.flows.is_empty() && received.foreign == 0, "delivered: {forgery:?} {received:?}");
    Ok(())
}

/// The addresses of one family: `db-1`, `batch-1`, `api`, `web`.
pub fn families(shop: &Shop) -> Result<[[IpAddr; 4]; 2]> {
    let ([db4, db6], [batch4, batch6]) = (shop.db.addresses()?, shop.batch.addresses()?);
    let ([api4, api6], [web4, web6]) = (shop.api.addresses(), shop.web.addresses());
    Ok([[db4, batch4, api4, web4], [db6, batch6, api6, web6]])
}

/// The identity of an address, as the agent of `db-1` knows it.
pub fn identity_of(shop: &Shop, address: IpAddr) -> Result<u64> {
    identity_at(&shop.db, address)
}

/// The identity of an address, as an agent knows it.
pub fn identity_at(agent: &Agent, address: IpAddr) -> Result<u64> {
    let answer = agent.command(&["endpoint", "list", "-o", "json"])?.json()?;
    let address = address.to_string();
    let entries = json::list(&answer, "endpoints").iter();
    let mut found = entries.filter(|entry| json::text(entry, "address") == address);
    let identity = found.next().map(|entry| json::number(entry, "identity"));
    identity.with_context(|| format!("no endpoint {address} in {answer:#}"))
}
