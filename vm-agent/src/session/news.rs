//! What a host says about itself beside what its kernel runs, and when that is another.

use proto::v1::{HostReport, NicReport, ProbeReport};
use tokio::sync::watch;

use crate::agent::Agent;
use crate::nic::Outcome;
use crate::probes::{self, Verdicts};

/// Waits for what a gateway does not know yet.
pub(super) struct News {
    nic: watch::Receiver<Outcome>,
    probes: watch::Receiver<Verdicts>,
    told: ProbeReport,
}

impl News {
    /// What is known now is no news.
    pub(super) fn of(agent: &Agent) -> Self {
        let mut probes = agent.probes.subscribe();
        let told = probes::report(&probes.borrow_and_update());
        Self { nic: agent.nic.outcome.subscribe(), probes, told }
    }

    /// Returns when there is something to report. What came of single attempts is nothing.
    pub(super) async fn changed(&mut self) {
        loop {
            let changed = tokio::select! {
                changed = self.nic.changed() => match changed {
                    Ok(()) => return,
                    Err(gone) => Err(gone),
                },
                changed = self.probes.changed() => changed,
            };
            if changed.is_err() {
                return std::future::pending().await;
            }
            let now = probes::report(&self.probes.borrow_and_update());
            if now != self.told {
                self.told = now;
                return;
            }
        }
    }
}

/// The whole report.
pub(super) fn report(agent: &Agent, host: HostReport) -> HostReport {
    let outcome = agent.nic.outcome.borrow();
    let nic = NicReport { state: outcome.phase.name().to_owned(), message: outcome.message.clone() };
    HostReport { nic: Some(nic), probes: Some(probes::report(&agent.probes.borrow())), ..host }
}
