//! What the status of hosts and tokens is to say, from what is known. What changes all the time is not in it: a host that
//! acknowledges each generation in time, or comes back at once, is not written about.

use std::time::{Duration, Instant};

use crds::{Claim, ExternalWorkloadStatus};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use pki::UnixTime;

use crate::mesh_view::{ConditionView, PENDING, WorkloadView};
use crate::store::{Token, Workload};

/// How long a host may be away, or behind the generation of the gateway, before its object says so.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// For so long after its start the gateway does not know who is away.
pub(super) const ARRIVAL: Duration = Duration::from_mins(1);

/// What is known of a host.
#[derive(Debug)]
pub(super) struct Facts<'a> {
    /// The host, if one joined.
    pub(super) workload: Option<&'a Workload>,
    /// What the mesh knows of it.
    pub(super) view: Option<&'a WorkloadView>,
    /// When it was last seen.
    pub(super) seen: Option<UnixTime>,
    /// Why it is not served.
    pub(super) refusal: Option<&'a str>,
    /// The generation of its object.
    pub(super) object_generation: Option<i64>,
}

/// Since when a host is away, or behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Waiting {
    away: Option<Instant>,
    behind: Option<Instant>,
}

/// A condition before it is compared with what was.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stated {
    kind: String,
    /// `None`: not known.
    holds: Option<bool>,
    reason: String,
    message: String,
}

impl Waiting {
    /// Looks again. `generation` is the gateway's.
    pub(super) fn look(&mut self, view: Option<&WorkloadView>, generation: u64, at: Instant) {
        let is_connected = view.is_some_and(|view| view.connected);
        let is_behind = view.is_some_and(|view| view.acked_generation < generation);
        self.away = if is_connected { None } else { self.away.or(Some(at)) };
        self.behind = if is_behind { self.behind.or(Some(at)) } else { None };
    }

    fn is_long(since: Option<Instant>, at: Instant, patience: Duration) -> bool {
        since.is_some_and(|since| at.saturating_duration_since(since) >= patience)
    }
}

/// The status of a host. `started` is when the gateway was.
pub(super) fn of_host(
    facts: &Facts<'_>,
    waiting: Waiting,
    before: &ExternalWorkloadStatus,
    [started, at]: [Instant; 2],
    now: UnixTime,
) -> ExternalWorkloadStatus {
    let is_connected = facts.view.is_some_and(|view| view.connected);
    let patience = if Waiting::is_long(Some(started), at, ARRIVAL) { PATIENCE } else { ARRIVAL };
    let known = if is_connected {
        Some(true)
    } else if Waiting::is_long(waiting.away, at, patience) {
        Some(false)
    } else {
        was(&before.conditions, "Connected")
    };
    let mut said = Vec::new();
    if facts.workload.is_some() {
        said.push(session(known));
        said.push(in_sync(facts.view, Waiting::is_long(waiting.behind, at, PATIENCE)));
    }
    said.insert(0, ready(facts, &said));
    let further = facts.view.into_iter().flat_map(|view| &view.conditions);
    said.extend(further.map(|(kind, condition)| {
        as_before(kind, condition, &before.conditions).unwrap_or_else(|| Stated {
            kind: kind.clone(),
            holds: Some(condition.status),
            reason: condition.reason.clone(),
            message: condition.message.clone(),
        })
    }));
    let seen = facts.seen.map(pki::display_time);
    let Some(workload) = facts.workload else {
        let conditions = conditions(said, &before.conditions, facts.object_generation, now);
        return ExternalWorkloadStatus { conditions, ..ExternalWorkloadStatus::default() };
    };
    let claim = |address| {
        let claim = workload.claims.get(address);
        let (proved, order) = claim.map_or((false, 0), |claim| (claim.proved, claim.order));
        Claim { address: address.to_string(), proved, order }
    };
    let expires = crate::store::unix_time(workload.certificate_expires);
    let identity = facts.view.map(|view| view.identity).filter(|identity| *identity > 0);
    ExternalWorkloadStatus {
        identity,
        agent_version: Some(workload.agent_version.clone()).filter(|version| !version.is_empty()),
        underlay: workload.underlay.iter().map(claim).collect(),
        certificate_expires: (workload.certificate_expires > 0).then(|| pki::display_time(expires)),
        // When it ended, and no word while it lasts.
        last_seen: if known == Some(false) && was(&before.conditions, "Connected") != Some(false) {
            seen.or_else(|| before.last_seen.clone())
        } else {
            before.last_seen.clone()
        },
        conditions: conditions(said, &before.conditions, facts.object_generation, now),
    }
}

/// What a condition said before, where nothing is known now.
fn as_before(kind: &str, condition: &ConditionView, before: &[Condition]) -> Option<Stated> {
    let old = before.iter().find(|old| old.type_ == kind).filter(|_| condition.reason == PENDING)?;
    let holds = was(before, kind);
    Some(Stated { kind: kind.to_owned(), holds, reason: old.reason.clone(), message: old.message.clone() })
}

fn session(known: Option<bool>) -> Stated {
    let (reason, message) = match known {
        Some(true) => ("Session", "its agent has a session"),
        Some(false) => {
            ("NoSession", "its agent has no session: the host goes on with the last state it was given")
        }
        None => ("Starting", "the gateway has just started"),
    };
    state("Connected", known, reason, message)
}

fn in_sync(view: Option<&WorkloadView>, is_late: bool) -> Stated {
    match view {
        Some(view) if !view.rejected_reason.is_empty() => {
            state("PolicyInSync", Some(false), "Rejected", &view.rejected_reason)
        }
        Some(_) if is_late => state(
            "PolicyInSync",
            Some(false),
            "Behind",
            "its agent has not acknowledged the latest generation",
        ),
        Some(_) => state("PolicyInSync", Some(true), "Acknowledged", "its kernel runs the latest generation"),
        None => state(
            "PolicyInSync",
            Some(false),
            "Unknown",
            "the mesh does not have it: its group may be missing",
        ),
    }
}

fn ready(facts: &Facts<'_>, parts: &[Stated]) -> Stated {
    if let Some(refusal) = facts.refusal {
        return state("Ready", Some(false), "Conflict", refusal);
    }
    if facts.workload.is_none() {
        return state("Ready", Some(false), "NotJoined", "no host has joined under this name");
    }
    match parts.iter().find(|part| part.holds != Some(true)) {
        Some(part) => Stated { kind: "Ready".to_owned(), ..part.clone() },
        None => state("Ready", Some(true), "Ready", "connected, and its kernel runs the latest generation"),
    }
}

/// What the object of a token is to say.
pub(super) fn of_token(
    token: &Token,
    group_exists: bool,
    before: &[Condition],
    object_generation: Option<i64>,
    now: UnixTime,
) -> Vec<Condition> {
    let (holds, reason, message) = if token.revoked {
        (false, "Revoked", "nobody joins with it any more")
    } else if now.as_secs() >= token.expires_at {
        (false, "Expired", "its time is over")
    } else if token.uses_left == 0 {
        (false, "Used", "as many hosts have joined with it as may")
    } else if !group_exists {
        (false, "GroupMissing", "there is no group of that name in its namespace")
    } else {
        (true, "Usable", "hosts can join with it")
    };
    conditions(vec![state("Ready", Some(holds), reason, message)], before, object_generation, now)
}

fn state(kind: &str, holds: Option<bool>, reason: &str, message: &str) -> Stated {
    Stated { kind: kind.to_owned(), holds, reason: reason.to_owned(), message: message.to_owned() }
}

/// Whether a condition held.
fn was(conditions: &[Condition], kind: &str) -> Option<bool> {
    let found = conditions.iter().find(|condition| condition.type_ == kind)?;
    match found.status.as_str() {
        "True" => Some(true),
        "False" => Some(false),
        _ => None,
    }
}

/// As the API has them; a condition that is as before keeps its time.
fn conditions(
    stated: Vec<Stated>,
    before: &[Condition],
    object_generation: Option<i64>,
    now: UnixTime,
) -> Vec<Condition> {
    let now = i64::try_from(now.as_secs()).ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
    let one = |Stated { kind, holds, reason, message }: Stated| {
        let status = match holds {
            Some(true) => "True",
            Some(false) => "False",
            None => "Unknown",
        };
        let same = before.iter().find(|old| old.type_ == kind && old.status == status);
        Condition {
            last_transition_time: same
                .map_or_else(|| Time(now.unwrap_or_default()), |old| old.last_transition_time.clone()),
            message,
            observed_generation: object_generation,
            reason,
            status: status.to_owned(),
            type_: kind,
        }
    };
    stated.into_iter().map(one).collect()
}

#[cfg(test)]
mod tests;
