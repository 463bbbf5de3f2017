//! What is said of a host, when, and that nothing is said twice.

use std::collections::BTreeMap;

use pki::KeyHash;

use super::*;
use crate::mesh_view::ConditionView;
use crate::store::{Target, WorkloadName, unix_time};

const NOW: u64 = 1_000_000;

fn host() -> Workload {
    Workload {
        name: WorkloadName::try_new("shop", "db-1").unwrap(),
        target: Target::Group { namespace: "shop".to_owned(), name: "db".to_owned() },
        key: KeyHash::of_spki(&[1]),
        previous_key: None,
        machine: String::new(),
        addresses: Vec::new(),
        underlay: vec!["192.0.2.1".parse().unwrap()],
        claims: BTreeMap::new(),
        agent_version: "0.1.0".to_owned(),
        joined_at: 0,
        joined_with: String::new(),
        certificate_expires: NOW,
        ephemeral: false,
    }
}

fn view(connected: bool, acked_generation: u64) -> WorkloadView {
    WorkloadView { connected, acked_generation, ..WorkloadView::default() }
}

/// A host that is looked at again and again.
struct Watched {
    workload: Option<Workload>,
    refusal: Option<&'static str>,
    waiting: Waiting,
    status: ExternalWorkloadStatus,
    started: Instant,
    seconds: u64,
}

impl Watched {
    fn new() -> Self {
        Self {
            workload: Some(host()),
            refusal: None,
            waiting: Waiting::default(),
            status: ExternalWorkloadStatus::default(),
            started: Instant::now(),
            seconds: 0,
        }
    }

    /// So many seconds later; whether there is something to write.
    fn look(&mut self, seconds: u64, view: &WorkloadView) -> bool {
        self.seconds += seconds;
        let at = self.started + Duration::from_secs(self.seconds);
        self.waiting.look(Some(view), 7, at);
        let facts = Facts {
            workload: self.workload.as_ref(),
            view: Some(view),
            seen: Some(unix_time(NOW + self.seconds)),
            refusal: self.refusal,
            object_generation: Some(1),
        };
        let now = unix_time(NOW + self.seconds);
        let status = of_host(&facts, self.waiting, &self.status, [self.started, at], now);
        let is_news = status != self.status;
        self.status = status;
        is_news
    }

    fn says(&self, kind: &str) -> String {
        let found = self.status.conditions.iter().find(|condition| condition.type_ == kind);
        found.map(|found| format!("{} {}", found.status, found.reason)).unwrap_or_default()
    }
}

#[test]
fn a_host_that_goes_on_is_written_about_once() {
    let mut watched = Watched::new();
    assert!(watched.look(0, &view(true, 7)));
    assert_eq!(watched.says("Ready"), "True Ready");
    assert_eq!(
        (watched.says("Connected"), watched.says("PolicyInSync")),
        ("True Session".into(), "True Acknowledged".into())
    );
    assert_eq!(watched.status.agent_version.as_deref(), Some("0.1.0"));
    // It is behind for a moment, away for a moment, and there again.
    for (seconds, view) in [
        (100, view(true, 7)),
        (5, view(true, 6)),
        (5, view(true, 7)),
        (5, view(false, 7)),
        (5, view(true, 7)),
    ] {
        assert!(!watched.look(seconds, &view), "{:#?}", watched.status);
    }
}

#[test]
fn who_is_away_or_behind_for_long_is_written_about() {
    let mut watched = Watched::new();
    watched.look(100, &view(true, 7));
    let since = watched.status.conditions[1].last_transition_time.clone();
    assert!(!watched.look(5, &view(false, 7)));
    assert!(watched.look(10, &view(false, 7)));
    assert_eq!(
        (watched.says("Connected"), watched.says("Ready")),
        ("False NoSession".into(), "False NoSession".into())
    );
    assert_ne!(watched.status.conditions[1].last_transition_time, since);
    let seen = watched.status.last_seen.clone().unwrap();
    assert!(!watched.look(1000, &view(false, 7)), "when it was seen is written once: {seen}");
    assert!(watched.look(1, &view(true, 6)));
    assert!(!watched.look(5, &view(true, 6)));
    assert!(watched.look(10, &view(true, 6)));
    assert_eq!(
        (watched.says("PolicyInSync"), watched.says("Ready")),
        ("False Behind".into(), "False Behind".into())
    );
    let refused = WorkloadView { rejected_reason: "no room".to_owned(), ..view(true, 6) };
    watched.look(1, &refused);
    assert_eq!(watched.says("PolicyInSync"), "False Rejected");
}

#[test]
fn a_gateway_that_has_just_started_says_of_nobody_that_it_is_away() {
    let mut watched = Watched::new();
    watched.look(0, &view(false, 0));
    assert_eq!(watched.says("Connected"), "Unknown Starting");
    // What another process wrote stays for as long.
    let mut watched = Watched { status: Watched::new().status, ..Watched::new() };
    watched.look(0, &view(true, 7));
    watched.waiting = Waiting::default();
    assert!(!watched.look(59, &view(false, 7)), "{:#?}", watched.status);
    assert!(watched.look(60, &view(false, 7)));
    assert_eq!(watched.says("Connected"), "False NoSession");
}

#[test]
fn who_has_not_joined_and_who_may_not_is_not_ready() {
    let mut watched = Watched { workload: None, ..Watched::new() };
    watched.look(0, &view(false, 0));
    assert_eq!((watched.says("Ready"), watched.says("Connected")), ("False NotJoined".into(), String::new()));
    watched.refusal = Some("workload shop/db-2 has its key or one of its addresses");
    watched.look(0, &view(false, 0));
    assert_eq!(watched.says("Ready"), "False Conflict");
}

#[test]
fn what_the_mesh_says_of_a_host_is_a_condition_while_it_is_so() {
    let mut watched = Watched::new();
    let condition = ConditionView { status: true, reason: "NotAsWritten".into(), message: "x".into() };
    let conditions = [("PolicyPartlyEnforced".to_owned(), condition)].into();
    watched.look(0, &WorkloadView { conditions, ..view(true, 7) });
    assert_eq!(watched.says("PolicyPartlyEnforced"), "True NotAsWritten");
    assert!(watched.look(5, &view(true, 7)));
    assert_eq!(watched.says("PolicyPartlyEnforced"), "");
}

#[test]
fn a_token_says_why_nobody_joins_with_it() {
    let token = |change: &dyn Fn(&mut Token)| {
        let mut token = Token {
            id: "shop/t".to_owned(),
            secret_hash: String::new(),
            target: host().target,
            bound_to: None,
            bound_key: None,
            created_at: NOW,
            expires_at: NOW + 10,
            max_uses: 1,
            uses_left: 1,
            source_prefixes: Vec::new(),
            ephemeral: false,
            revoked: false,
            used_by: Vec::new(),
        };
        change(&mut token);
        token
    };
    let says = |token: Token, group_exists: bool, seconds: u64| {
        let conditions = of_token(&token, group_exists, &[], Some(1), unix_time(NOW + seconds));
        format!("{} {}", conditions[0].status, conditions[0].reason)
    };
    assert_eq!(says(token(&|_| {}), true, 0), "True Usable");
    assert_eq!(says(token(&|_| {}), false, 0), "False GroupMissing");
    assert_eq!(says(token(&|_| {}), true, 10), "False Expired");
    assert_eq!(says(token(&|token| token.uses_left = 0), true, 0), "False Used");
    assert_eq!(says(token(&|token| token.revoked = true), true, 0), "False Revoked");
}

#[test]
fn what_probes_said_stays_while_nobody_knows_better() {
    let probed = |reason: &str, status| {
        let condition = ConditionView { status, reason: reason.to_owned(), message: String::new() };
        let conditions = BTreeMap::from([("ProbesPassing".to_owned(), condition)]);
        WorkloadView { conditions, ..view(true, 7) }
    };
    let mut watched = Watched::new();
    watched.look(1, &probed(PENDING, false));
    assert_eq!(watched.says("ProbesPassing"), "False Pending");
    watched.look(1, &probed("Passing", true));
    assert_eq!(watched.says("ProbesPassing"), "True Passing");
    assert!(!watched.look(1, &probed(PENDING, false)), "the agent was started again");
    assert_eq!(watched.says("ProbesPassing"), "True Passing");
    watched.look(1, &view(true, 7));
    assert_eq!(watched.says("ProbesPassing"), "", "it has no probes any more");
}
