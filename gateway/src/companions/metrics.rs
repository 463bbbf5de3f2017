//! Metrics of the companions. Labels come from closed sets of words.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// How it is with a policy that selects external workloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Its companion is as it should be.
    Kept,
    /// Addresses are not those of pods and workloads.
    Masqueraded,
    /// The companion would be too large.
    TooLarge,
    /// Another policy has the companion's name.
    NameTaken,
    /// The policy cannot be read.
    Unreadable,
    /// The API server refused.
    NotWritten,
}

impl State {
    const ALL: [Self; 6] =
        [Self::Kept, Self::Masqueraded, Self::TooLarge, Self::NameTaken, Self::Unreadable, Self::NotWritten];

    const fn name(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Masqueraded => "masqueraded",
            Self::TooLarge => "too_large",
            Self::NameTaken => "name_taken",
            Self::Unreadable => "unreadable",
            Self::NotWritten => "not_written",
        }
    }

    /// The reason of the event on the policy.
    pub(super) const fn reason(self) -> &'static str {
        match self {
            Self::Kept => "CompanionKept",
            Self::Masqueraded => "CompanionMasqueraded",
            Self::TooLarge => "CompanionTooLarge",
            Self::NameTaken => "CompanionNameTaken",
            Self::Unreadable => "CompanionOfUnreadable",
            Self::NotWritten => "CompanionNotWritten",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfState {
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfResult {
    result: &'static str,
}

/// The metrics. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub(super) struct Metrics {
    policies: Family<OfState, Gauge>,
    writes: Family<OfResult, Counter>,
    outside: Gauge,
    synced: Gauge,
}

impl Metrics {
    /// Shows them, counted from 0.
    pub(super) fn register(&self, registry: &mut Registry) {
        for state in State::ALL {
            let _zero = self.policies.get_or_create(&OfState { state: state.name() });
        }
        for result in ["ok", "failed"] {
            let _zero = self.writes.get_or_create(&OfResult { result });
        }
        let registry = registry.sub_registry_with_prefix("outrigger_companions");
        registry.register(
            "policies",
            "NetworkPolicies that select external workloads, by how it is with their companions",
            self.policies.clone(),
        );
        registry.register("writes", "Writes to the API server, by result", self.writes.clone());
        registry.register(
            "outside",
            "Companions in namespaces that are not listed, which are left as they are",
            self.outside.clone(),
        );
        registry.register("synced", "Whether it is known what the cluster has", self.synced.clone());
    }

    /// What was decided: policies by state, and companions elsewhere.
    pub(super) fn decided(&self, count: impl Fn(State) -> usize, outside: usize) {
        for state in State::ALL {
            let gauge = self.policies.get_or_create(&OfState { state: state.name() });
            gauge.set(i64::try_from(count(state)).unwrap_or(i64::MAX));
        }
        self.outside.set(i64::try_from(outside).unwrap_or(i64::MAX));
    }

    /// Whether it is known what the cluster has.
    pub(super) fn synced(&self, is: bool) {
        self.synced.set(i64::from(is));
    }

    /// A write ended.
    pub(super) fn wrote(&self, is_ok: bool) {
        self.writes.get_or_create(&OfResult { result: if is_ok { "ok" } else { "failed" } }).inc();
    }
}
