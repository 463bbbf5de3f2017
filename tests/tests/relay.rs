//! Hosts whose underlays do not meet: one has IPv4 only, the other IPv6 only, and the transit node stands in both.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::cluster::{Cluster, Member, allow_ingress};
use e2e::host::Host;
use e2e::json;
use e2e::net::Underlay;
use e2e::shop::{Traffic, UDP, pings};
use e2e::traffic::udp::SinkReport;
use e2e::wait::wait_for;

const PATIENCE: Duration = Duration::from_secs(5);

struct Islands {
    db: Member,
    api: Member,
    web: Member,
    cluster: Cluster,
}

fn islands() -> Result<Islands> {
    let cluster = Cluster::try_new()?;
    for group in ["db", "api", "web"] {
        cluster.group(group)?;
    }
    cluster.gateway.apply("db-clients.yaml", &allow_ingress("db-clients", "db", &["api"], None))?;
    let db = cluster.member_with("db", "db-1", Underlay::V6, "")?;
    let api = cluster.member_with("api", "api-1", Underlay::V4, "")?;
    let web = cluster.member_with("web", "web-1", Underlay::V4, "")?;
    cluster.settle()?;
    Ok(Islands { db, api, web, cluster })
}

/// The path MTU that a machine has learnt.
fn path(host: &Host, to: IpAddr) -> Result<String> {
    Ok(host.run(&["ip", "route", "get", &to.to_string()])?.ok()?.stdout)
}

#[test]
fn they_reach_each_other_by_the_transit_node_and_policy_holds() -> Result<()> {
    let Islands { db, api, web, cluster } = islands()?;
    Traffic::start(&db.host, &db.addresses()?, &api.host, &web.host)?.finish()?;
    for (to, back) in db.addresses()?.into_iter().zip(api.addresses()?) {
        for size in [56, 3000] {
            // A first large packet may only teach the path MTU.
            let _ = pings(&api.host, to, size)?;
            ensure!(pings(&api.host, to, size)?, "{size} bytes to {to}");
            ensure!(pings(&db.host, back, size)?, "{size} bytes to {back}");
        }
        ensure!(!pings(&web.host, to, 56)?, "a host that no policy allows got a reply");
    }
    // Past the forwarding of the node's kernel, which would see one direction only.
    let relayed = cluster.transit.counted("relayed")?;
    ensure!(relayed > 100, "{relayed} packets were relayed");
    Ok(())
}

#[test]
fn a_path_that_carries_less_is_learnt() -> Result<()> {
    let Islands { db, api, cluster: _cluster, .. } = islands()?;
    let (wide, narrow) = (json::number(&api.status()?, "mtu"), json::number(&db.status()?, "mtu"));
    ensure!(wide > narrow, "MTU {wide} and {narrow}");
    let mut sink = db.host.traffic("sink", &format!("udp-sink --port {UDP}"))?;
    wait_for("the sink", PATIENCE, || sink.report::<SinkReport>().is_ok_and(|report| report.listening))?;
    for (to, (flow, headers)) in db.addresses()?.into_iter().zip([(4_u32, 28), (6, 48)]) {
        let size = wide - headers;
        let to_port = SocketAddr::new(to, UDP);
        let send = format!("udp-send --to {to_port} --flow {flow} --size {size} --count 20");
        api.host.traffic("large", &send)?.wait(PATIENCE)?;
        let learnt = path(&api.host, to)?;
        ensure!(learnt.contains(&format!("mtu {narrow}")), "another path MTU than {narrow}: {learnt}");
    }
    let received: SinkReport = sink.finish()?;
    for flow in [4, 6] {
        let flow = received.flow(flow);
        ensure!(flow.received >= 15 && flow.damaged == 0, "{flow:?}");
    }
    Ok(())
}

#[test]
fn the_transit_node_shows_as_a_hop() -> Result<()> {
    let Islands { db, api, cluster, .. } = islands()?;
    let hops = cluster.transit.addresses()?;
    for (to, hop) in db.addresses()?.into_iter().zip(hops) {
        // The last hop that a packet has ends at the node, which says so in its own name.
        let answer = api.host.run(&["ping", "-n", "-c", "1", "-W", "2", "-t", "1", &to.to_string()])?;
        let found = answer.stdout.lines().find(|line| line.to_lowercase().contains("exceeded"));
        let line = found.with_context(|| format!("nobody said that the hops ended: {answer}"))?;
        ensure!(line.contains(&hop.to_string()), "another than {hop} said it: {line}");
    }
    Ok(())
}
