//! Nodes of the cluster that hosts do not reach: their pods are reached by transit nodes, of which one may be lost.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::agent::Agent;
use e2e::cluster::{Cluster, Member, allow_ingress};
use e2e::gateway::Gateway;
use e2e::json;
use e2e::node::{Node, Pod};
use e2e::shop::{Traffic, pings};
use e2e::wait::wait_ok;

/// Until a transit node counts as lost or found, and what connections need after that.
const PATIENCE: Duration = Duration::from_secs(20);
/// What kube-proxy and a CNI without our prefixes do to a packet that a node forwards.
const KUBE_PROXY: &str = "table inet kube {
  chain forward { type filter hook forward priority 0; ct state invalid counter drop; }
  chain post { type nat hook postrouting priority 100;
    ip saddr 10.100.0.0/16 ip daddr != { 10.100.0.0/16, 10.244.240.0/20 } masquerade; }
}";

/// Two transit nodes, and a third node with the pods `api`, which may reach the host `db-1`, and `web`, which may not.
struct World {
    api: Pod,
    web: Pod,
    db: Member,
    inner: (Node, Agent),
    second: (Node, Agent),
    cluster: Cluster,
}

impl World {
    fn try_new() -> Result<Self> {
        let cluster = Cluster::try_new()?;
        let second = cluster.add_node("node-2", 2, Gateway::transit_token)?;
        let inner = cluster.add_node("node-3", 3, Gateway::node_token)?;
        for node in [&cluster.node, &second.0, &inner.0] {
            node.run(&["nft", KUBE_PROXY])?.ok()?;
        }
        let (api, web) = (cluster.pod_on(&inner.0, "api", 2)?, cluster.pod_on(&inner.0, "web", 3)?);
        cluster.group("db")?;
        let db = cluster.member("db", "db-1")?;
        cluster.publish("db-clients.yaml", &allow_ingress("db-clients", "db", &["api"], None))?;
        Ok(Self { api, web, db, inner, second, cluster })
    }

    /// How many packets each transit node relayed.
    fn relayed(&self) -> Result<[u64; 2]> {
        Ok([self.cluster.transit.counted("relayed")?, self.second.1.counted("relayed")?])
    }

    /// The transit node's underlay address that the agent sends packets for a pod or host to.
    fn tunnel(agent: &Agent, to: IpAddr) -> Result<String> {
        let words = [
            "policy",
            "trace",
            "--direction",
            "out",
            "--remote",
            &to.to_string(),
            "--port",
            "80",
            "-o",
            "json",
        ];
        Ok(json::text(&agent.command(&words)?.json()?, "tunnel").to_owned())
    }
}

#[test]
fn their_pods_and_hosts_reach_each_other_by_transit_nodes_and_policy_holds() -> Result<()> {
    let World { api, web, db, inner, second, cluster } = World::try_new()?;
    let traffic = Traffic::start(&db.host, &db.addresses()?, &api, &web)?;
    traffic.wait_flowing(200)?;
    traffic.finish()?;
    // What does not fit comes in fragments, which no node has to look at as a whole.
    for (host, pod) in db.addresses()?.into_iter().zip(api.addresses()) {
        for size in [56, 1300, 3000] {
            // A first large packet may only teach the path MTU.
            let _ = (pings(&db.host, pod, size)?, pings(&api, host, size)?);
            ensure!(pings(&db.host, pod, size)?, "{size} bytes from the host to {pod}");
            ensure!(pings(&api, host, size)?, "{size} bytes from the pod to {host}");
        }
    }
    let relayed = cluster.transit.counted("relayed")? + second.1.counted("relayed")?;
    ensure!(relayed > 800, "only {relayed} packets took the way by transit nodes");
    // A node speaks for itself too, as the kubelet does, and by nothing but its mesh address.
    for (host, node) in db.addresses()?.into_iter().zip(inner.1.addresses()?) {
        ensure!(!pings(&inner.0, host, 56)?, "no policy lets {node} in");
        ensure!(pings(&db.host, node, 56)?, "the node's own address {node}");
    }
    for node in [&cluster.node, &second.0, &inner.0] {
        let table = node.run(&["nft", "list", "table", "inet", "kube"])?.ok()?.stdout;
        ensure!(
            table.contains("packets 0 bytes 0 drop"),
            "connection tracking sees one direction only: {table}"
        );
    }
    Ok(())
}

#[test]
fn a_lost_transit_node_is_replaced_within_five_seconds_and_connections_go_on() -> Result<()> {
    let world = World::try_new()?;
    // To all addresses of the host: which of the two carries a flow is a matter of addresses.
    let traffic = Traffic::start(&world.db.host, &world.db.addresses()?, &world.api, &world.web)?;
    traffic.wait_flowing(100)?;
    let before = world.relayed()?;
    traffic.wait_flowing(500)?;
    let after = world.relayed()?;
    let grown = [after[0] - before[0], after[1] - before[1]];
    ensure!(grown[0] + grown[1] > 1000, "{grown:?}");
    // The first one takes the gateway along, which nobody needs for this.
    let (lost, left) = if grown[0] > grown[1] { (&world.cluster.node, 1) } else { (&world.second.0, 0) };
    lost.run(&["ip", "link", "set", "eth0", "down"])?.ok()?;
    // Connections send again after ever longer times.
    traffic.wait_flowing_within(10, PATIENCE)?;
    wait_ok("the other one to carry everything", PATIENCE, || {
        let before = world.relayed()?[left];
        traffic.wait_flowing(200)?;
        let carried = world.relayed()?[left] - before;
        ensure!(carried > 1200, "{carried}");
        Ok(())
    })?;
    let warning = |agent: &Agent| -> Result<bool> {
        Ok(agent.status()?.to_string().contains("transit nodes that do not answer"))
    };
    for agent in [&world.db.agent, &world.inner.1] {
        wait_ok("who is lost to be told", PATIENCE, || {
            ensure!(warning(agent)?, "{:#}", agent.status()?);
            Ok(())
        })?;
    }
    lost.run(&["ip", "link", "set", "eth0", "up"])?.ok()?;
    for agent in [&world.db.agent, &world.inner.1] {
        wait_ok("the lost one to be found", PATIENCE, || {
            ensure!(!warning(agent)?, "{:#}", agent.status()?);
            Ok(())
        })?;
    }
    traffic.wait_flowing(100)?;
    let outcome = traffic.finish_after_outage()?;
    println!("outage: {:?}", outcome.longest_gap);
    ensure!(outcome.longest_gap < Duration::from_secs(5), "{:?}", outcome.longest_gap);
    Ok(())
}

#[test]
fn an_agent_that_starts_meanwhile_goes_on_without_the_lost_one() -> Result<()> {
    let mut world = World::try_new()?;
    let pod = world.api.addresses()[0];
    let first = World::tunnel(&world.db, pod)?;
    let first_node = [world.cluster.node.v4().to_string(), world.cluster.node.v6().to_string()];
    let lost = if first_node.contains(&first) { &world.cluster.node } else { &world.second.0 };
    let lost = lost.clone();
    lost.run(&["ip", "link", "set", "eth0", "down"])?.ok()?;
    wait_ok("the other one to be chosen", PATIENCE, || {
        let now = World::tunnel(&world.db, pod)?;
        ensure!(now != first, "still {now}");
        Ok(())
    })?;
    let other = World::tunnel(&world.db, pod)?;
    world.db.agent.kill()?;
    world.db.agent.launch()?;
    // Without a gateway, where that was on the lost node.
    world.db.agent.wait_status("enforcement", |status| json::text(status, "phase") == "enforcing")?;
    let now = World::tunnel(&world.db, pod).context("after the restart")?;
    ensure!(now == other, "{now} after a restart, {other} before");
    Ok(())
}
