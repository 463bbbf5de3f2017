//! Certificates: renewed in time, and after their time within the grace.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::agent::Agent;
use e2e::cluster::Cluster;
use e2e::json;
use e2e::net::Underlay;
use e2e::shared::Shared;
use e2e::shop::{Brief, Traffic};
use e2e::wait::wait_for;

static BRIEF: Shared<Brief> = Shared::new();

/// The wall clock, as the gateway's certificates use it.
fn seconds_now() -> u64 {
    nix::time::ClockId::CLOCK_REALTIME.now().map_or(0, |now| u64::try_from(now.tv_sec()).unwrap_or_default())
}

fn expires(agent: &Agent) -> Result<u64> {
    Ok(json::number(&agent.status()?, "certificate_expires"))
}

#[test]
fn a_certificate_is_renewed_before_it_expires_and_the_session_stays() {
    BRIEF.test(|Brief(shop)| {
        let first = expires(&shop.db)?;
        let traffic = Traffic::start(&shop.db.host, &shop.db.addresses()?, &shop.api, &shop.web)?;
        let limit = Duration::from_secs(8);
        wait_for("a renewal", limit, || expires(&shop.db).is_ok_and(|now| now > first))?;
        shop.db.wait_enforcing()?;
        traffic.finish().map(|_| ())
    });
}

#[test]
fn an_expired_certificate_is_renewed_within_the_grace_time() {
    BRIEF.test(|Brief(shop)| {
        let mut agent = Agent::start(&shop.cluster.net.host("sleeper")?)?;
        agent.join(&shop.cluster.gateway.token("shop/db", &[])?.text)?;
        agent.wait_enforcing()?;
        let first = expires(&agent)?;
        agent.stop()?;
        // Until the certificate on disk has expired.
        wait_for("the certificate to expire", Duration::from_secs(12), || seconds_now() > first + 1)?;
        agent.launch()?;
        agent.wait_enforcing()?;
        ensure!(expires(&agent)? > first, "not renewed");
        Ok(())
    });
}

#[test]
fn an_expired_certificate_is_refused_after_the_grace_time_and_the_last_state_stays() -> Result<()> {
    let cluster = Cluster::try_with(Underlay::Dual, "certificateTtl: 8s\nrenewGrace: 1s\n")?;
    cluster.group("db")?;
    let mut agent = cluster.member("db", "late")?.agent;
    let last = expires(&agent)?;
    agent.stop()?;
    wait_for("the grace time to end", Duration::from_secs(20), || seconds_now() > last + 3)?;
    agent.launch()?;
    let status = agent.wait_status("the refusal", |status| !json::text(status, "last_error").is_empty())?;
    ensure!(!json::flag(&status, "connected"), "{status:#}");
    ensure!(json::text(&status, "phase") == "enforcing", "the last good state was given up: {status:#}");
    agent.status().context("the agent is gone").map(|_| ())
}
