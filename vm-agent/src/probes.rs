//! Whether the workload of this host serves: what its group says is tried again and again, and what changes is told to the
//! gateway. Decides nothing about traffic: a gateway's Services leave out who does not serve.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use policy::state::{Probe, ProbeKind};
use proto::v1::ProbeReport;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::agent::Agent;

mod exec;
mod judge;
mod reach;

pub use exec::Exec;
use judge::Judge;
pub use judge::{State, Verdict};

/// Seconds of the shortest and the longest period, whatever a gateway says.
const PERIOD_S: [u32; 2] = [1, 3600];
/// The same of attempts.
const TIMEOUT_S: [u32; 2] = [1, 60];

/// What is known of each probe; empty: there are none.
pub type Verdicts = BTreeMap<Probe, Verdict>;

/// What attempts need.
#[derive(Clone, Debug)]
struct Means {
    /// The host's own mesh addresses.
    addresses: Arc<[IpAddr]>,
    /// How programs are started; `None`: the administrator did not allow it.
    exec: Option<Arc<Exec>>,
}

/// Tries what the state that runs says, for ever.
pub async fn run(agent: Arc<Agent>) {
    let exec = exec_of(&agent);
    let mut members = agent.member.subscribe();
    loop {
        let member = members.borrow_and_update().clone();
        let probing = async {
            let Some(member) = &member else {
                agent.probes.send_replace(Verdicts::new());
                return std::future::pending().await;
            };
            let mut running = member.running.subscribe();
            let mut attempts = JoinSet::new();
            let mut known: Option<(Vec<Probe>, Vec<IpAddr>)> = None;
            loop {
                let version = running.borrow_and_update().clone();
                if let Some(version) = version {
                    let settings = &version.state.settings;
                    let wanted = (settings.probes.clone(), settings.addresses.clone());
                    if known.as_ref() != Some(&wanted) {
                        attempts.abort_all();
                        let means = Means { addresses: wanted.1.clone().into(), exec: exec.clone() };
                        begin(&agent.probes, &wanted.0, &means, &mut attempts);
                        known = Some(wanted);
                    }
                }
                if running.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::select! {
            () = probing => {}
            changed = members.changed() => if changed.is_err() { return },
        }
    }
}

fn exec_of(agent: &Agent) -> Option<Arc<Exec>> {
    let config = &agent.config;
    config.exec_probes.then(|| Arc::new(Exec::new(config.probes_dir.clone(), config.exec_probe_user.clone())))
}

/// Begins to try these instead of what was tried before; what is known of those that stay is kept.
fn begin(verdicts: &watch::Sender<Verdicts>, probes: &[Probe], means: &Means, attempts: &mut JoinSet<()>) {
    verdicts.send_if_modified(|known| {
        let next: Verdicts =
            probes.iter().map(|probe| (probe.clone(), known.remove(probe).unwrap_or_default())).collect();
        let is_new = *known != next;
        *known = next;
        is_new
    });
    for probe in verdicts.borrow().keys() {
        attempts.spawn(try_again_and_again(probe.clone(), verdicts.clone(), means.clone()));
    }
}

async fn try_again_and_again(probe: Probe, verdicts: watch::Sender<Verdicts>, means: Means) {
    let [least, most] = PERIOD_S;
    let mut due = interval(Duration::from_secs(probe.period_s.clamp(least, most).into()));
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let known = verdicts.borrow().get(&probe).cloned().unwrap_or_default();
    let mut judge = Judge::new(&probe, known);
    loop {
        due.tick().await;
        let result = attempt(&probe, &means).await;
        let verdict = judge.take(result);
        verdicts.send_if_modified(|all| match all.get_mut(&probe) {
            Some(known) if *known != verdict => {
                if known.state != verdict.state {
                    tracing::info!(probe = %probe.kind, state = verdict.state.name(), message = verdict.message, "probe");
                }
                *known = verdict.clone();
                true
            }
            Some(_) | None => false,
        });
    }
}

/// Tries once; why not, where that fails.
async fn attempt(probe: &Probe, means: &Means) -> Result<(), String> {
    let [least, most] = TIMEOUT_S;
    let limit = Duration::from_secs(probe.timeout_s.clamp(least, most).into());
    let late = |_elapsed| Err(format!("no answer within {} s", limit.as_secs()));
    match &probe.kind {
        ProbeKind::Tcp { port } => {
            timeout(limit, reach::tcp(&means.addresses, *port)).await.unwrap_or_else(late)
        }
        ProbeKind::Http { port, path, host } => {
            timeout(limit, reach::http(&means.addresses, *port, path, host)).await.unwrap_or_else(late)
        }
        ProbeKind::Exec { name } => match &means.exec {
            Some(exec) => exec.run(name.clone(), limit).await,
            None => Err("programs are not run on this host: `execProbes` of agent.yaml".to_owned()),
        },
        ProbeKind::Unknown(kind) => Err(format!("this agent knows no probe {kind:?}")),
    }
}

/// What the gateway is told: the whole serves where all do.
#[must_use]
pub fn report(verdicts: &Verdicts) -> ProbeReport {
    let of = |state| verdicts.iter().find(move |(_, verdict)| verdict.state == state);
    let (state, message) = match (of(State::Failing), of(State::Pending)) {
        _ if verdicts.is_empty() => ("none", String::new()),
        (Some((probe, verdict)), _) => ("failing", format!("{}: {}", probe.kind, verdict.reason)),
        (None, Some(_)) => ("pending", String::new()),
        (None, None) => ("passing", String::new()),
    };
    ProbeReport { state: state.to_owned(), message }
}

#[cfg(test)]
mod tests;
