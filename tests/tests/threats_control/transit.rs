//! A transit node forwards to what is behind it, for those who have an address in the mesh; it is no way to anything else.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::json;
use e2e::process::Process;
use e2e::shared::Shared;
use e2e::shop::{Shop, UDP};
use e2e::traffic::udp::SinkReport;
use e2e::wait::wait_for;

static SHOP: Shared<Shop> = Shared::new();

const PATIENCE: Duration = Duration::from_secs(10);

/// Sends 50 datagrams through the tunnel to the transit node, as `batch-1` may, for any destination.
fn tunnel(shop: &Shop, destination: IpAddr, vni: u64, flow: u32) -> Result<()> {
    let [v4, v6] = shop.batch.addresses()?;
    let source = if destination.is_ipv4() { v4 } else { v6 };
    let node = SocketAddr::new(shop.cluster.node.host().v4().into(), 8479);
    let words = format!(
        "traffic vxlan --to {node} --vni {vni} --source {source} --destination {destination} --port {UDP} --flow {flow} --count 50"
    );
    let sent = shop.batch.host.run(&words.split(' ').collect::<Vec<_>>())?.json()?;
    ensure!(json::number(&sent, "sent") == 50, "{sent}");
    Ok(())
}

fn dropped(shop: &Shop) -> Result<u64> {
    Ok(shop.cluster.transit.counted("not_for_us")? + shop.cluster.transit.counted("multicast")?)
}

fn sink(on: &e2e::host::Host) -> Result<Process> {
    let sink = on.traffic("sink", &format!("udp-sink --port {UDP}"))?;
    wait_for("the sink", PATIENCE, || sink.report::<SinkReport>().is_ok_and(|report| report.listening))?;
    Ok(sink)
}

#[test]
fn threat_55_a_transit_node_forwards_to_what_is_behind_it_and_nowhere_else() {
    SHOP.test(|shop| {
        let vni = shop.batch.identity()?;
        let node = shop.cluster.node.host();
        let outside = shop.cluster.net.host("outside")?;
        let mut sinks = [sink(node)?, sink(&outside)?, sink(&shop.db.host)?];
        let pod = sink(&shop.api)?;
        for (to, flow) in shop.api.addresses().into_iter().zip([4, 6]) {
            tunnel(shop, to, vni, flow)?;
            wait_for("what may pass", PATIENCE, || {
                pod.report::<SinkReport>().is_ok_and(|report| report.flow(flow).received == 50)
            })?;
        }
        let elsewhere: [IpAddr; 10] = [
            node.v4().into(),
            node.v6().into(),
            outside.v4().into(),
            outside.v6().into(),
            shop.db.host.v4().into(),
            "10.100.1.99".parse()?,
            "127.0.0.1".parse()?,
            "::1".parse()?,
            "224.0.0.1".parse()?,
            "ff02::1".parse()?,
        ];
        for to in elsewhere {
            let before = dropped(shop)?;
            tunnel(shop, to, vni, 55)?;
            wait_for("the drops", PATIENCE, || dropped(shop).is_ok_and(|now| now >= before + 50))
                .with_context(|| format!("to {to}"))?;
        }
        // Between hosts it relays only where both cannot meet, and the receiver knows whether they can.
        for to in shop.db.addresses()? {
            let before = shop.db.counted("spoofed")?;
            tunnel(shop, to, vni, 55)?;
            wait_for("the receiver's drops", PATIENCE, || {
                shop.db.counted("spoofed").is_ok_and(|now| now >= before + 50)
            })
            .with_context(|| format!("to {to}"))?;
        }
        for sink in &mut sinks {
            let received: SinkReport = sink.finish()?;
            ensure!(received.flows.is_empty(), "the transit node let through {received:?}");
        }
        Ok(())
    });
}
