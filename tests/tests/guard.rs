//! The ways around the tunnel: bare packets on the NIC, and mesh traffic while the device is away.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::binaries::Binary;
use e2e::host::Host;
use e2e::json;
use e2e::process::Process;
use e2e::shared::Shared;
use e2e::shop::{Shop, Traffic, UDP, pings};
use e2e::traffic::sniff::SniffReport;
use e2e::traffic::udp::{SendReport, SinkReport};
use e2e::wait::wait_for;

static SHOP: Shared<Shop> = Shared::new();

const PATIENCE: Duration = Duration::from_secs(10);

fn sink(shop: &Shop) -> Result<Process> {
    let sink = shop.db.host.traffic("sink", &format!("udp-sink --port {UDP}"))?;
    wait_for("the sink", PATIENCE, || sink.report::<SinkReport>().is_ok_and(|report| report.listening))?;
    Ok(sink)
}

/// Sends 50 datagrams from an own address and expects all of them under `reason`, and none at the sink.
fn dropped(shop: &Shop, from: &Host, source: Option<IpAddr>, to: IpAddr, reason: &str) -> Result<()> {
    let mut sink = sink(shop)?;
    let before = shop.db.counted(reason)?;
    let source = source.map(|source| format!("--source {source}")).unwrap_or_default();
    let to = SocketAddr::new(to, UDP);
    let mut sender = from.traffic("bare", &format!("udp-send --to {to} --count 50 --flow 3 {source}"))?;
    sender.wait(PATIENCE)?;
    let sent: SendReport = sender.report()?;
    ensure!(sent.sent == 50, "{sent:?} {}", sender.output());
    wait_for(reason, PATIENCE, || shop.db.counted(reason).is_ok_and(|now| now >= before + 50))
        .with_context(|| format!("{:?}", shop.db.status()))?;
    let received: SinkReport = sink.finish()?;
    ensure!(received.flows.is_empty(), "delivered: {received:?}");
    Ok(())
}

#[test]
fn a_bare_packet_to_the_mesh_address_is_dropped_on_the_nic() {
    SHOP.test(|shop| {
        let attacker = shop.cluster.net.host("bare")?;
        let gateways: [IpAddr; 2] = [shop.db.host.v4().into(), shop.db.host.v6().into()];
        for (mesh, via) in shop.db.addresses()?.into_iter().zip(gateways) {
            attacker.namespace().ip(&format!("route add {mesh} via {via}"))?;
            dropped(shop, &attacker, None, mesh, "guard_destination")?;
        }
        Ok(())
    });
}

#[test]
fn a_bare_packet_from_a_mesh_address_is_dropped_on_the_nic() {
    SHOP.test(|shop| {
        let attacker = shop.cluster.net.host("liar")?;
        let targets: [IpAddr; 2] = [shop.db.host.v4().into(), shop.db.host.v6().into()];
        for (source, to) in shop.batch.addresses()?.into_iter().zip(targets) {
            let length = if source.is_ipv4() { 32 } else { 128 };
            attacker.namespace().ip(&format!("addr add {source}/{length} dev lo"))?;
            dropped(shop, &attacker, Some(source), to, "guard_source")?;
        }
        Ok(())
    });
}

#[test]
fn a_device_added_later_is_guarded_too() {
    SHOP.test(|shop| {
        let attacker = shop.cluster.net.host("late")?;
        let peer = attacker.namespace().name();
        shop.db.host.namespace().ip(&format!(
            "link add eth7 type veth peer name eth7 netns {peer}\nlink set eth7 up\naddr add 172.30.7.1/24 dev eth7"
        ))?;
        let [mesh, _] = shop.db.addresses()?;
        attacker.namespace().ip(&format!(
            "link set eth7 up\naddr add 172.30.7.2/24 dev eth7\nroute add {mesh} via 172.30.7.1"
        ))?;
        shop.db.wait_status("the new device to be guarded", |status| {
            json::texts(status, "guarded_devices").contains(&"eth7".to_owned())
        })?;
        dropped(shop, &attacker, None, mesh, "guard_destination")?;
        shop.db.host.namespace().ip("link del eth7")?;
        shop.db.wait_status("the device to be forgotten", |status| {
            !json::texts(status, "guarded_devices").contains(&"eth7".to_owned())
        })?;
        Ok(())
    });
}

#[test]
fn a_device_that_is_down_sends_nothing_in_clear_and_recovers() {
    SHOP.test(|shop| {
        let [api4, api6] = shop.api.addresses();
        let mut command = shop.cluster.net.underlay().command(Binary::Traffic.path()?);
        command.args(["sniff", "--address", &api4.to_string(), "--address", &api6.to_string()]);
        let mut sniffer = Process::start("clear", &mut command, &shop.cluster.net.logs())?;
        wait_for("the sniffer", PATIENCE, || {
            sniffer.report::<SniffReport>().is_ok_and(|report| report.listening)
        })?;

        shop.db.agent.kill()?;
        shop.db.host.namespace().ip("link set ogr0 down")?;
        for to in [api4, api6] {
            let to = SocketAddr::new(to, UDP);
            let mut sender = shop.db.host.traffic("down", &format!("udp-send --to {to} --count 30"))?;
            sender.wait(PATIENCE)?;
            let sent: SendReport = sender.report()?;
            ensure!(sent.sent == 0 && !sent.errors.is_empty(), "the kernel took packets: {sent:?}");
        }
        let seen: SniffReport = sniffer.finish()?;
        ensure!(seen.packets == 0, "in clear: {seen:?}");

        shop.db.agent.launch()?;
        shop.db.wait_enforcing()?;
        let traffic = Traffic::start(&shop.db.host, &shop.db.addresses()?, &shop.api, &shop.web)?;
        traffic.finish().map(|_| ())
    });
}

#[test]
fn a_device_taken_down_under_a_running_agent_comes_back() {
    SHOP.test(|shop| {
        shop.db.host.namespace().ip("link set ogr0 down")?;
        let [api, _] = shop.api.addresses();
        wait_for("the device to work again", PATIENCE, || pings(&shop.db.host, api, 56).unwrap_or(false))?;
        let traffic = Traffic::start(&shop.db.host, &shop.db.addresses()?, &shop.api, &shop.web)?;
        traffic.finish().map(|_| ())
    });
}

/// The MAC of a machine's mesh device.
fn mac(host: &Host) -> Result<String> {
    let devices = host.devices()?;
    let device = devices.as_array().into_iter().flatten().find(|device| device["ifname"] == "ogr0");
    let mac = device.and_then(|device| device["address"].as_str()).context("no mesh device with a MAC")?;
    Ok(mac.to_owned())
}

/// VXLAN drops what carries the receiver's own MAC: udev gives clones of a machine the same one.
#[test]
fn a_mac_that_another_host_has_is_replaced_while_the_device_is_up() {
    SHOP.test(|shop| {
        let node = shop.cluster.node.host();
        let macs = [mac(&shop.db.host)?, mac(&shop.batch.host)?, mac(node)?];
        ensure!(macs.iter().collect::<BTreeSet<_>>().len() == macs.len(), "shared: {macs:?}");
        let reached = || -> Result<bool> {
            for (api, batch) in shop.api.addresses().into_iter().zip(shop.batch.addresses()?) {
                if !pings(&shop.db.host, api, 56)? || !pings(&shop.db.host, batch, 56)? {
                    return Ok(false);
                }
            }
            Ok(true)
        };
        ensure!(reached()?, "a pod or a host is not reached");
        let [own, _, nodes] = &macs;
        shop.db.agent.kill()?;
        shop.db.host.namespace().ip(&format!("link set ogr0 address {nodes}"))?;
        ensure!(!reached()?, "the kernel takes packets with its own MAC: this test shows nothing");
        shop.db.agent.launch()?;
        wait_for("the MAC after a start", PATIENCE, || mac(&shop.db.host).is_ok_and(|mac| mac == *own))?;
        shop.db.host.namespace().ip(&format!("link set ogr0 address {nodes}"))?;
        wait_for("the MAC under a running agent", PATIENCE, || {
            mac(&shop.db.host).is_ok_and(|mac| mac == *own)
        })?;
        ensure!(reached()?, "a pod or a host is not reached with the MAC back in place");
        Ok(())
    });
}
