//! What the tasks of the agent share: configuration, files, and the membership in the mesh, if there is one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use pki::{KeyHash, UnixTime};
use telemetry::health::Health;
use tokio::sync::watch;

use crate::config::Config;
use crate::enrolment;
use crate::kernel::{Applied, Silent};
use crate::machine::Machine;
use crate::member::Member;
use crate::nic::{Record, Watched};
use crate::probes::Verdicts;
use crate::state_dir::StateDir;
use crate::transits;
use crate::transport::Dialer;

/// The check of health that the first enforcement sets ready.
pub const ENFORCEMENT: &str = "enforcement";

/// What the tasks share.
#[derive(Debug)]
pub struct Agent {
    /// What the administrator set.
    pub config: Config,
    /// The files.
    pub state: StateDir,
    /// This machine.
    pub machine: Machine,
    /// The time, as certificates see it.
    pub time: pki::TimeSource,
    /// What runs in the kernel for whom; `None`: nothing of this process does.
    pub member: watch::Sender<Option<Arc<Member>>>,
    /// Readiness.
    pub health: Health,
    /// How often the kernel's owner said that a state is not in force.
    pub refusals: AtomicU64,
    /// Whether the membership cannot go on as it is.
    pub refused: watch::Sender<Option<Refused>>,
    /// Held while a file is written beside the operations, and while these remove files.
    pub writing: Mutex<()>,
    /// Policy on the NICs.
    pub nic: Watched,
    /// Whether the workload serves.
    pub probes: watch::Sender<Verdicts>,
    /// Which transit nodes do not answer.
    pub silent: watch::Sender<Silent>,
    report: watch::Sender<Report>,
}

/// Why a membership cannot go on as it is, by gateways or by what is on the disk: only another join helps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The key that it is about; `None`: there is none.
    pub key: Option<KeyHash>,
    /// Why.
    pub reason: String,
}

/// What the tasks say about themselves, for `status`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Where this host stands.
    pub standing: Standing,
    /// The session.
    pub session: Session,
    /// What an administrator should know, by who says it; each says one thing at a time.
    pub warnings: BTreeMap<Topic, String>,
    /// Where the enforced state came from.
    pub source: Source,
}

/// Where this host stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// It did not join.
    #[default]
    Unjoined,
    /// A join is under way, or the state of the previous run is being brought up.
    Joining,
    /// It is a member.
    Member,
    /// Its state belongs to another machine; nothing is brought up.
    Clone(String),
    /// It joined, and nothing can be brought up.
    Failed(String),
    /// It left, and not everything could be removed.
    Leaving(String),
}

/// The session with a gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Session {
    /// Whether a stream is open and confirmed.
    pub connected: bool,
    /// The gateway that is used, or tried.
    pub gateway: String,
    /// Why the last stream or attempt ended; empty once connected.
    pub error: String,
    /// Whether a gateway says that another machine uses the same key.
    pub duplicate: bool,
}

/// Who gives a warning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topic {
    /// The last good state on disk.
    Snapshot,
    /// The certificate.
    Certificate,
    /// The enrolment on disk.
    Enrolment,
    /// The last good state that could not be enforced at start.
    Failure,
    /// The join by the service account of the agent's pod.
    Account,
    /// Transit nodes that do not answer.
    Transit,
}

/// Where the enforced state came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// Nothing was applied since the start of this process.
    #[default]
    None,
    /// The disk.
    Snapshot,
    /// A gateway.
    Gateway,
}

/// The phase that `status` shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Not a member.
    Unjoined,
    /// On the way to the first enforcement.
    Joining,
    /// A state is enforced.
    Enforcing,
    /// Nothing can be enforced.
    Failed,
    /// Another machine has the same state or key.
    Duplicate,
}

impl Agent {
    /// How gateways are reached.
    #[must_use]
    pub fn dialer(&self) -> Dialer {
        Dialer::new(self.config.proxy.clone())
    }

    /// Shares these; not a member yet.
    #[must_use]
    pub fn new(config: Config, state: StateDir, machine: Machine, time: pki::TimeSource) -> Self {
        let now = time.current_time().map_or(0, |now| now.as_secs());
        let nic = Watched::of(Record::load(&state), &config.failsafes, now);
        let silent = watch::Sender::new(transits::load(&state));
        Self {
            config,
            nic,
            state,
            machine,
            time,
            member: watch::Sender::new(None),
            health: Health::default(),
            refusals: AtomicU64::new(0),
            refused: watch::Sender::default(),
            writing: Mutex::default(),
            probes: watch::Sender::default(),
            silent,
            report: watch::Sender::default(),
        }
    }

    /// The membership now.
    #[must_use]
    pub fn member(&self) -> Option<Arc<Member>> {
        self.member.borrow().clone()
    }

    /// What the tasks say now.
    #[must_use]
    pub fn report(&self) -> Report {
        self.report.borrow().clone()
    }

    /// What the tasks say, as it changes.
    #[must_use]
    pub fn reports(&self) -> watch::Receiver<Report> {
        self.report.subscribe()
    }

    /// Changes what is said. Must not block.
    pub fn tell(&self, change: impl FnOnce(&mut Report)) {
        self.report.send_if_modified(|report| {
            let before = report.clone();
            change(report);
            *report != before
        });
    }

    /// Gives or, with `None`, takes back a warning.
    pub fn warn(&self, topic: Topic, text: Option<String>) {
        self.tell(|report| match text {
            Some(text) => drop(report.warnings.insert(topic, text)),
            None => drop(report.warnings.remove(&topic)),
        });
    }

    /// The time; 0 if there is no clock.
    #[must_use]
    pub fn now(&self) -> UnixTime {
        self.time.current_time().unwrap_or(UnixTime::since_unix_epoch(std::time::Duration::ZERO))
    }

    /// The name that is reported and proposed at join.
    #[must_use]
    pub fn hostname(&self) -> String {
        let system = || nix::unistd::gethostname().ok()?.into_string().ok();
        self.config.hostname.clone().or_else(system).unwrap_or_default()
    }

    /// The gateways to use: those of the configuration, on a cluster node those that its pod is told of, else those that
    /// are known.
    #[must_use]
    pub fn gateways(&self, known: &[String]) -> Vec<String> {
        if !self.config.gateways.is_empty() {
            return self.config.gateways.iter().map(ToString::to_string).collect();
        }
        let told = self.config.account.as_ref().map(|files| enrolment::gateways(&files.bootstrap));
        let told = told.filter(|told| !told.is_empty());
        let mut seen = BTreeSet::new();
        let list = told.as_deref().unwrap_or(known);
        list.iter().filter(|name| seen.insert(name.as_str())).cloned().collect()
    }

    /// Says that the membership with this key cannot go on as it is.
    pub fn refuse(&self, key: Option<KeyHash>, reason: String) {
        self.refused.send_replace(Some(Refused { key, reason }));
    }
}

impl Phase {
    /// The word of the interface.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unjoined => "unjoined",
            Self::Joining => "joining",
            Self::Enforcing => "enforcing",
            Self::Failed => "failed",
            Self::Duplicate => "duplicate",
        }
    }
}

impl Source {
    /// The word of the interface.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Snapshot => "snapshot",
            Self::Gateway => "gateway",
        }
    }
}

impl Report {
    /// The phase, with what the kernel says.
    #[must_use]
    pub fn phase(&self, kernel: Option<&Applied>) -> Phase {
        match &self.standing {
            Standing::Unjoined => Phase::Unjoined,
            Standing::Joining => Phase::Joining,
            Standing::Clone(_) => Phase::Duplicate,
            Standing::Failed(_) | Standing::Leaving(_) => Phase::Failed,
            Standing::Member if self.session.duplicate => Phase::Duplicate,
            Standing::Member => match kernel {
                Some(Applied { tag: Some(_), .. }) => Phase::Enforcing,
                Some(Applied { refused: Some(_), .. }) => Phase::Failed,
                Some(Applied { tag: None, refused: None, .. }) | None => Phase::Joining,
            },
        }
    }

    /// What is wrong now, most important first; empty if nothing is.
    #[must_use]
    pub fn error(&self, kernel: Option<&Applied>) -> String {
        match &self.standing {
            Standing::Clone(reason) | Standing::Failed(reason) | Standing::Leaving(reason) => {
                return reason.clone();
            }
            Standing::Unjoined | Standing::Joining | Standing::Member => {}
        }
        let refused = kernel.and_then(|applied| applied.refused.as_ref());
        match refused {
            Some(refusal) => {
                format!("generation {} is not in force: {}", refusal.tag.counter, refusal.reason)
            }
            None => match kernel.and_then(|applied| applied.trouble.as_ref()) {
                Some(trouble) => {
                    format!("policy is in force, the network is not as it should be: {trouble}")
                }
                None => self.session.error.clone(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{Refusal, Tag};

    fn member() -> Report {
        Report { standing: Standing::Member, ..Report::default() }
    }

    #[test]
    fn a_lost_gateway_does_not_end_enforcement() {
        let running = Applied { tag: Some(Tag::default()), epoch: 3, ..Applied::default() };
        let mut report = member();
        report.session.error = "no route".to_owned();
        assert_eq!(report.phase(Some(&running)), Phase::Enforcing);
        assert_eq!(report.error(Some(&running)), "no route");
    }

    #[test]
    fn a_refusal_fails_only_where_nothing_runs() {
        let refused = Some(Refusal { tag: Tag::default(), reason: "full".to_owned(), retrying: false });
        let first = Applied { refused: refused.clone(), ..Applied::default() };
        assert_eq!(member().phase(Some(&first)), Phase::Failed);
        assert!(member().error(Some(&first)).contains("full"));
        let later = Applied { tag: Some(Tag::default()), epoch: 1, refused, trouble: None };
        assert_eq!(member().phase(Some(&later)), Phase::Enforcing);
    }

    #[test]
    fn trouble_with_the_network_does_not_end_enforcement() {
        let trouble = Some("cannot add route".to_owned());
        let running = Applied { tag: Some(Tag::default()), trouble, ..Applied::default() };
        assert_eq!(member().phase(Some(&running)), Phase::Enforcing);
        assert!(member().error(Some(&running)).contains("cannot add route"));
    }

    #[test]
    fn a_copied_state_and_a_copied_key_are_duplicates() {
        let clone = Report { standing: Standing::Clone("another machine".to_owned()), ..Report::default() };
        assert_eq!((clone.phase(None), clone.error(None).as_str()), (Phase::Duplicate, "another machine"));
        let mut report = member();
        report.session.duplicate = true;
        assert_eq!(report.phase(None), Phase::Duplicate);
        assert_eq!(Report::default().phase(None), Phase::Unjoined);
        assert_eq!(member().phase(None), Phase::Joining);
    }
}
