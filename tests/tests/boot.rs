//! A machine that starts anew: the last good state is enforced without the gateway, and without a good state there
//! is no mesh rather than an open one.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::ensure;
use e2e::binaries::Binary;
use e2e::json;
use e2e::process::Process;
use e2e::shared::Shared;
use e2e::shop::{Shop, Traffic, UDP};
use e2e::traffic::sniff::SniffReport;
use e2e::traffic::udp::SendReport;
use e2e::wait::wait_for;

static SHOP: Shared<Shop> = Shared::new();

const PATIENCE: Duration = Duration::from_secs(10);

#[test]
fn the_last_good_state_is_enforced_without_the_gateway() {
    SHOP.test(|shop| {
        shop.cluster.gateway.kill()?;
        shop.power_off()?;
        shop.db.agent.launch()?;
        shop.db.wait_status("the snapshot to be enforced", |status| {
            json::text(status, "phase") == "enforcing" && json::text(status, "state_source") == "snapshot"
        })?;
        let traffic = Traffic::start(&shop.db.host, &shop.db.addresses()?, &shop.api, &shop.web)?;
        traffic.finish()?;
        shop.cluster.gateway.launch()?;
        shop.db.wait_enforcing()?;
        Ok(())
    });
}

#[test]
fn without_a_good_state_there_is_no_mesh_and_nothing_in_clear() {
    SHOP.test(|shop| {
        let addresses = shop.db.addresses()?;
        shop.cluster.gateway.kill()?;
        shop.power_off()?;
        std::fs::write(shop.db.state().join("snapshot.bin"), b"damaged")?;
        shop.db.agent.launch()?;
        let status = shop.db.wait_status("the damage to be told", |status| {
            !json::text(status, "last_error").is_empty() || !json::texts(status, "warnings").is_empty()
        })?;
        ensure!(json::text(&status, "phase") != "enforcing", "{status:#}");

        let [api4, api6] = shop.api.addresses();
        let mut command = shop.cluster.net.underlay().command(Binary::Traffic.path()?);
        command.args(["sniff", "--address", &api4.to_string(), "--address", &api6.to_string()]);
        let mut sniffer = Process::start("clear", &mut command, &shop.cluster.net.logs())?;
        wait_for("the sniffer", PATIENCE, || {
            sniffer.report::<SniffReport>().is_ok_and(|report| report.listening)
        })?;
        for to in [api4, api6] {
            let to = SocketAddr::new(to, UDP);
            let mut sender = shop.db.host.traffic("none", &format!("udp-send --to {to} --count 30"))?;
            sender.wait(PATIENCE)?;
            let report: SendReport = sender.report()?;
            ensure!(report.sent == 0, "the kernel took packets: {report:?}");
        }
        let seen: SniffReport = sniffer.finish()?;
        ensure!(seen.packets == 0, "in clear: {seen:?}");

        shop.cluster.gateway.launch()?;
        shop.db.wait_enforcing()?;
        let now = json::addresses(&shop.db.status()?, "mesh_addresses")?;
        ensure!(now == addresses, "other addresses: {now:?}");
        let traffic = Traffic::start(&shop.db.host, &addresses, &shop.api, &shop.web)?;
        traffic.finish().map(|_| ())
    });
}
