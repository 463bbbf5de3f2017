//! A host that reaches the gateway by an HTTP proxy only.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::agent::Agent;
use e2e::cluster::Cluster;
use e2e::host::Host;
use e2e::net::Underlay;
use e2e::process::Process;
use e2e::traffic::proxy::ProxyReport;
use e2e::wait::wait_for;

const PORT: u16 = 3128;

/// The proxy is the second machine of its network: its addresses are known before it is there.
const KNOWN: &str = "proxies: [172.31.0.11/32, \"fd31::b/128\"]\n";

/// A proxy on a machine of its own, with these further words.
fn proxy(cluster: &Cluster, words: &str) -> Result<(Host, Process)> {
    let dmz = cluster.net.host("dmz")?;
    ensure!(dmz.v4().to_string() == "172.31.0.11", "the proxy has another address: {}", dmz.v4());
    let proxy = started(&dmz, words)?;
    Ok((dmz, proxy))
}

fn started(dmz: &Host, words: &str) -> Result<Process> {
    let proxy = dmz.traffic("proxy", &format!("connect-proxy --port {PORT} {words}"))?;
    wait_for("the proxy", Duration::from_secs(5), || {
        proxy.report::<ProxyReport>().is_ok_and(|report| report.listening)
    })?;
    Ok(proxy)
}

#[test]
fn a_host_joins_by_a_proxy_that_the_gateway_knows() -> Result<()> {
    for (known, joins) in [("", false), (KNOWN, true)] {
        let cluster = Cluster::try_with(Underlay::Dual, known)?;
        cluster.group("db")?;
        let (dmz, proxy) = proxy(&cluster, "")?;
        let host = cluster.net.host("db-1")?;
        let agent = Agent::start_with(&host, &format!("proxy: \"{}:{PORT}\"\n", dmz.v4()))?;
        let token = cluster.gateway.token("shop/db", &[])?;
        let answer = agent.try_join(&token.text)?;
        if !joins {
            answer.refused_with(&["172.31.0.11"])?;
            continue;
        }
        answer.ok()?;
        agent.wait_enforcing()?;
        let report: ProxyReport = proxy.report()?;
        ensure!(report.tunnels.len() >= 2, "join and session went another way: {report:?}");
    }
    Ok(())
}

/// How often the gateway took each host in, by its audit stream.
fn joined(cluster: &Cluster, name: &str) -> Result<usize> {
    let records = cluster.gateway.audit()?.into_iter().map(|record| record.to_string());
    Ok(records.filter(|record| record.contains("\"joined\"") && record.contains(name)).count())
}

/// Joins while the line breaks as often as this after so many bytes, and again over a good one where that failed. How
/// often the gateway took the host in.
fn join_over(cluster: &Cluster, dmz: &Host, name: &str, cut: usize, bytes: u64) -> Result<usize> {
    let bad = started(dmz, &format!("--cut {cut} --cut-after {bytes}"))?;
    let settings = format!("proxy: \"{}:{PORT}\"\n", dmz.v4());
    let agent = Agent::start_with(&cluster.net.host(name)?, &settings)?;
    let token = cluster.gateway.token("shop/db", &[])?;
    let answer = agent.try_join(&token.text)?;
    if !answer.succeeded() {
        answer.refused_with(&["tried"])?;
        drop(bad);
        let _good = started(dmz, "")?;
        agent.join(&token.text)?;
        agent.wait_enforcing()?;
    }
    joined(cluster, name)
}

#[test]
fn a_host_whose_answer_was_lost_is_taken_in_all_the_same() -> Result<()> {
    let cluster = Cluster::try_with(Underlay::V4, KNOWN)?;
    cluster.group("db")?;
    let (dmz, first) = proxy(&cluster, "")?;
    drop(first);
    // Where in the conversation the line breaks: in the handshake, in the answer, in the session.
    let mut losing = Vec::new();
    for bytes in [1000, 1600, 2200, 2800] {
        if join_over(&cluster, &dmz, &format!("db-{bytes}"), 1, bytes)? > 1 {
            losing.push(bytes);
        }
    }
    let bytes = *losing.first().context("no answer was lost: the line broke elsewhere")?;
    // As often as the agent asks: the next join has the same key.
    let taken = join_over(&cluster, &dmz, "db-given-up", 3, bytes)?;
    ensure!(taken == 4, "the gateway took it in {taken} times");
    Ok(())
}
