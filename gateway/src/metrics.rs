//! The gateway's own metrics. Labels come from closed sets of words.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::mesh_view::MeshView;
use crate::store::Store;

/// How something ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    result: &'static str,
}

/// Whom a certificate is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Holder {
    holder: &'static str,
}

/// Counters of enrollment. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    joins: Family<Outcome, Counter>,
    renewals: Family<Outcome, Counter>,
    certificates: Family<Holder, Counter>,
    leaves: Counter,
}

impl Metrics {
    /// Shows the counters. What is good is counted from 0, so that the first one is an increase too.
    pub fn register(&self, registry: &mut Registry) {
        for counter in [&self.joins, &self.renewals] {
            let _zero = counter.get_or_create(&Outcome { result: "ok" });
        }
        let _zero = self.certificates.get_or_create(&Holder { holder: "workload" });
        let registry = registry.sub_registry_with_prefix("outrigger_gateway");
        registry.register("joins", "Joins, by result: ok, or why they were refused", self.joins.clone());
        registry.register(
            "renewals",
            "Renewals, by result: ok, or why they were refused",
            self.renewals.clone(),
        );
        registry.register("certificates_issued", "Certificates issued", self.certificates.clone());
        registry.register("leaves", "Workloads that left by themselves", self.leaves.clone());
    }

    /// A join ended.
    pub fn joined(&self, result: &'static str) {
        self.joins.get_or_create(&Outcome { result }).inc();
    }

    /// A renewal ended.
    pub fn renewed(&self, result: &'static str) {
        self.renewals.get_or_create(&Outcome { result }).inc();
    }

    /// A certificate was issued.
    pub fn issued(&self, holder: &'static str) {
        self.certificates.get_or_create(&Holder { holder }).inc();
    }

    /// A workload left.
    pub fn left(&self) {
        self.leaves.inc();
    }
}

/// What is read at the moment of a scrape.
pub struct Gauges {
    store: Arc<Store>,
    mesh: Arc<dyn MeshView>,
}

impl Gauges {
    /// Shows the gauges.
    pub fn register(store: Arc<Store>, mesh: Arc<dyn MeshView>, registry: &mut Registry) {
        registry.register_collector(Box::new(Self { store, mesh }));
    }
}

impl fmt::Debug for Gauges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gauges")
    }
}

impl Collector for Gauges {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let summary = self.mesh.summary();
        let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let gauges = [
            ("generation", "The generation that agents are sent", summary.generation),
            ("synced", "Whether the source was read whole", u64::from(summary.synced)),
            ("sessions", "Open sessions of agents", summary.sessions.into()),
            ("endpoints", "Addresses in the mesh", summary.endpoints.into()),
            ("identities", "Identities in use", summary.identities.into()),
            ("policies", "Policy objects in force", summary.policies.into()),
            ("rejected_objects", "Objects of the source that are refused", count(summary.rejected.len())),
            (
                "warnings",
                "What is valid and will surprise, as status shows it",
                count(summary.warnings.len()),
            ),
            ("workloads", "Workloads that joined", count(self.store.workloads().len())),
        ];
        for (name, help, value) in gauges {
            let gauge = ConstGauge::<u64>::new(value);
            let name = format!("outrigger_gateway_{name}");
            let metric = encoder.encode_descriptor(&name, help, None, gauge.metric_type())?;
            gauge.encode(metric)?;
        }
        Ok(())
    }
}
