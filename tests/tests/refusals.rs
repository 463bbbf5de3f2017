//! Bad input of the daemons and commands that is no matter of tokens: every refusal says what to look at.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::agent::Agent;
use e2e::binaries::Binary;
use e2e::cluster::Cluster;
use e2e::gateway::Gateway;
use e2e::json;
use e2e::net::{Net, Underlay};
use e2e::process::Process;

const PATIENCE: Duration = Duration::from_secs(10);

/// Waits for a process that must fail, and returns what it said.
fn failed(mut process: Process) -> Result<String> {
    let status = process.wait(PATIENCE)?;
    ensure!(!status.success(), "it did not fail: {}", process.output());
    Ok(format!("{}{}", process.stdout(), process.stderr()))
}

fn contains(text: &str, words: &[&str]) -> Result<()> {
    let missing = words.iter().find(|word| !text.to_lowercase().contains(&word.to_lowercase()));
    ensure!(missing.is_none(), "{missing:?} is not in: {text}");
    Ok(())
}

#[test]
fn an_unknown_key_is_refused_with_its_position() -> Result<()> {
    let net = Net::try_new()?;
    let host = net.host("host")?;
    let agent = Agent::configured(&host, "devcie: ogr7\n")?;
    contains(&failed(agent.spawn()?)?, &["devcie", "agent.yaml", "4"])?;
    let gateway = Gateway::configured(&host, Underlay::Dual, "workloadPool: []\n")?;
    contains(&failed(gateway.spawn()?)?, &["workloadPool", "gateway.yaml", "6"])
}

#[test]
fn without_root_nothing_is_begun() -> Result<()> {
    let net = Net::try_new()?;
    let host = net.host("host")?;
    let agent = Agent::configured(&host, "")?;
    let config = agent.config().display().to_string();
    let nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--"];
    let path = Binary::Agent.path()?.display().to_string();
    let answer = host.run(&[&nobody[..], &[&path, "--config", &config]].concat())?;
    answer.refused_with(&["root"])?;
    ensure!(!host.folder().join("state").exists(), "it made its state folder");
    ensure!(!agent.socket().exists() && !host.devices()?.to_string().contains("ogr0"), "it began");
    Ok(())
}

#[test]
fn a_metrics_port_that_is_taken_is_named() -> Result<()> {
    let net = Net::try_new()?;
    let host = net.host("host")?;
    let agent = Agent::configured(&host, "")?;
    let gateway = Gateway::configured(&host, Underlay::Dual, "")?;
    for port in ["9464", "9465"] {
        let words = format!("serve-http --address 127.0.0.1 --port {port}");
        let server = host.traffic(port, &words)?;
        e2e::wait::wait_for("the server", PATIENCE, || !server.stdout().is_empty())?;
        let daemon = if port == "9464" { gateway.spawn()? } else { agent.spawn()? };
        contains(&failed(daemon)?, &[port, "in use"])?;
    }
    ensure!(!host.devices()?.to_string().contains("ogr0"), "the agent began");
    Ok(())
}

#[test]
fn a_join_goes_on_to_the_next_gateway_and_names_all_that_it_tried() -> Result<()> {
    let cluster = Cluster::try_new()?;
    cluster.group("db")?;
    let node = cluster.node.v4();
    let token = cluster.gateway.token("shop/db", &[])?;
    let lost = Agent::start_with(
        &cluster.net.host("lost")?,
        &format!("gateways: [\"{node}:7001\", \"{node}:7002\"]\n"),
    )?;
    let tried = [format!("{node}:7001"), format!("{node}:7002")];
    lost.try_join(&token.text)?.refused_with(&[&tried[0], &tried[1]])?;
    let found = Agent::start_with(
        &cluster.net.host("found")?,
        &format!("gateways: [\"{node}:7001\", \"{node}:7443\"]\n"),
    )?;
    found.join(&token.text)?;
    found.wait_enforcing()?;
    Ok(())
}

#[test]
fn without_root_the_command_is_not_permitted_and_without_an_agent_it_says_so() -> Result<()> {
    let net = Net::try_new()?;
    let host = net.host("host")?;
    let mut agent = Agent::start(&host)?;
    let path = Binary::Command.path()?.display().to_string();
    let words = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--", &path, "status"];
    host.run(&words)?.with_code(5)?;
    agent.stop()?;
    agent.command(&["status"])?.with_code(4)?.refused_with(&["agent"])?;
    Ok(())
}

#[test]
fn a_gateway_that_cannot_be_reached_is_named() -> Result<()> {
    let mut cluster = Cluster::try_new()?;
    cluster.group("db")?;
    let host = cluster.net.host("host")?;
    let agent = Agent::start(&host)?;
    let token = cluster.gateway.token("shop/db", &[])?;
    cluster.gateway.stop()?;
    let address = format!("{}:7443", cluster.node.v4());
    agent.try_join(&token.text)?.refused_with(&[&address])?;
    let status = agent.status()?;
    ensure!(json::text(&status, "phase") == "unjoined", "{status:#}");
    // The token was not used up.
    cluster.gateway.launch()?;
    agent.join(&token.text)?;
    Ok(())
}

#[test]
fn a_prefix_that_would_cut_the_host_off_is_refused() -> Result<()> {
    let cluster = Cluster::try_with(Underlay::Dual, "podPrefixes: [\"172.31.0.0/16\", \"10.100.0.0/16\"]\n")?;
    cluster.group("db")?;
    let host = cluster.net.host("host")?;
    let before = host.routes()?;
    let agent = Agent::start(&host)?;
    let token = cluster.gateway.token("shop/db", &[])?;
    let answer = agent.try_join(&token.text)?.refused_with(&["172.31.0.0/16", "172.31.0."])?;
    ensure!(host.routes()? == before, "routes changed: {answer}");
    Ok(())
}

#[test]
fn prefixes_outside_the_hosts_own_limit_are_refused() -> Result<()> {
    let cluster = Cluster::try_new()?;
    cluster.group("db")?;
    let host = cluster.net.host("host")?;
    let before = host.routes()?;
    let agent = Agent::start_with(&host, "allowedCIDRs: [10.244.0.0/16, \"fd00::/16\"]\n")?;
    let token = cluster.gateway.token("shop/db", &[])?;
    agent.try_join(&token.text)?.refused_with(&["10.100.0.0/16", "allowed"])?;
    ensure!(host.routes()? == before, "routes changed");
    Ok(())
}

#[test]
fn a_device_name_or_tunnel_port_that_is_taken_is_named() -> Result<()> {
    let cluster = Cluster::try_new()?;
    cluster.group("db")?;
    for (name, taken, words) in [
        ("host-a", "link add ogr0 type veth peer name other0", ["ogr0", "taken"]),
        (
            "host-b",
            "link add other0 type vxlan external dstport 8479\nlink set other0 up",
            ["8479", "other0"],
        ),
    ] {
        let host = cluster.net.host(name)?;
        host.namespace().ip(taken)?;
        let agent = Agent::start(&host)?;
        let token = cluster.gateway.token("shop/db", &[])?;
        agent.try_join(&token.text)?.refused_with(&words).with_context(|| name)?;
        let devices = host.devices()?.to_string();
        ensure!(devices.contains("ogr0") == (name == "host-a"), "the foreign device was touched: {devices}");
    }
    Ok(())
}

#[test]
fn a_full_disk_is_named_and_leaves_the_token_or_the_host_usable() -> Result<()> {
    let cluster = Cluster::try_new()?;
    cluster.group("db")?;
    let host = cluster.net.host("host")?;
    let state = host.folder().join("state");
    std::fs::create_dir_all(&state)?;
    let state = state.display().to_string();
    host.run(&["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", &state])?.ok()?;
    let agent = Agent::start(&host)?;
    host.run(&["sh", "-c", &format!("cat /dev/zero > {state}/filler; true")])?;
    let token = cluster.gateway.token("shop/db", &[])?;
    agent.try_join(&token.text)?.refused_with(&["space"])?;
    ensure!(json::text(&agent.status()?, "phase") == "unjoined", "{:#}", agent.status()?);
    host.run(&["umount", "--lazy", &state])?.ok()?;
    Ok(())
}

#[test]
fn a_gateway_whose_port_is_taken_says_so() -> Result<()> {
    let net = Net::try_new()?;
    let host = net.host("host")?;
    let server = host.traffic("web", "serve-http --port 7443")?;
    e2e::wait::wait_for("the server", PATIENCE, || !server.stdout().is_empty())?;
    let gateway = Gateway::configured(&host, Underlay::Dual, "")?;
    contains(&failed(gateway.spawn()?)?, &["7443", "in use"])
}
