//! Metrics, read when they are asked for: nothing is counted twice, and nothing costs while nobody looks.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use crate::agent::Agent;
use crate::kernel::KernelStatus;
use crate::member::Member;
use crate::monitor::Events;
use crate::probes::State;

/// The registry of the agent's metrics.
#[must_use]
pub fn registry(agent: Arc<Agent>, events: Events) -> Registry {
    let mut registry = Registry::with_prefix("outrigger_agent");
    registry.register_collector(Box::new(Metrics { agent, events }));
    registry
}

#[derive(Debug)]
struct Metrics {
    agent: Arc<Agent>,
    events: Events,
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let member = self.agent.member();
        let report = self.agent.report();
        let applied = member.as_ref().map(|member| member.kernel.applied().borrow().clone());
        let joined = i64::from(member.is_some());
        gauge(&mut encoder, "joined", "Whether this host is a member of the mesh.", joined)?;
        gauge(
            &mut encoder,
            "connected",
            "Whether a session with a gateway is open.",
            i64::from(report.session.connected),
        )?;
        let enforcing = i64::from(applied.as_ref().is_some_and(|applied| applied.tag.is_some()));
        gauge(
            &mut encoder,
            "enforcing",
            "Whether a state is enforced since the start of this process.",
            enforcing,
        )?;
        let troubled = i64::from(applied.as_ref().is_some_and(|applied| applied.trouble.is_some()));
        gauge(
            &mut encoder,
            "network_incomplete",
            "Whether the host's network lacks something of the enforced state.",
            troubled,
        )?;
        counter(&mut encoder, "events_lost", "Events that readers were too slow for.", self.events.lost())?;
        let refusals = self.agent.refusals.load(Ordering::Relaxed);
        counter(
            &mut encoder,
            "reconcile_errors",
            "Attempts to bring the kernel to a state that failed.",
            refusals,
        )?;
        let warnings = i64::try_from(report.warnings.len()).unwrap_or(i64::MAX);
        gauge(&mut encoder, "warnings", "Warnings that `outrigger status` shows.", warnings)?;
        let nic = self.agent.nic.outcome.borrow().clone();
        let text = "Policies on the NICs that were reverted since they cut the host off.";
        counter(&mut encoder, "nic_reverted", text, nic.reverted)?;
        let mut states = encoder.encode_descriptor(
            "nic_state",
            "Where policy on the NICs stands.",
            None,
            MetricType::Gauge,
        )?;
        ConstGauge::new(1_i64).encode(states.encode_family(&[("state", nic.phase.name())])?)?;
        self.reach(&mut encoder)?;
        let Some(member) = member else { return Ok(()) };
        let running = member.running.borrow().clone();
        let left_out = running.map_or(0, |version| version.state.settings.partly_enforced.len());
        let text = "What policies say and what is not done: outside of the scope, or in a form that is not enforced.";
        gauge(&mut encoder, "policy_partly_enforced", text, i64::try_from(left_out).unwrap_or(i64::MAX))?;
        if let Some(applied) = applied {
            let generation = applied.tag.map_or(0, |tag| tag.counter);
            gauge(&mut encoder, "generation", "The generation that is enforced.", signed(generation))?;
            gauge(&mut encoder, "epoch", "The publication that the kernel runs.", i64::from(applied.epoch))?;
        }
        self.certificate(&mut encoder, &member)?;
        kernel(&mut encoder, &member.kernel.status().borrow())?;
        packets(&mut encoder, &member)?;
        memory(&mut encoder, &member)
    }
}

impl Metrics {
    /// What this host found out by asking.
    fn reach(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        self.silent(encoder)?;
        self.probes(encoder)
    }

    fn silent(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let silent = i64::try_from(self.agent.silent.borrow().len()).unwrap_or(i64::MAX);
        let text = "Tunnel endpoints of transit nodes that do not answer.";
        gauge(encoder, "transit_endpoints_silent", text, silent)
    }

    fn probes(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let verdicts = self.agent.probes.borrow().clone();
        let text = "Probes of the workload, by what is known of them.";
        let mut family = encoder.encode_descriptor("probes", text, None, MetricType::Gauge)?;
        for state in [State::Pending, State::Passing, State::Failing] {
            let count = verdicts.values().filter(|verdict| verdict.state == state).count();
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            ConstGauge::new(count).encode(family.encode_family(&[("state", state.name())])?)?;
        }
        Ok(())
    }

    /// Negative once it expired.
    fn certificate(&self, encoder: &mut DescriptorEncoder<'_>, member: &Member) -> fmt::Result {
        let Some(held) = member.credentials.borrow().clone() else { return Ok(()) };
        let remaining = signed(held.expires().as_secs()).saturating_sub(signed(self.agent.now().as_secs()));
        let text = "Time until the certificate expires.";
        ConstGauge::new(remaining).encode(encoder.encode_descriptor(
            "certificate_expiry",
            text,
            Some(&Unit::Seconds),
            MetricType::Gauge,
        )?)
    }
}

fn kernel(encoder: &mut DescriptorEncoder<'_>, status: &KernelStatus) -> fmt::Result {
    counter(encoder, "publications", "States that were published to the kernel.", status.publications)?;
    counter(encoder, "looks", "Comparisons of the kernel with what it should be.", status.looks)?;
    counter(
        encoder,
        "hooks_reattached",
        "Hooks that someone removed and that were put back.",
        status.reattached,
    )?;
    let mut tables = encoder.encode_descriptor(
        "table_entries",
        "Entries of the active tables.",
        None,
        MetricType::Gauge,
    )?;
    for (table, entries) in &status.entries {
        let labels = [("table", *table)];
        let entries = i64::try_from(*entries).unwrap_or(i64::MAX);
        ConstGauge::new(entries).encode(tables.encode_family(&labels)?)?;
    }
    Ok(())
}

/// A map that cannot be read leaves its metrics out; the rest is served.
fn packets(encoder: &mut DescriptorEncoder<'_>, member: &Member) -> fmt::Result {
    let Ok(counters) = member.kernel.counters() else { return Ok(()) };
    for (name, help, unit) in [
        ("packets", "Packets by hook, direction and reason.", None),
        ("traffic", "Bytes by hook, direction and reason.", Some(&Unit::Bytes)),
    ] {
        let mut family = encoder.encode_descriptor(name, help, unit, MetricType::Counter)?;
        for found in &counters {
            let direction = match found.direction {
                datapath::Direction::Ingress => "ingress",
                datapath::Direction::Egress => "egress",
            };
            let labels =
                [("hook", found.hook.program()), ("direction", direction), ("reason", found.reason.name())];
            let value = if unit.is_some() { found.bytes } else { found.packets };
            ConstCounter::new(value).encode(family.encode_family(&labels)?)?;
        }
    }
    Ok(())
}

fn memory(encoder: &mut DescriptorEncoder<'_>, member: &Member) -> fmt::Result {
    let Ok(maps) = member.kernel.memory() else { return Ok(()) };
    let help = "Kernel memory of each map.";
    let mut family = encoder.encode_descriptor("map_memory", help, Some(&Unit::Bytes), MetricType::Gauge)?;
    for map in maps {
        let labels = [("map", map.map.as_str())];
        ConstGauge::new(signed(map.bytes)).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: i64) -> fmt::Result {
    ConstGauge::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
}

fn counter(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    ConstCounter::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
