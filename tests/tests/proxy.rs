//! A host that reaches the gateway by an HTTP proxy only.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::agent::Agent;
use e2e::cluster::Cluster;
use e2e::net::Underlay;
use e2e::traffic::proxy::ProxyReport;
use e2e::wait::wait_for;

const PORT: u16 = 3128;

#[test]
fn a_host_joins_by_a_proxy_that_the_gateway_knows() -> Result<()> {
    // The proxy is the second machine of this network: its addresses are known before it is there.
    for (known, joins) in [("", false), ("proxies: [172.31.0.11/32, \"fd31::b/128\"]\n", true)] {
        let cluster = Cluster::try_with(Underlay::Dual, known)?;
        cluster.group("db")?;
        let dmz = cluster.net.host("dmz")?;
        ensure!(dmz.v4().to_string() == "172.31.0.11", "the proxy has another address: {}", dmz.v4());
        let proxy = dmz.traffic("proxy", &format!("connect-proxy --port {PORT}"))?;
        wait_for("the proxy", Duration::from_secs(5), || {
            proxy.report::<ProxyReport>().is_ok_and(|report| report.listening)
        })?;
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
