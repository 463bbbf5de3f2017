//! A checker that cannot fail proves nothing: one that is told something wrong about one flow finds every packet of it, and
//! nothing else.

use std::sync::{Mutex, PoisonError};

use anyhow::{Result, ensure};
use e2e::stress::{Broken, Options, Summary, run};

/// One at a time: two would find each other's load.
static ONE: Mutex<()> = Mutex::new(());

fn calm(broken: Option<Broken>) -> Result<Summary> {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    run(&Options { seconds: 5, seed: 7, policies: 10, endpoints: 0, rate: 25, trouble: false, broken })
}

/// The names of the flows that something was found on.
fn found(summary: &Summary) -> Vec<&str> {
    let mut names: Vec<_> = summary.findings.0.iter().map(|told| told.flow.as_str()).collect();
    names.dedup();
    names
}

#[test]
fn a_truth_that_is_true_finds_nothing() -> Result<()> {
    let summary = calm(None)?;
    ensure!(summary.is_clean(), "{summary}");
    ensure!(summary.tally.delivered > 1000 && summary.tally.sharp > 1000, "{summary}");
    Ok(())
}

#[test]
fn an_allowed_flow_that_is_believed_denied_is_found() -> Result<()> {
    let summary = calm(Some(Broken::Deny))?;
    ensure!(!summary.is_clean() && !summary.lets_nothing_through(), "{summary}");
    ensure!(summary.tally.wrongly_allowed > 50 && summary.tally.wrongly_dropped == 0, "{summary}");
    ensure!(found(&summary) == ["xenon to host-0 port 9000 over IPv4"], "{:?}", found(&summary));
    Ok(())
}

#[test]
fn a_denied_flow_that_is_believed_allowed_is_found() -> Result<()> {
    let summary = calm(Some(Broken::Allow))?;
    ensure!(!summary.is_clean() && summary.lets_nothing_through(), "{summary}");
    ensure!(summary.tally.wrongly_dropped > 50 && summary.tally.wrongly_allowed == 0, "{summary}");
    ensure!(found(&summary) == ["zinc to host-0 port 9000 over IPv4"], "{:?}", found(&summary));
    Ok(())
}
