//! What is counted of the authority.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// How a request for a certificate ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    result: &'static str,
}

/// Requests to who signs. Cloning shares them.
#[derive(Clone, Debug)]
pub struct CaMetrics {
    requests: Family<Outcome, Counter>,
    available: Gauge,
}

impl Default for CaMetrics {
    fn default() -> Self {
        let available = Gauge::default();
        available.set(1);
        Self { requests: Family::default(), available }
    }
}

impl CaMetrics {
    /// Shows them.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("outrigger_gateway_ca");
        registry.register(
            "requests",
            "Certificates asked of who signs, by result: ok, or why there is none",
            self.requests.clone(),
        );
        registry.register("available", "Whether who signs did so the last time", self.available.clone());
    }

    pub(super) fn signed(&self, result: &'static str) {
        self.requests.get_or_create(&Outcome { result }).inc();
    }

    pub(super) fn available(&self, available: bool) {
        self.available.set(i64::from(available));
    }
}
