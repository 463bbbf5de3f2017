//! Sizes: path MTU through the transit node, fragments, echo.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::host::Host;
use e2e::json;
use e2e::shared::Shared;
use e2e::shop::{Shop, UDP, pings};
use e2e::traffic::udp::{SendReport, SinkReport};
use e2e::wait::wait_for;

static SHOP: Shared<Shop> = Shared::new();

const PATIENCE: Duration = Duration::from_secs(5);

/// Fetches a megabyte from a server of `server`.
fn fetch(server: &Host, address: IpAddr, client: &Host) -> Result<()> {
    let web = server.traffic("web", "serve-http --port 8080")?;
    wait_for("the server", PATIENCE, || !web.stdout().is_empty())?;
    let url = format!("http://{}/bytes/1000000", SocketAddr::new(address, 8080));
    let answer = client.run(&["traffic", "get", "--length", "--timeout-ms", "5000", &url])?.ok()?;
    ensure!(answer.stdout.trim() == "1000000", "{answer}");
    Ok(())
}

/// The path MTU that a machine has learnt.
fn path_mtu(host: &Host, to: IpAddr) -> Result<String> {
    Ok(host.run(&["ip", "route", "get", &to.to_string()])?.ok()?.stdout)
}

#[test]
fn the_transit_node_says_too_big_and_the_path_works() {
    SHOP.test(|shop| {
        shop.cluster.node.namespace().ip(&format!("link set {} mtu 1300", shop.api.device()))?;
        for (host, pod) in shop.db.addresses()?.into_iter().zip(shop.api.addresses()) {
            fetch(&shop.db.host, host, &shop.api)?;
            let learnt = path_mtu(&shop.db.host, pod)?;
            ensure!(learnt.contains("mtu 1300"), "the host learnt no path MTU: {learnt}");
        }
        shop.cluster.node.namespace().ip(&format!("link set {} mtu 1500", shop.api.device()))
    });
}

#[test]
fn a_pod_learns_the_tunnels_mtu() {
    SHOP.test(|shop| {
        let mut sink = shop.db.host.traffic("sink", &format!("udp-sink --port {UDP}"))?;
        wait_for("the sink", PATIENCE, || sink.report::<SinkReport>().is_ok_and(|report| report.listening))?;
        let mtu = json::number(&shop.db.status()?, "mtu");
        for (to, flow) in shop.db.addresses()?.into_iter().zip([4_u32, 6]) {
            // They fit the pod's device and are sent whole, until the node says what fits the tunnel.
            let send =
                format!("udp-send --to {} --flow {flow} --size 1440 --count 20", SocketAddr::new(to, UDP));
            shop.api.traffic("large", &send)?.wait(PATIENCE)?;
            let learnt = path_mtu(&shop.api, to)?;
            ensure!(
                learnt.contains(&format!("mtu {mtu}")),
                "the pod learnt another path MTU than {mtu}: {learnt}"
            );
        }
        let received: SinkReport = sink.finish()?;
        for flow in [4, 6] {
            let flow = received.flow(flow);
            ensure!(flow.received >= 15 && flow.damaged == 0, "{flow:?}");
        }
        Ok(())
    });
}

#[test]
fn fragments_follow_their_first() {
    SHOP.test(|shop| {
        let sink = |host: &Host| host.traffic("sink", &format!("udp-sink --port {UDP} --echo"));
        let mut sink = sink(&shop.db.host)?;
        wait_for("the sink", PATIENCE, || sink.report::<SinkReport>().is_ok_and(|report| report.listening))?;
        for (to, flow) in shop.db.addresses()?.into_iter().zip([4_u32, 6]) {
            let to = SocketAddr::new(to, UDP);
            // The first may be lost to a too-big that the sender learns from.
            let probe = format!("udp-send --to {to} --flow {} --size 4000 --count 3", flow + 40);
            shop.api.traffic("probe", &probe)?.wait(PATIENCE)?;
            let send = |flow| format!("udp-send --to {to} --flow {flow} --size 4000 --rate 200 --count 50");
            let mut allowed = shop.api.traffic("allowed", &send(flow))?;
            let mut denied = shop.web.traffic("denied", &send(flow + 100))?;
            allowed.wait(PATIENCE)?;
            denied.wait(PATIENCE)?;
            let report: SendReport = allowed.report()?;
            ensure!((report.sent, report.echoed) == (50, 50), "{report:?}");
        }
        let received: SinkReport = sink.finish()?;
        for flow in [4, 6] {
            let (allowed, denied) = (received.flow(flow), received.flow(flow + 100));
            ensure!((allowed.received, allowed.damaged) == (50, 0), "{allowed:?}");
            ensure!(denied.received == 0, "{denied:?}");
        }
        Ok(())
    });
}

#[test]
fn echo_in_both_families_and_directions_small_and_fragmented() {
    SHOP.test(|shop| {
        for (host, pod) in shop.db.addresses()?.into_iter().zip(shop.api.addresses()) {
            for size in [56, 3000] {
                // A first large packet may only teach the path MTU.
                let _ = pings(&shop.api, host, size)?;
                ensure!(pings(&shop.api, host, size)?, "pod to host, {host}, {size}");
                ensure!(pings(&shop.db.host, pod, size)?, "host to pod, {pod}, {size}");
            }
            ensure!(!pings(&shop.web, host, 56)?, "a pod that no policy allows got a reply");
        }
        for (batch, db) in shop.batch.addresses()?.into_iter().zip(shop.db.addresses()?) {
            ensure!(pings(&shop.db.host, batch, 56)?, "host to host");
            ensure!(!pings(&shop.batch.host, db, 56)?, "a host that no policy allows got a reply");
        }
        Ok(())
    });
}
