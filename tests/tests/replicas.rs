//! Several gateways of one mesh: one serves and the others hand connections on to it; another one takes its place when it is
//! gone, and nothing that is old ever comes in the place of what a host has.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::agent::Agent;
use e2e::apiserver::fixture::ApiServer;
use e2e::cluster::{Cluster, Member, allow_ingress};
use e2e::gateway::Gateway;
use e2e::gateway::objects::NAMESPACE;
use e2e::host::Host;
use e2e::json;
use e2e::node::Pod;
use e2e::shop::Traffic;
use e2e::wait::wait_ok;
use nix::sys::signal::Signal;

/// A lease ends after 6 s, and whose gateway is frozen is found out after 15 s.
const PATIENCE: Duration = Duration::from_secs(40);

struct World {
    cluster: Cluster,
    second: Gateway,
    db: Member,
    web: Pod,
}

impl World {
    /// The first gateway serves; the second one does not run, and hosts try it first.
    fn try_new() -> Result<Self> {
        let mut cluster = Cluster::of_api()?;
        let second = cluster.gateway.replica(&cluster.net.host("gw-2")?)?;
        cluster.gateway.stop()?;
        cluster.gateway.launch()?;
        cluster.group("db")?;
        let db = cluster.member("db", "db-1")?;
        let web = cluster.pod("web", 2)?;
        cluster.publish("policy.yaml", &allow_ingress("db", "db", &["web"], None))?;
        Ok(Self { cluster, second, db, web })
    }

    fn server(&mut self) -> Result<&mut ApiServer> {
        self.cluster.server()
    }

    fn wait_connected(&self, wanted: bool) -> Result<()> {
        wait_ok("the session", PATIENCE, || {
            let status = self.db.status()?;
            ensure!(json::flag(&status, "connected") == wanted, "{status:#}");
            Ok(())
        })
    }

    fn is_allowed(&self, port: u16) -> Result<bool> {
        let (remote, port) = (self.web.v4().to_string(), port.to_string());
        let words =
            ["policy", "trace", "--direction", "in", "--remote", &remote, "--port", &port, "-o", "json"];
        Ok(json::text(&self.db.command(&words)?.ok()?.json()?, "kernel_verdict") == "allow")
    }

    /// Waits until the host's kernel decides so about port 80.
    fn wait_allowed(&self, wanted: bool) -> Result<()> {
        wait_ok("the policy", PATIENCE, || {
            ensure!(self.is_allowed(80)? == wanted, "{:#}", self.db.status()?);
            Ok(())
        })
    }

    /// Waits until the lease was renewed in another second: what is published then is not of the second of a backup.
    fn wait_renewals(&mut self) -> Result<()> {
        let server = self.server()?;
        let second = |server: &ApiServer| -> Result<String> {
            let lease = server.get("coordination.k8s.io/v1", "Lease", NAMESPACE, "outrigger-gateway")?;
            Ok(json::text(json::at(&lease, &["spec"]), "renewTime").chars().take(19).collect())
        };
        let before = second(server)?;
        wait_ok("a renewal", PATIENCE, || {
            ensure!(second(server)? != before, "not renewed since {before}");
            Ok(())
        })
    }

    /// Only port 5432 from now on.
    fn narrow(&self) -> Result<()> {
        let policy = allow_ingress("db", "db", &["web"], Some(5432));
        self.cluster.gateway.apply("policy.yaml", &policy).map(drop)
    }
}

/// Waits until a gateway serves.
fn wait_serving(gateway: &Gateway) -> Result<()> {
    wait_ok("a gateway that serves", PATIENCE, || {
        let status = gateway.status()?;
        ensure!(json::flag(&status, "synced"), "{status:#}");
        Ok(())
    })
}

fn metric(host: &Host, name: &str) -> Result<u64> {
    let text = host.run(&["traffic", "get", "http://127.0.0.1:9464/metrics"])?.ok()?.stdout;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    value.with_context(|| format!("no {name} in {text}"))
}

fn wait_standing_by(gateway: &Gateway) -> Result<()> {
    wait_ok("a gateway that stands by", PATIENCE, || {
        let answer = gateway.host().run(&["traffic", "get", "http://127.0.0.1:9464/readyz"])?;
        let text = answer.ok()?.stdout;
        ensure!(text.trim() == "ready", "{text}");
        ensure!(metric(gateway.host(), "outrigger_gateway_leader")? == 0, "it serves");
        Ok(())
    })
}

#[test]
fn hosts_join_through_a_gateway_that_stands_by_and_lose_nothing_when_another_one_takes_over() -> Result<()> {
    let mut world = World::try_new()?;
    world.second.stand_by()?;
    wait_standing_by(&world.second)?;
    // The gateway refuses who comes from elsewhere than the host says it is: the address is handed on, too.
    let late = Agent::start(&world.cluster.net.host("db-2")?)?;
    late.join(&world.cluster.gateway.token("shop/db", &[])?.text)?;
    late.wait_enforcing()?;
    ensure!(metric(world.second.host(), "outrigger_gateway_connections_handed_on_total")? > 0);
    world.db.agent.stop()?;
    world.db.agent.launch()?;
    world.db.wait_enforcing()?;

    let stranger = world.cluster.pod("stranger", 3)?;
    let traffic = Traffic::start(&world.db.host, &world.db.addresses()?, &world.web, &stranger)?;
    world.cluster.gateway.kill()?;
    wait_serving(&world.second)?;
    world.wait_connected(true)?;
    traffic.wait_flowing(50)?;
    // Whoever was killed stands by, and takes over from one that ends in order.
    world.cluster.gateway.stand_by()?;
    wait_standing_by(&world.cluster.gateway)?;
    world.second.stop()?;
    wait_serving(&world.cluster.gateway)?;
    world.wait_connected(true)?;
    traffic.wait_flowing(50)?;
    let outcome = traffic.finish()?;
    ensure!(outcome.sent > 100, "too little was sent to tell: {outcome:?}");
    world.narrow()?;
    world.wait_allowed(false)?;
    // One that stands by ends in order as well.
    world.second.stand_by()?;
    wait_standing_by(&world.second)?;
    world.second.stop()
}

#[test]
fn threat_stale_a_frozen_gateway_rolls_nothing_back() -> Result<()> {
    let mut world = World::try_new()?;
    // The host is connected to the one that serves; the other comes later.
    world.second.stand_by()?;
    wait_standing_by(&world.second)?;
    world.cluster.gateway.process()?.signal(Signal::SIGSTOP)?;
    wait_serving(&world.second)?;
    world.narrow()?;
    world.wait_allowed(false)?;
    world.cluster.gateway.process()?.signal(Signal::SIGCONT)?;
    let first = &mut world.cluster.gateway;
    wait_ok("the end of the one that was frozen", PATIENCE, || {
        let process = first.process()?;
        ensure!(!process.is_running(), "it runs: {}", process.output());
        ensure!(process.output().contains("stands by once it is started again"), "{}", process.output());
        Ok(())
    })?;
    ensure!(!world.is_allowed(80)?, "an old policy is back");
    Ok(())
}

#[test]
fn threat_stale_a_cluster_of_yesterday_rolls_nothing_back_before_an_administrator_says_so() -> Result<()> {
    let mut world = World::try_new()?;
    if !world.server()?.is_double() {
        return Ok(());
    }
    let backup = world.server()?.backup()?;
    world.wait_renewals()?;
    let generation = json::number(&world.cluster.gateway.status()?, "generation");
    world.narrow()?;
    world.wait_allowed(false)?;
    world.cluster.settle()?;

    world.server()?.restore(&backup)?;
    let first = &mut world.cluster.gateway;
    wait_ok("the end of the gateway", PATIENCE, || {
        let process = first.process()?;
        ensure!(!process.is_running(), "it runs: {}", process.output());
        ensure!(process.output().contains("restored from a backup"), "{}", process.output());
        Ok(())
    })?;
    ensure!(!world.is_allowed(80)?, "the policy of yesterday is back");
    // Now it knows of nothing else than yesterday's.
    world.cluster.gateway.launch()?;
    let told = "outrigger-gateway restore accept";
    let status = wait_ok("a warning", PATIENCE, || {
        let status = world.cluster.gateway.status()?;
        ensure!(status.to_string().contains(told), "{status:#}");
        Ok(status)
    })?;
    ensure!(json::number(&status, "generation") > generation, "numbers go on: {status:#}");
    // Numbers pass those that the host has, and still it keeps what it has.
    world.cluster.pod("more", 3)?;
    world.cluster.gateway.remove("pod-more.yaml")?;
    ensure!(!world.is_allowed(80)?, "the policy of yesterday is back");
    world.cluster.gateway.command(&["restore", "accept"])?.ok()?;
    world.wait_allowed(true)?;
    world.wait_connected(true)
}
