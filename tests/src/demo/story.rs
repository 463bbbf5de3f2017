//! The scenes of the demo.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::screen::Screen;
use super::stage::{EDITED, POSTGRES, Stage, fetch};
use crate::host::Host;
use crate::process::Process;
use crate::traffic::tcp::StreamReport;
use crate::wait::{monotonic_ns, wait_for, wait_ok};

/// What the issue of a join and of a policy edit may take.
const JOIN_LIMIT: Duration = Duration::from_secs(2);
const EDIT_LIMIT: Duration = Duration::from_millis(250);

/// How long anything else may take before the demo gives up on it.
const PATIENCE: Duration = Duration::from_secs(5);

/// Plays all scenes.
pub(super) fn play(stage: &mut Stage, screen: &mut Screen) {
    screen.play("The cluster node joins as transit node", |screen| transit(stage, screen));
    screen.play("Two hosts join", |screen| join(stage, screen));
    screen.play("The host reaches a pod", |screen| pod_from_host(stage, screen));
    screen.play("A pod reaches the host", |screen| host_from_pod(stage, screen));
    screen.play("The second host is refused, and monitor says by which policy", |screen| {
        refused(stage, screen)
    });
    screen.play("The policy is edited: an established connection is cut", |screen| edited(stage, screen));
    screen.play("The agent is killed: traffic flows, refusals stay", |screen| agent_killed(stage, screen));
    screen.play("The gateway is stopped: traffic flows, refusals stay", |screen| {
        gateway_stopped(stage, screen)
    });
}

fn transit(stage: &mut Stage, screen: &mut Screen) -> Result<()> {
    let token = stage.gateway.transit_token("node-1")?;
    screen.typed("node-1# outrigger-gateway token create --transit-node node-1");
    screen.show(&stage.transit.join(&token.text)?);
    stage.transit.wait_enforcing()?;
    Ok(())
}

fn join(stage: &mut Stage, screen: &mut Screen) -> Result<()> {
    for (agent, group) in [(&stage.db, "shop/db"), (&stage.batch, "shop/batch")] {
        let name = agent.host().name();
        let token = stage.gateway.token(group, &[])?;
        screen.typed(&format!("node-1# outrigger-gateway token create --group {group}"));
        let shown: String = token.text.chars().take(16).collect();
        Screen::output(&format!("{shown}… (one use, {} characters)", token.text.len()));
        let started = Instant::now();
        screen.show(&agent.join(&token.text)?);
        // The first packet that policy allows: an HTTP answer of a pod.
        wait_ok("an answer of the pod", PATIENCE, || fetch(agent.host(), stage.api.v4().into())?.ok())?;
        let took = started.elapsed();
        let result = format!("{:.2} s until a pod answered", took.as_secs_f64());
        screen.timed(&format!("{name} joins"), took, JOIN_LIMIT, &result);
    }
    screen.show(&stage.gateway.command(&["workload", "list"])?);
    Ok(())
}

fn pod_from_host(stage: &mut Stage, screen: &mut Screen) -> Result<()> {
    for address in stage.api.addresses() {
        let expectation = format!("the pod api answers db-1 over {}", family(address));
        answered(screen, stage.db.host(), address, "hello from api", &expectation)?;
    }
    Ok(())
}

fn host_from_pod(stage: &mut Stage, screen: &mut Screen) -> Result<()> {
    for address in stage.db.addresses()? {
        let expectation = format!("db-1 answers the pod web over {}", family(address));
        answered(screen, &stage.web, address, "hello from db-1", &expectation)?;
    }
    Ok(())
}

fn refused(stage: &mut Stage, screen: &mut Screen) -> Result<()> {
    let db = stage.db.host().clone();
    let monitor = db.spawn("monitor", &["outrigger", "monitor"])?;
    let sources = stage.batch.addresses()?;
    for (address, source) in stage.db.addresses()?.into_iter().zip(sources) {
        let seen = wait_ok("the refusal in monitor", PATIENCE, || {
            let answer = fetch(stage.batch.host(), address)?;
            let text = monitor.stdout();
            let named = |line: &&str| line.contains("db-clients") && line.contains(&source.to_string());
            let line = text.lines().rfind(named).context("monitor names no policy")?;
            Ok((answer, line.to_owned()))
        })
        .with_context(|| monitor.output())?;
        let (answer, line) = seen;
        screen.show(&answer);
        screen.typed("db-1# outrigger monitor");
        Screen::output(&line);
        let expectation = format!("batch-1 is refused by db-1 over {}", family(address));
        let result =
            if answer.succeeded() { "answered" } else { "NetworkPolicy shop/db-clients, says monitor" };
        screen.expect(&expectation, !answer.succeeded(), result);
    }
    Ok(())
}

fn edited(stage: &mut Stage, screen: &mut Screen) -> Result<()> {
    let web = (*stage.web).clone();
    let connections = streams(&web, stage.db.addresses()?, screen)?;
    screen.say("the pod web has open connections; now it is removed from the policy's clients");
    let saved = stage.gateway.apply("db-clients.yaml", EDITED)?;
    screen.typed("node-1# vi db-clients.yaml        # values: [api, web]  →  values: [api]");
    for (address, connection) in connections {
        let mut last = 0;
        wait_for("silence", PATIENCE, || {
            last = connection.report::<StreamReport>().map(|report| report.last_ns).unwrap_or_default();
            monotonic_ns() > last.max(saved) + 600_000_000
        })
        .context("the connection was not cut")?;
        let after = Duration::from_nanos(last.saturating_sub(saved));
        let expectation = format!("the edit cuts the connection over {}", family(address));
        let result = format!("{} ms after the file was saved", after.as_millis());
        screen.timed(&expectation, after, EDIT_LIMIT, &result);
    }
    Ok(())
}

fn agent_killed(stage: &mut Stage, screen: &mut Screen) -> Result<()> {
    let api = (*stage.api).clone();
    let connections = streams(&api, stage.db.addresses()?, screen)?;
    let pid = stage.db.process()?.id();
    stage.db.kill()?;
    screen.typed(&format!("db-1# kill -9 {pid}                    # outrigger-agent"));
    still_enforced(stage, screen, "without an agent")?;
    stage.db.launch()?;
    screen.typed("db-1# outrigger-agent                # started again; it adopts what the kernel runs");
    stage.db.wait_enforcing()?;
    unbroken(screen, connections, "killing and starting the agent")
}

fn gateway_stopped(stage: &mut Stage, screen: &mut Screen) -> Result<()> {
    let api = (*stage.api).clone();
    let connections = streams(&api, stage.db.addresses()?, screen)?;
    stage.gateway.stop()?;
    screen.typed("node-1# systemctl stop outrigger-gateway");
    stage.db.wait_status("a lost connection", |status| !crate::json::flag(status, "connected"))?;
    screen.show(&stage.db.command(&["status"])?);
    still_enforced(stage, screen, "without a gateway")?;
    stage.gateway.launch()?;
    screen.typed("node-1# systemctl start outrigger-gateway");
    stage.db.wait_enforcing()?;
    unbroken(screen, connections, "stopping and starting the gateway")
}

/// Expects an answer of the HTTP server at `address`.
fn answered(screen: &mut Screen, from: &Host, address: IpAddr, words: &str, expectation: &str) -> Result<()> {
    let answer = fetch(from, address)?;
    screen.show(&answer);
    let met = answer.succeeded() && answer.stdout.contains(words);
    screen.expect(expectation, met, &format!("{} ms", answer.took.as_millis()));
    Ok(())
}

/// Opens a connection to each address and waits until records come back.
fn streams(from: &Host, to: [IpAddr; 2], screen: &Screen) -> Result<Vec<(IpAddr, Process)>> {
    let mut connections = Vec::new();
    for address in to {
        let server = SocketAddr::new(address, POSTGRES);
        let tool = format!("tcp-stream --to {server}");
        screen.typed(&format!("{}# traffic {tool} &", from.name()));
        let stream = from.traffic(&format!("stream-{}", family(address)), &tool)?;
        wait_for("an open connection", PATIENCE, || {
            stream.report::<StreamReport>().is_ok_and(|report| report.echoed > 10)
        })
        .with_context(|| stream.output())?;
        connections.push((address, stream));
    }
    Ok(connections)
}

/// Expects that new connections of the pod `api` are served and those of the host `batch-1` refused.
fn still_enforced(stage: &Stage, screen: &mut Screen, when: &str) -> Result<()> {
    for address in stage.db.addresses()? {
        let expectation = format!("{when}: a new connection over {}", family(address));
        answered(screen, &stage.api, address, "hello from db-1", &expectation)?;
        let answer = fetch(stage.batch.host(), address)?;
        screen.show(&answer);
        let expectation = format!("{when}: batch-1 over {}", family(address));
        let result = if answer.succeeded() { "answered" } else { "still refused" };
        screen.expect(&expectation, !answer.succeeded(), result);
    }
    Ok(())
}

/// Expects that the connections lost nothing.
fn unbroken(screen: &mut Screen, connections: Vec<(IpAddr, Process)>, what: &str) -> Result<()> {
    for (address, mut connection) in connections {
        let report: StreamReport = connection.finish()?;
        let expectation = format!("{what}: the connection over {}", family(address));
        let met = report.error.is_none() && report.sent == report.echoed;
        ensure!(report.sent > 0, "nothing was sent");
        let gap = Duration::from_nanos(report.longest_gap_ns).as_millis();
        let result =
            format!("{} of {} records came back, longest pause {gap} ms", report.echoed, report.sent);
        screen.expect(&expectation, met, &result);
    }
    Ok(())
}

const fn family(address: IpAddr) -> &'static str {
    match address {
        IpAddr::V4(_) => "IPv4",
        IpAddr::V6(_) => "IPv6",
    }
}
