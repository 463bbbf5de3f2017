//! What is counted about sessions. Labels come from closed sets of words.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// Counters of sessions; cloning shares them.
#[derive(Clone, Debug, Default)]
pub struct SessionMetrics {
    ended: Family<End, Counter>,
    answers: Family<First, Counter>,
    updates: Counter,
    update_bytes: Counter,
    acknowledged: Counter,
    rejected: Counter,
    reports: Counter,
    reports_refused: Counter,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct End {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct First {
    answer: &'static str,
}

/// Why a session ended or was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EndReason {
    /// The agent closed it or the connection broke.
    Closed,
    /// The agent is not, or no longer, authorised.
    Unauthorised,
    /// The source was not read whole yet.
    NotSynced,
    /// The same machine connected again.
    Replaced,
    /// Another machine with the same key has a session.
    DuplicateHost,
    /// The agent said what the protocol does not have.
    Protocol,
    /// The certificate expired.
    Expired,
    /// The gateway stops.
    Shutdown,
    /// The agent has a newer state.
    Behind,
    /// The workload's group is not known.
    Absent,
    /// The store failed.
    Store,
    /// The host has other addresses than its connection comes from.
    Moved,
    /// The agent reads nothing.
    Stalled,
}

/// The first answer of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The agent has the latest state.
    UpToDate,
    /// The agent has a newer state.
    Behind,
    /// A delta.
    Delta,
    /// A snapshot.
    Snapshot,
}

impl SessionMetrics {
    /// Shows the counters. What is usual is counted from 0, so that the first one is an increase too.
    pub fn register(&self, registry: &mut Registry) {
        let _zero = self.ended.get_or_create(&End { reason: EndReason::Closed.name() });
        let _zero = self.answers.get_or_create(&First { answer: Answer::Snapshot.name() });
        let registry = registry.sub_registry_with_prefix("outrigger_gateway");
        registry.register(
            "sessions_ended",
            "Sessions that ended or were refused, by reason",
            self.ended.clone(),
        );
        registry.register("session_answers", "First answers to agents", self.answers.clone());
        registry.register("updates_sent", "Updates sent to agents", self.updates.clone());
        registry.register("update_bytes", "Bytes of resources sent to agents", self.update_bytes.clone());
        registry.register("updates_acknowledged", "Updates that agents applied", self.acknowledged.clone());
        registry.register("updates_rejected", "Updates that agents refused", self.rejected.clone());
        registry.register("host_reports", "Reports of hosts about themselves", self.reports.clone());
        registry.register(
            "host_reports_refused",
            "Reports whose session came from none of the reported addresses",
            self.reports_refused.clone(),
        );
    }

    pub(super) fn reported(&self) {
        self.reports.inc();
    }

    pub(super) fn refused_report(&self) {
        self.reports_refused.inc();
    }

    pub(super) fn end(&self, reason: EndReason) {
        self.ended.get_or_create(&End { reason: reason.name() }).inc();
    }

    /// Sessions were cut because their agents took nothing.
    pub fn stalled(&self, count: usize) {
        let ended = self.ended.get_or_create(&End { reason: EndReason::Stalled.name() }).clone();
        ended.inc_by(u64::try_from(count).unwrap_or(u64::MAX));
    }

    pub(super) fn answered(&self, answer: Answer) {
        self.answers.get_or_create(&First { answer: answer.name() }).inc();
    }

    pub(super) fn sent(&self, bytes: usize) {
        self.updates.inc();
        self.update_bytes.inc_by(u64::try_from(bytes).unwrap_or(u64::MAX));
    }

    pub(super) fn acknowledged(&self) {
        self.acknowledged.inc();
    }

    pub(super) fn rejected(&self) {
        self.rejected.inc();
    }
}

impl EndReason {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Unauthorised => "unauthorised",
            Self::NotSynced => "not-synced",
            Self::Replaced => "replaced",
            Self::DuplicateHost => "duplicate-host",
            Self::Protocol => "protocol",
            Self::Expired => "certificate-expired",
            Self::Shutdown => "shutdown",
            Self::Behind => "behind",
            Self::Absent => "absent",
            Self::Store => "store",
            Self::Moved => "moved",
            Self::Stalled => "stalled",
        }
    }
}

impl Answer {
    const fn name(self) -> &'static str {
        match self {
            Self::UpToDate => "up-to-date",
            Self::Behind => "behind",
            Self::Delta => "delta",
            Self::Snapshot => "snapshot",
        }
    }
}
