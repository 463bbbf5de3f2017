//! The root of the mesh is exchanged while hosts are connected, away, and under traffic.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::agent::Agent;
use e2e::gateway::Gateway;
use e2e::json;
use e2e::shop::{Shop, Traffic, db_clients};
use e2e::wait::wait_ok;
use serde_json::Value;

/// How long a step may take to reach hosts that are connected.
const PATIENCE: Duration = Duration::from_secs(20);

/// What `outrigger-gateway ca` answers to these words.
fn ca(gateway: &Gateway, words: &[&str]) -> Result<Vec<Value>> {
    let answer = gateway.command(&[&["ca"], words, &["-o", "json"]].concat())?.json()?;
    Ok(json::list(&answer, "roots").to_vec())
}

/// Adds a root; the ids of the old and the new one.
fn add(gateway: &Gateway) -> Result<[String; 2]> {
    let roots = ca(gateway, &["add"])?;
    let [old, new] = roots.as_slice() else { anyhow::bail!("not two roots: {roots:#?}") };
    Ok([json::text(old, "id").to_owned(), json::text(new, "id").to_owned()])
}

/// Waits until this many hosts have something of a root.
fn wait_count(gateway: &Gateway, root: &str, what: &str, count: u64) -> Result<()> {
    wait_ok(&format!("{what} of {root} to be {count}"), PATIENCE, || {
        let roots = ca(gateway, &["list"])?;
        let found = roots.iter().find(|known| json::text(known, "id") == root).context("no such root")?;
        ensure!(json::number(found, what) == count, "{found:#}");
        Ok(())
    })
}

/// Revokes all tokens that can still be used.
fn revoke_tokens(gateway: &Gateway) -> Result<()> {
    let listed = gateway.command(&["token", "list", "-o", "json"])?.json()?;
    for token in json::list(&listed, "tokens").iter().filter(|token| json::number(token, "uses_left") > 0) {
        gateway.command(&["token", "revoke", json::text(token, "id")])?.ok()?;
    }
    Ok(())
}

/// Waits until an agent keeps this many roots on its disk.
fn wait_roots(agent: &Agent, count: usize) -> Result<()> {
    wait_ok("the roots on the disk", PATIENCE, || {
        let bundle = std::fs::read_to_string(agent.state().join("bundle.pem"))?;
        ensure!(bundle.matches("BEGIN CERTIFICATE").count() == count, "{bundle}");
        Ok(())
    })
}

#[test]
fn a_root_is_rotated_under_traffic_and_hosts_that_were_away_catch_up() -> Result<()> {
    let mut shop = Shop::with("")?;
    let traffic = Traffic::start(&shop.db.host, &shop.db.addresses()?, &shop.api, &shop.web)?;

    // Who is connected has the new root in moments; who is away holds the next step up until it is back.
    shop.batch.agent.stop()?;
    let [old, new] = add(&shop.cluster.gateway)?;
    wait_count(&shop.cluster.gateway, &new, "trusted_by", 2)?;
    let activate = ["ca", "activate", &new];
    shop.cluster.gateway.command(&activate)?.refused_with(&["shop/batch-1", "--force"])?;
    shop.batch.agent.launch()?;
    wait_count(&shop.cluster.gateway, &new, "trusted_by", 3)?;
    shop.cluster.gateway.command(&activate)?.refused_with(&["token"])?;
    revoke_tokens(&shop.cluster.gateway)?;

    // The same for certificates; the host that is away enforces what it was told last.
    shop.db.agent.stop()?;
    shop.cluster.gateway.command(&activate)?.ok()?;
    wait_count(&shop.cluster.gateway, &new, "signed", 2)?;
    let retire = ["ca", "retire", &old];
    shop.cluster.gateway.command(&retire)?.refused_with(&["shop/db-1", "--force"])?;
    traffic.wait_flowing(20)?;
    shop.db.agent.launch()?;
    wait_count(&shop.cluster.gateway, &new, "signed", 3)?;
    shop.cluster.gateway.command(&retire)?.ok()?;
    ensure!(ca(&shop.cluster.gateway, &["list"])?.len() == 1, "the old root is still there");
    for agent in [&shop.cluster.transit, &shop.db.agent, &shop.batch.agent] {
        wait_roots(agent, 1)?;
    }

    // Nothing hangs on the old one: restarts, a new host, the next policy.
    shop.cluster.gateway.stop()?;
    shop.cluster.gateway.launch()?;
    shop.db.agent.stop()?;
    shop.db.agent.launch()?;
    shop.db.wait_enforcing()?;
    shop.cluster.member("batch", "batch-2")?;
    traffic.wait_flowing(20)?;
    traffic.finish()?;
    shop.cluster.publish("db-clients.yaml", &db_clients(&["web"]))?;
    let swapped = Traffic::start(&shop.db.host, &shop.db.addresses()?, &shop.web, &shop.api)?;
    swapped.finish()?;
    Ok(())
}

#[test]
fn a_host_that_a_forced_rotation_lost_keeps_its_last_state_and_is_replaced() -> Result<()> {
    let mut shop = Shop::with("")?;
    shop.db.agent.stop()?;
    let [old, new] = add(&shop.cluster.gateway)?;
    wait_count(&shop.cluster.gateway, &new, "trusted_by", 2)?;
    shop.cluster.gateway.command(&["ca", "activate", &new, "--force"])?.ok()?;
    wait_count(&shop.cluster.gateway, &new, "signed", 2)?;
    shop.cluster.gateway.command(&["ca", "retire", &old, "--force"])?.ok()?;

    shop.db.agent.launch()?;
    let status = shop.db.wait_status("the reason", |status| !json::text(status, "last_error").is_empty())?;
    ensure!(!json::flag(&status, "connected"), "it trusts a root that it was never given: {status:#}");
    ensure!(json::text(&status, "last_error").contains("certificate"), "{status:#}");
    let before = shop.db.addresses()?;
    Traffic::start(&shop.db.host, &before, &shop.api, &shop.web)?.finish()?;

    shop.db.command(&["leave"])?.refused_with(&["--force"])?;
    shop.db.command(&["leave", "--force"])?.ok()?;
    let words = ["workload", "replace", "shop/db-1", "-o", "json"];
    let replace = shop.cluster.gateway.command(&words)?.json()?;
    shop.db.join(json::text(&replace, "token"))?;
    let status = shop.db.wait_enforcing()?;
    ensure!(json::addresses(&status, "mesh_addresses")? == before, "{status:#}");
    Traffic::start(&shop.db.host, &before, &shop.api, &shop.web)?.finish()?;
    Ok(())
}
