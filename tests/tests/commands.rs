//! What the commands and the listeners tell a person and a program.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::host::Host;
use e2e::json;
use e2e::shared::Shared;
use e2e::shop::{Shop, pings};
use serde_json::Value;

static SHOP: Shared<Shop> = Shared::new();

/// The checks of `outrigger connectivity test`, by result.
fn checks(shop: &Shop) -> Result<(Option<i32>, Vec<Value>)> {
    let answer = shop.db.command(&["connectivity", "test", "-o", "json"])?;
    let lines = answer.stdout.lines().map(|line| serde_json::from_str(line).context("no JSON"));
    Ok((answer.code, lines.collect::<Result<_>>()?))
}

fn get(host: &Host, url: &str) -> Result<String> {
    Ok(host.run(&["traffic", "get", url])?.ok()?.stdout)
}

#[test]
fn the_connectivity_test_passes_on_a_healthy_host_and_names_what_is_broken() {
    SHOP.test(|shop| {
        let (code, all) = checks(shop)?;
        let failed: Vec<_> = all.iter().filter(|check| json::text(check, "result") == "failed").collect();
        ensure!(code == Some(0) && failed.is_empty() && all.len() >= 4, "code {code:?}: {all:#?}");

        shop.cluster.gateway.stop()?;
        shop.db.wait_status("a lost gateway", |status| !json::flag(status, "connected"))?;
        let (code, all) = checks(shop)?;
        let failed: Vec<_> = all.iter().filter(|check| json::text(check, "result") == "failed").collect();
        ensure!(code == Some(1) && !failed.is_empty(), "code {code:?}: {all:#?}");
        ensure!(failed.iter().all(|check| !json::text(check, "advice").is_empty()), "no advice: {failed:#?}");
        shop.cluster.gateway.launch()?;
        shop.db.wait_enforcing()?;
        Ok(())
    });
}

#[test]
fn metrics_and_health_are_served_on_loopback() {
    SHOP.test(|shop| {
        let [address, _] = shop.db.addresses()?;
        ensure!(!pings(&shop.web, address, 56)?, "not refused");
        let agent = get(&shop.db.host, "http://127.0.0.1:9465/metrics")?;
        let gateway = get(shop.cluster.node.host(), "http://127.0.0.1:9464/metrics")?;
        for (name, text) in [("agent", &agent), ("gateway", &gateway)] {
            ensure!(text.contains("outrigger_") && text.contains("# EOF"), "{name}: {text}");
        }
        ensure!(agent.contains("policy_denied"), "drops are not counted by reason: {agent}");
        let outside = format!("http://{}:9465/metrics", shop.db.host.v4());
        let refused = shop.batch.host.run(&["traffic", "get", &outside])?;
        ensure!(!refused.succeeded(), "metrics are served to everybody");
        Ok(())
    });
}

#[test]
fn the_dashboard_shows_metrics_that_there_are() {
    SHOP.test(|shop| {
        let text = get(shop.cluster.node.host(), "http://127.0.0.1:9464/metrics")?;
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        let known: BTreeSet<&str> = samples.filter_map(|line| line.split(['{', ' ']).next()).collect();
        let file =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/helm/outrigger/files/dashboard.json");
        let dashboard = std::fs::read_to_string(file)?;
        let shown: BTreeSet<&str> =
            regex::Regex::new("outrigger_[a-z_]+")?.find_iter(&dashboard).map(|name| name.as_str()).collect();
        let unknown: Vec<_> = shown.difference(&known).collect();
        ensure!(shown.len() > 15 && unknown.is_empty(), "not served: {unknown:?}, of {shown:?}: {text}");
        Ok(())
    });
}

#[test]
fn the_gateway_lists_and_describes_its_workloads() {
    SHOP.test(|shop| {
        let workloads = shop.cluster.gateway.workloads()?;
        let db =
            workloads.iter().find(|workload| json::text(workload, "name") == "db-1").context("no db-1")?;
        ensure!(json::text(db, "group") == "shop/db" && json::flag(db, "connected"), "{db:#}");
        ensure!(json::addresses(db, "mesh_addresses")? == shop.db.addresses()?, "{db:#}");
        let described = shop.cluster.gateway.command(&["workload", "describe", "shop/db-1"])?.ok()?;
        ensure!(described.stdout.contains("NetworkPolicy/shop/db-clients"), "{described}");
        let audited = shop.cluster.gateway.audit()?;
        ensure!(audited.len() >= 6, "tokens and joins are not in the audit stream: {audited:#?}");
        Ok(())
    });
}

#[test]
fn monitor_filters() {
    SHOP.test(|shop| {
        let [address, _] = shop.db.addresses()?;
        let words =
            ["outrigger", "monitor", "-o", "json", "--verdict", "dropped", "--direction", "in", "--remote"];
        let web = shop.web.v4().to_string();
        let batch = shop.batch.addresses()?[0].to_string();
        let monitor = shop.db.host.spawn("filtered", &[&words[..], &[&web]].concat())?;
        e2e::wait::wait_ok("an event", Duration::from_secs(5), || {
            let _ = pings(&shop.batch.host, address, 56)?;
            let _ = pings(&shop.web, address, 56)?;
            let _ = pings(&shop.api, address, 56)?;
            ensure!(!e2e::agent::events(&monitor).is_empty(), "none");
            Ok(())
        })?;
        let events = e2e::agent::events(&monitor);
        ensure!(events.iter().all(|event| json::text(event, "source") == web), "{events:#?}, not {batch}");
        Ok(())
    });
}
