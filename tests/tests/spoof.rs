//! Packets that are not what they claim to be: none is delivered, each is counted under its reason.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, ensure};
use e2e::host::Host;
use e2e::process::Process;
use e2e::shared::Shared;
use e2e::shop::{Shop, UDP};
use e2e::traffic::udp::{SendReport, SinkReport};
use e2e::wait::wait_for;
use std::time::Duration;

static SHOP: Shared<Shop> = Shared::new();

const PATIENCE: Duration = Duration::from_secs(5);

/// One forgery: sent by `from` to the tunnel of `db-1`.
struct Forgery<'a> {
    from: &'a Host,
    vni: u64,
    source: IpAddr,
    destination: IpAddr,
    flow: u32,
    inner: &'a str,
}

impl Forgery<'_> {
    fn send(&self, shop: &Shop) -> Result<()> {
        let tunnel = SocketAddr::new(shop.db.host.v4().into(), 8479);
        let words = format!(
            "traffic vxlan --to {tunnel} --vni {} --source {} --destination {} --port {UDP} --flow {} --inner {} --count 50",
            self.vni, self.source, self.destination, self.flow, self.inner
        );
        let report = self.from.run(&words.split(' ').collect::<Vec<_>>())?.json()?;
        let report: SendReport = serde_json::from_value(report)?;
        ensure!(report.sent == 50, "the forger sent {report:?}");
        Ok(())
    }
}

fn sink(shop: &Shop) -> Result<Process> {
    let sink = shop.db.host.traffic("sink", &format!("udp-sink --port {UDP}"))?;
    wait_for("the sink", PATIENCE, || sink.report::<SinkReport>().is_ok_and(|report| report.listening))?;
    Ok(sink)
}

/// Sends the forgery and expects 50 packets more under `reason`, and none at the sink.
fn refused(shop: &Shop, forgery: &Forgery<'_>, reason: &str) -> Result<()> {
    let mut sink = sink(shop)?;
    let before = shop.db.counted(reason)?;
    forgery.send(shop)?;
    wait_for(reason, PATIENCE, || shop.db.counted(reason).is_ok_and(|now| now >= before + 50))
        .with_context(|| format!("{:?}", shop.db.status()))?;
    let received: SinkReport = sink.finish()?;
    ensure!(received.flows.is_empty() && received.foreign == 0, "delivered: {received:?}");
    Ok(())
}

/// The addresses of one family: `db-1`, `batch-1`, `api`, `web`.
fn families(shop: &Shop) -> Result<[[IpAddr; 4]; 2]> {
    let ([db4, db6], [batch4, batch6]) = (shop.db.addresses()?, shop.batch.addresses()?);
    let ([api4, api6], [web4, web6]) = (shop.api.addresses(), shop.web.addresses());
    Ok([[db4, batch4, api4, web4], [db6, batch6, api6, web6]])
}

/// The identity of the pod `api`, as the agent of `db-1` knows it.
fn api_identity(shop: &Shop) -> Result<u64> {
    let answer = shop.db.command(&["endpoint", "list", "-o", "json"])?.json()?;
    let address = shop.api.v4().to_string();
    let entries = e2e::json::list(&answer, "endpoints").iter();
    let mut found = entries.filter(|entry| e2e::json::text(entry, "address") == address);
    found.next().map(|entry| e2e::json::number(entry, "identity")).context("no endpoint of the pod api")
}

#[test]
fn what_the_transit_node_may_send_is_delivered() {
    SHOP.test(|shop| {
        let mut sink = sink(shop)?;
        let vni = api_identity(shop)?;
        for [db, _, api, _] in families(shop)? {
            let flow = if db.is_ipv4() { 4 } else { 6 };
            let from = shop.cluster.node.host();
            Forgery { from, vni, source: api, destination: db, flow, inner: "udp" }.send(shop)?;
        }
        let received: SinkReport = sink.finish()?;
        let counts = (received.flow(4).received, received.flow(6).received);
        ensure!(counts == (50, 50), "the tool forges badly, so its other uses prove nothing: {received:?}");
        Ok(())
    });
}

#[test]
fn an_unknown_sender_is_refused() {
    SHOP.test(|shop| {
        let attacker = shop.cluster.net.host("attacker")?;
        let vni = api_identity(shop)?;
        for [db, _, api, _] in families(shop)? {
            for inner in ["udp", "syn", "ack", "echo"] {
                let forgery = Forgery { from: &attacker, vni, source: api, destination: db, flow: 7, inner };
                refused(shop, &forgery, "spoofed")?;
            }
        }
        Ok(())
    });
}

#[test]
fn a_source_that_nobody_has_is_refused() {
    SHOP.test(|shop| {
        let vni = api_identity(shop)?;
        for ([db, ..], source) in families(shop)?.into_iter().zip(["10.100.1.99", "fd00:100:1::99"]) {
            let from = shop.cluster.node.host();
            let forgery =
                Forgery { from, vni, source: source.parse()?, destination: db, flow: 7, inner: "udp" };
            refused(shop, &forgery, "unknown_source")?;
        }
        Ok(())
    });
}

#[test]
fn a_known_sender_with_a_foreign_identity_is_refused() {
    SHOP.test(|shop| {
        let vni = api_identity(shop)?;
        for [db, _, _, web] in families(shop)? {
            let from = shop.cluster.node.host();
            let forgery = Forgery { from, vni, source: web, destination: db, flow: 7, inner: "udp" };
            refused(shop, &forgery, "spoofed")?;
        }
        Ok(())
    });
}

#[test]
fn one_host_in_the_name_of_another_is_refused() {
    SHOP.test(|shop| {
        let vni = api_identity(shop)?;
        for [db, batch, api, _] in families(shop)? {
            for source in [batch, api] {
                let from = &shop.batch.host;
                let forgery = Forgery { from, vni, source, destination: db, flow: 7, inner: "udp" };
                refused(shop, &forgery, "spoofed")?;
            }
        }
        Ok(())
    });
}

#[test]
fn a_segment_of_no_connection_is_refused() {
    SHOP.test(|shop| {
        let vni = api_identity(shop)?;
        for [db, _, api, _] in families(shop)? {
            let from = shop.cluster.node.host();
            let forgery = Forgery { from, vni, source: api, destination: db, flow: 7, inner: "ack" };
            refused(shop, &forgery, "no_flow")?;
        }
        Ok(())
    });
}

#[test]
fn a_tunnel_packet_for_somebody_else_is_refused() {
    SHOP.test(|shop| {
        let vni = api_identity(shop)?;
        for [_, batch, api, _] in families(shop)? {
            let from = shop.cluster.node.host();
            let forgery = Forgery { from, vni, source: api, destination: batch, flow: 7, inner: "udp" };
            refused(shop, &forgery, "not_for_us")?;
        }
        Ok(())
    });
}
