//! What interrupts a trial, and what outlives a membership.

use anyhow::{Context, Result, ensure};
use e2e::json;
use e2e::wait::wait_for;
use serde_json::Value;

use crate::world::{DENY_ALL, OTHER, PATIENCE, SSH, World};

const ENFORCE: &str = "  scope: host\n  nicMode: enforce\n";

/// The policy that lets one port in, and everything out.
fn allow(port: u16) -> String {
    let head = DENY_ALL.split("  ingress:").next().unwrap_or_default();
    format!(
        "{head}  ingress:\n    - toPorts:\n        - ports:\n            - port: \"{port}\"\n              protocol: TCP\n"
    )
}

fn nic(world: &World) -> Result<Value> {
    Ok(json::at(&world.db.status()?, &["nic"]).clone())
}

#[test]
fn threat_lockout_what_changes_during_a_trial_is_tried_itself() -> Result<()> {
    let world = World::new("confirmWithin: 600\n")?;
    world.cluster.publish("closed.yaml", DENY_ALL)?;
    world.set(ENFORCE)?;
    world.wait_state("trial")?;
    world.wait_open(OTHER, false)?;
    // Another policy takes the place of the one on trial.
    world.cluster.publish("closed.yaml", &allow(OTHER))?;
    world.wait_state("trial")?;
    world.wait_open(OTHER, true)?;
    world.cluster.publish("closed.yaml", &allow(OTHER + 1))?;
    world.wait_open(OTHER, false)?;
    world.wait_state("trial")?;
    // It is to be reported only: there is nothing left to try.
    world.set("  scope: host\n  nicMode: audit\n")?;
    world.wait_state("audit")?;
    world.wait_open(OTHER, true)?;
    // What was interrupted did no harm, and is tried when it is wanted again.
    world.set(ENFORCE)?;
    world.wait_state("trial")?;
    world.wait_open(OTHER, false)?;
    world.set("")?;
    world.wait_state("off")?;
    world.wait_open(OTHER, true)?;
    ensure!(json::number(&nic(&world)?, "reverted") == 0, "nothing was reverted: {}", nic(&world)?);
    Ok(())
}

#[test]
fn threat_lockout_an_administrator_ends_enforcement_during_a_trial() -> Result<()> {
    let world = World::new("confirmWithin: 600\n")?;
    world.cluster.publish("closed.yaml", DENY_ALL)?;
    world.set(ENFORCE)?;
    world.wait_state("trial")?;
    world.wait_open(OTHER, false)?;
    world.db.command(&["enforce", "audit", "--for", "15m"])?.ok()?;
    ensure!(world.is_open(OTHER)?, "the command ends it at once");
    world.wait_state("audit")?;
    world.db.command(&["enforce", "resume"])?.ok()?;
    world.wait_state("trial").context("it was not decided")?;
    world.wait_open(OTHER, false)
}

#[test]
fn threat_lockout_an_administrator_ends_enforcement_without_a_state() -> Result<()> {
    let mut world = World::new("confirmWithin: 2\n")?;
    world.cluster.publish("closed.yaml", DENY_ALL)?;
    world.set(ENFORCE)?;
    world.wait_state("enforce")?;
    world.wait_open(OTHER, false)?;
    world.cluster.gateway.kill()?;
    world.db.power_off()?;
    std::fs::write(world.db.state().join("snapshot.bin"), b"damaged")?;
    world.db.agent.launch()?;
    world.wait_open(OTHER, false).context("the last confirmed policy")?;
    world.db.command(&["enforce", "audit", "--for", "15m"])?.ok()?;
    world.wait_open(OTHER, true)?;
    ensure!(world.is_open(SSH)?, "logins");
    world.db.command(&["enforce", "resume"])?.ok()?;
    world.wait_open(OTHER, false)?;
    world.cluster.gateway.launch()?;
    world.db.wait_enforcing()?;
    world.wait_state("enforce")
}

#[test]
fn threat_lockout_nothing_outlives_the_membership_in_which_it_was_confirmed() -> Result<()> {
    let world = World::new("confirmWithin: 2\n")?;
    world.cluster.publish("closed.yaml", DENY_ALL)?;
    world.set(ENFORCE)?;
    world.wait_state("enforce")?;
    world.wait_open(OTHER, false)?;
    world.db.command(&["leave"])?.ok()?;
    world.wait_open(OTHER, true)?;
    wait_for("the record to be gone", PATIENCE, || !world.db.state().join("nic.json").exists())?;

    let trials = || -> Result<usize> {
        let audit = world.cluster.gateway.audit()?;
        let begun = |event: &&Value| event["event"] == "nic-policy" && event["state"] == "trial";
        Ok(audit.iter().filter(begun).count())
    };
    let before = trials()?;
    let token = world.cluster.gateway.token("shop/db", &[])?;
    world.db.join(&token.text)?;
    world.db.wait_enforcing()?;
    world.wait_state("enforce")?;
    world.wait_open(OTHER, false)?;
    ensure!(trials()? > before, "the same policy is tried anew by a new member");
    Ok(())
}
