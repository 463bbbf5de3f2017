//! What restarts, kills and reloads do to traffic: nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::cluster::{allow_ingress, group, pod_manifest};
use e2e::forgery::identity_of;
use e2e::host::Host;
use e2e::json;
use e2e::shared::Shared;
use e2e::shop::{Shop, Traffic};
use e2e::wait::wait_ok;
use nix::sys::signal::Signal;

static SHOP: Shared<Shop> = Shared::new();

const PATIENCE: Duration = Duration::from_secs(20);

/// Runs `event` while the pod `api` talks to `db-1` and the pod `web` tries to.
fn under_traffic(shop: &mut Shop, event: impl FnOnce(&mut Shop, &Traffic) -> Result<()>) -> Result<()> {
    let traffic = Traffic::start(&shop.db.host, &shop.db.addresses()?, &shop.api, &shop.web)?;
    event(shop, &traffic)?;
    traffic.wait_flowing(20)?;
    let outcome = traffic.finish()?;
    ensure!(outcome.sent > 100, "too little was sent to tell: {outcome:?}");
    Ok(())
}

/// Everything pinned on a machine.
fn pins(host: &Host) -> Result<BTreeSet<String>> {
    let listed = host.run(&["find", "/sys/fs/bpf"])?.ok()?;
    Ok(listed.stdout.lines().map(str::to_owned).collect())
}

#[test]
fn an_agent_killed_and_started_again_loses_and_leaks_nothing() {
    SHOP.test(|shop| {
        let before = pins(&shop.db.host)?;
        for _ in 0..3 {
            under_traffic(shop, |shop, traffic| {
                shop.db.agent.kill()?;
                traffic.wait_flowing(50)?;
                shop.db.agent.launch()?;
                shop.db.wait_enforcing()?;
                Ok(())
            })?;
        }
        ensure!(pins(&shop.db.host)? == before, "pins changed: {before:?}, {:?}", pins(&shop.db.host)?);
        Ok(())
    });
}

#[test]
fn an_agent_stopped_and_started_again_loses_nothing() {
    SHOP.test(|shop| {
        under_traffic(shop, |shop, traffic| {
            shop.db.agent.stop()?;
            traffic.wait_flowing(50)?;
            shop.db.agent.launch()?;
            shop.db.wait_enforcing().map(|_| ())
        })
    });
}

#[test]
fn a_transit_agent_killed_and_started_again_loses_nothing() {
    SHOP.test(|shop| {
        under_traffic(shop, |shop, traffic| {
            shop.cluster.transit.kill()?;
            traffic.wait_flowing(50)?;
            shop.cluster.transit.launch()?;
            shop.cluster.transit.wait_enforcing().map(|_| ())
        })
    });
}

#[test]
fn a_gateway_killed_and_started_again_loses_nothing_and_keeps_its_names_and_numbers() {
    SHOP.test(|shop| {
        let (identity, addresses) = (shop.db.identity()?, shop.db.addresses()?);
        under_traffic(shop, |shop, traffic| {
            shop.cluster.gateway.kill()?;
            shop.db.wait_status("a lost gateway", |status| !json::flag(status, "connected"))?;
            traffic.wait_flowing(50)?;
            shop.cluster.gateway.launch()?;
            shop.db.wait_enforcing().map(|_| ())
        })?;
        ensure!(shop.db.identity()? == identity, "another identity");
        let now = json::addresses(&shop.db.status()?, "mesh_addresses")?;
        ensure!(now == addresses, "other addresses: {now:?}");
        Ok(())
    });
}

#[test]
fn relabels_on_top_of_each_other_and_a_gateway_killed_within_one_lose_nothing() {
    SHOP.test(|shop| {
        let failed_before = shop.db.counted("spoofed")? + shop.db.counted("unknown_source")?;
        under_traffic(shop, |shop, traffic| {
            let relabel = |shop: &Shop, tier: &str| -> Result<()> {
                let labels = |app| [("app", app), ("tier", tier)];
                shop.cluster.gateway.apply("pod-api.yaml", &pod_manifest(&shop.api, &labels("api")))?;
                shop.cluster.gateway.apply("group-db.yaml", &group("db", &labels("db"), "")).map(|_| ())
            };
            for round in 0..20 {
                relabel(shop, ["gold", "silver", "bronze"][round % 3])?;
                // Not a wait for anything: the pace of the edits, about that of the phases.
                std::thread::sleep(Duration::from_millis(40));
            }
            shop.cluster.settle()?;
            traffic.wait_flowing(20)?;
            // A receiver that is silent keeps the first phase open.
            shop.cluster.transit.process()?.signal(Signal::SIGSTOP)?;
            let before = json::number(&shop.cluster.gateway.status()?, "generation");
            relabel(shop, "iron")?;
            let gateway = &shop.cluster.gateway;
            gateway.wait_status("the relabel to begin", |now| json::number(now, "generation") > before)?;
            shop.cluster.gateway.kill()?;
            shop.cluster.transit.process()?.signal(Signal::SIGCONT)?;
            shop.cluster.gateway.launch()?;
            shop.db.wait_status("the new labels", |status| {
                json::flag(status, "connected") && json::text(status, "labels").contains("iron")
            })?;
            shop.cluster.settle()?;
            traffic.wait_flowing(50)
        })?;
        let failed = shop.db.counted("spoofed")? + shop.db.counted("unknown_source")? - failed_before;
        ensure!(failed == 0, "{failed} packets failed the source check");
        Ok(())
    });
}

#[test]
fn labels_that_change_while_no_gateway_runs_lose_nothing() {
    SHOP.test(|shop| {
        let failed = |shop: &Shop| {
            Ok::<_, anyhow::Error>(shop.db.counted("spoofed")? + shop.db.counted("unknown_source")?)
        };
        let failed_before = failed(shop)?;
        under_traffic(shop, |shop, traffic| {
            let before = identity_of(shop, shop.api.v4().into())?;
            shop.cluster.gateway.kill()?;
            // Hears of nothing, and goes on to write the number that it knows.
            shop.cluster.transit.process()?.signal(Signal::SIGSTOP)?;
            let labels = [("app", "api"), ("tier", "steel")];
            shop.cluster.gateway.apply("pod-api.yaml", &pod_manifest(&shop.api, &labels))?;
            shop.cluster.gateway.launch()?;
            wait_ok("the new labels", PATIENCE, || {
                ensure!(identity_of(shop, shop.api.v4().into())? != before, "the old identity");
                Ok(())
            })?;
            traffic.wait_flowing(50)?;
            shop.cluster.transit.process()?.signal(Signal::SIGCONT)?;
            shop.cluster.transit.wait_enforcing()?;
            shop.cluster.settle()?;
            traffic.wait_flowing(50)
        })?;
        let failed = failed(shop)? - failed_before;
        ensure!(failed == 0, "{failed} packets failed the source check");
        Ok(())
    });
}

#[test]
fn new_flows_are_decided_while_the_agent_and_the_gateway_are_gone() {
    SHOP.test(|shop| {
        shop.cluster.gateway.kill()?;
        shop.db.agent.kill()?;
        let traffic = Traffic::start(&shop.db.host, &shop.db.addresses()?, &shop.api, &shop.web)?;
        traffic.wait_flowing(50)?;
        traffic.finish()?;
        shop.db.agent.launch()?;
        shop.db.wait_status("the snapshot on disk to be enforced", |status| {
            json::text(status, "phase") == "enforcing" && !json::flag(status, "connected")
        })?;
        shop.cluster.gateway.launch()?;
        shop.db.wait_enforcing()?;
        Ok(())
    });
}

#[test]
fn publishing_a_new_state_every_few_milliseconds_loses_nothing() {
    SHOP.test(|shop| {
        under_traffic(shop, |shop, traffic| {
            for round in 0..30_u16 {
                let yaml =
                    allow_ingress("churn", "db", &["api", "churn"], (round % 2 == 0).then_some(9000 + round));
                shop.cluster.gateway.apply("churn.yaml", &yaml)?;
                // Not a wait for anything: the pace of the edits.
                std::thread::sleep(Duration::from_millis(30));
            }
            traffic.wait_flowing(20)?;
            shop.cluster.gateway.remove("churn.yaml")?;
            shop.cluster.settle()
        })
    });
}
