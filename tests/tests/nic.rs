//! Policy on the NICs: what it closes, what it never does, and that a host comes back by itself.

#[path = "nic/reach.rs"]
mod reach;
#[path = "nic/trials.rs"]
mod trials;
#[path = "nic/world.rs"]
mod world;

use anyhow::{Context, Result, ensure};
use e2e::json;
use e2e::process::Process;
use e2e::traffic::tcp::StreamReport;
use e2e::wait::{wait_for, wait_ok};
use world::{DENY_ALL, OTHER, PATIENCE, SSH, World};

/// Whether records still come back on a connection.
fn lives(stream: &Process) -> Result<()> {
    let before = stream.report::<StreamReport>()?.echoed;
    wait_ok("an established connection to go on", PATIENCE, || {
        let report = stream.report::<StreamReport>()?;
        ensure!(report.echoed > before + 50, "{report:?}");
        Ok(())
    })
}

#[test]
fn threat_lockout_logins_survive_a_policy_that_denies_everything() -> Result<()> {
    let world = World::new("confirmWithin: 3\n")?;
    let sessions = world.addresses().into_iter().map(|address| world.connect(address, SSH));
    let sessions = sessions.collect::<Result<Vec<_>>>()?;
    for session in &sessions {
        wait_for("a login", PATIENCE, || {
            session.report::<StreamReport>().is_ok_and(|report| report.connected)
        })?;
    }
    world.cluster.publish("closed.yaml", DENY_ALL)?;
    let status = world.db.status()?;
    let left_out = json::texts(&status, "partly_enforced");
    ensure!(left_out.iter().any(|line| line.contains("closed")), "{left_out:?}");
    ensure!(world.is_open(OTHER)?, "the scope is mesh");

    world.set("  scope: host\n")?;
    world.wait_state("audit")?;
    ensure!(world.is_open(OTHER)?, "audit drops nothing");
    ensure!(world.db.counted("audited")? > 0, "audit reports");
    ensure!(json::texts(&world.db.status()?, "partly_enforced").is_empty());

    world.set("  scope: host\n  nicMode: enforce\n")?;
    world.wait_state("trial")?;
    world.wait_open(OTHER, false)?;
    world.wait_state("enforce")?;
    for session in &sessions {
        lives(session)?;
    }
    ensure!(world.is_open(SSH)?, "new logins");
    for remote in ["192.0.2.77", "2001:db8::77"] {
        ensure!(
            world.trace(remote, SSH)? == ["allow", "failsafe/ssh", "allow"],
            "{:?}",
            world.trace(remote, SSH)?
        );
        let [verdict, rule, kernel] = world.trace(remote, OTHER)?;
        ensure!(
            verdict == "deny" && rule.contains("closed") && kernel == "deny",
            "{rule}: {verdict}, {kernel}"
        );
    }
    ensure!(!world.is_open(OTHER)?, "closed");
    ensure!(json::flag(&world.db.status()?, "connected"), "the gateway");

    world.db.command(&["enforce", "audit", "--for", "15m"])?.ok()?;
    world.wait_state("audit")?;
    world.wait_open(OTHER, true)?;
    world.db.command(&["enforce", "resume"])?.ok()?;
    world.wait_state("enforce")?;
    world.wait_open(OTHER, false)?;

    world.set("")?;
    world.wait_state("off")?;
    ensure!(world.trace("192.0.2.77", SSH).is_err(), "nothing governs the NIC");
    world.wait_open(OTHER, true)?;
    wait_for("the record to be gone", PATIENCE, || !world.db.state().join("nic.json").exists())?;
    for session in &sessions {
        lives(session)?;
    }
    Ok(())
}

#[test]
fn threat_lockout_a_policy_that_cuts_the_gateway_off_is_reverted() -> Result<()> {
    let mut world = World::of_api("confirmWithin: 3\nfailsafe: [ssh]\n")?;
    world.cluster.publish("closed.yaml", DENY_ALL)?;
    world.set("  scope: host\n  nicMode: enforce\n")?;
    world.wait_state("reverted")?;
    world.wait_open(OTHER, true)?;
    world.db.wait_enforcing()?;
    wait_ok("the audit log to tell", PATIENCE, || {
        let audit = world.cluster.gateway.audit()?;
        let told = audit.iter().any(|event| event["event"] == "nic-policy" && event["state"] == "reverted");
        ensure!(told, "{audit:?}");
        Ok(())
    })?;
    let note = world.cluster.server()?.wait_event("NicPolicyReverted", "db-1")?;
    ensure!(note.starts_with("policy on the NICs was reverted: "), "{note}");
    // It is not tried again as it is, and is when it became another.
    world.cluster.publish("closed.yaml", &DENY_ALL.replace("  egress:\n    - {}\n", ""))?;
    world.wait_state("enforce")?;
    world.wait_open(OTHER, false)
}

#[test]
fn threat_lockout_without_an_agent_a_tried_policy_ends() -> Result<()> {
    let mut world = World::new("confirmWithin: 5\n")?;
    world.cluster.publish("closed.yaml", DENY_ALL)?;
    world.set("  scope: host\n  nicMode: enforce\n")?;
    world.wait_state("trial")?;
    world.wait_open(OTHER, false)?;
    world.db.agent.kill()?;
    ensure!(!world.is_open(OTHER)?, "the kernel goes on for a while");
    world.wait_open(OTHER, true).context("without any agent")?;
    world.db.agent.launch()?;
    world.wait_state("reverted")?;
    world.wait_open(OTHER, true)
}

#[test]
fn without_a_good_state_the_last_confirmed_policy_holds_unless_the_host_says_open() -> Result<()> {
    for (setting, is_open) in [("failsafe", false), ("open", true)] {
        let mut world = World::new(&format!("confirmWithin: 2\nonFailure: {setting}\n"))?;
        world.cluster.publish("closed.yaml", DENY_ALL)?;
        world.set("  scope: host\n  nicMode: enforce\n")?;
        world.wait_state("enforce")?;
        world.cluster.gateway.kill()?;
        world.db.power_off()?;
        std::fs::write(world.db.state().join("snapshot.bin"), b"damaged")?;
        world.db.agent.launch()?;
        let status = world.db.wait_status("the damage to be told", |status| {
            json::texts(status, "warnings").iter().any(|warning| warning.contains("onFailure"))
        })?;
        ensure!(json::text(&status, "phase") != "enforcing", "{status:#}");
        world.wait_open(OTHER, is_open).context(setting)?;
        ensure!(world.is_open(SSH)?, "logins");
        world.cluster.gateway.launch()?;
        world.db.wait_enforcing()?;
        world.wait_state("enforce")?;
        world.wait_open(OTHER, false)?;
    }
    Ok(())
}
