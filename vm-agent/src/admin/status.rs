//! What `outrigger status` shows.

use std::collections::{BTreeMap, BTreeSet};

use datapath::Direction;
use policy::state::{Mode, Nic, Probe, Role, Scope};
use proto::v1::{AgentStatus, Counter, NicStatus, ProbeStatus};

use crate::agent::{Agent, Report, Source};
use crate::kernel::{Applied, KernelStatus, NicStatus as KernelNic};
use crate::member::Member;
use crate::nic::Outcome;
use crate::probes::{Verdict, Verdicts};
use crate::selection;
use crate::session::Version;

/// Everything that is known now.
pub(super) fn status(agent: &Agent) -> AgentStatus {
    let report = agent.report();
    let Some(member) = agent.member() else { return without_member(&report) };
    let applied = member.kernel.applied().borrow().clone();
    let kernel = member.kernel.status().borrow().clone();
    let mut status = AgentStatus {
        workload: member.enrolment().workload,
        mesh_addresses: member.enrolment().mesh_addresses.iter().map(ToString::to_string).collect(),
        connected: report.session.connected,
        gateway: report.session.gateway.clone(),
        certificate_expires: certificate_expires(&member),
        ..of_report(&report, Some(&applied))
    };
    add_kernel(&mut status, &applied, &kernel);
    match (member.kernel.counters(), member.kernel.memory()) {
        (Ok(counters), Ok(memory)) => {
            status.counters = sum(&counters);
            status.map_memory_bytes = memory.iter().map(|map| map.bytes).sum();
        }
        (Err(error), _) | (_, Err(error)) => status.warnings.push(format!("reading counters: {error}")),
    }
    status.probes = probes(&agent.probes.borrow());
    let running = member.running.borrow().clone();
    if let Some(version) = &running {
        add_state(&mut status, version);
    }
    if running.is_some() || kernel.nic.is_some() {
        let governed = running.as_ref().and_then(|version| version.state.settings.nic.as_ref());
        status.nic = Some(nic(&agent.nic.outcome.borrow(), kernel.nic.as_ref(), governed));
    }
    status
}

fn of_report(report: &Report, applied: Option<&Applied>) -> AgentStatus {
    AgentStatus {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        phase: report.phase(applied).name().to_owned(),
        last_error: report.error(applied),
        warnings: report.warnings.values().cloned().collect(),
        state_source: report.source.name().to_owned(),
        ..AgentStatus::default()
    }
}

fn without_member(report: &Report) -> AgentStatus {
    AgentStatus { state_source: Source::None.name().to_owned(), ..of_report(report, None) }
}

fn certificate_expires(member: &Member) -> i64 {
    let held = member.credentials.borrow();
    held.as_ref().map_or(0, |held| i64::try_from(held.expires().as_secs()).unwrap_or(i64::MAX))
}

fn add_kernel(status: &mut AgentStatus, applied: &Applied, kernel: &KernelStatus) {
    status.generation = applied.tag.map_or(0, |tag| tag.counter);
    status.epoch = applied.epoch;
    status.warnings.extend(kernel.warnings.iter().cloned());
    if let Some(device) = &kernel.device {
        status.device.clone_from(&device.name);
        status.mtu = device.mtu;
        if !device.up {
            status.warnings.push(format!("the device {} is down", device.name));
        }
    }
    let guards = kernel.hooks.iter().filter(|hook| hook.hook.starts_with("guard_"));
    let guarded = guards.filter(|hook| hook.attached.is_some()).map(|hook| hook.device.clone());
    status.guarded_devices = guarded.collect::<BTreeSet<_>>().into_iter().collect();
    let missing = kernel.hooks.iter().filter(|hook| hook.attached.is_none());
    status.warnings.extend(missing.map(|hook| format!("{} is not attached to {}", hook.hook, hook.device)));
}

fn add_state(status: &mut AgentStatus, version: &Version) {
    let state = &version.state;
    let settings = &state.settings;
    status.workload.clone_from(&settings.workload);
    status.identity = settings.identity.get();
    status.labels = state.identities.get(&settings.identity).map(ToString::to_string).unwrap_or_default();
    status.mesh_addresses = settings.addresses.iter().map(ToString::to_string).collect();
    status.policies = selection::policies(&state.policy);
    status.ingress_default_deny = selection::is_default_deny(&state.policy.ingress);
    status.egress_default_deny = selection::is_default_deny(&state.policy.egress);
    status.rejected.clone_from(&settings.rejected);
    status.partly_enforced.clone_from(&settings.partly_enforced);
    status.endpoints = u32::try_from(state.endpoints.len()).unwrap_or(u32::MAX);
    let (role, mode) = (role(settings.role), mode(settings.mode));
    (status.role, status.mode) = (role.to_owned(), mode.to_owned());
}

fn probes(verdicts: &Verdicts) -> Vec<ProbeStatus> {
    let one = |(probe, verdict): (&Probe, &Verdict)| ProbeStatus {
        probe: probe.kind.to_string(),
        state: verdict.state.name().to_owned(),
        message: verdict.message.clone(),
    };
    verdicts.iter().map(one).collect()
}

fn nic(outcome: &Outcome, kernel: Option<&KernelNic>, governed: Option<&Nic>) -> NicStatus {
    let Outcome { phase, message, reverted, audit_until } = outcome;
    // Without a state of a gateway, what governs is the last confirmed policy of the host.
    let scope = if kernel.is_some() { Scope::Host } else { Scope::Mesh };
    NicStatus {
        scope: governed.map_or(scope, |nic| nic.scope).name().to_owned(),
        state: phase.name().to_owned(),
        message: message.clone(),
        devices: kernel.map(|nic| nic.devices.clone()).unwrap_or_default(),
        open: kernel.map(|nic| nic.open.clone()).unwrap_or_default(),
        audit_until: *audit_until,
        policies: governed.map(|nic| selection::policies(&nic.policy)).unwrap_or_default(),
        reverted: *reverted,
    }
}

const fn role(role: Role) -> &'static str {
    match role {
        Role::Host => "host",
        Role::Transit => "transit",
        Role::Node => "node",
    }
}

const fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Enforce => "enforce",
        Mode::Audit => "audit",
    }
}

/// Over all hooks, by direction and reason.
fn sum(counters: &[crate::kernel::Counter]) -> Vec<Counter> {
    let mut sums = BTreeMap::new();
    for counter in counters {
        let (packets, bytes) = sums.entry((counter.direction, counter.reason)).or_insert((0_u64, 0_u64));
        *packets += counter.packets;
        *bytes += counter.bytes;
    }
    let line =
        |((direction, reason), (packets, bytes)): ((Direction, datapath::Reason), (u64, u64))| Counter {
            direction: match direction {
                Direction::Ingress => "ingress".to_owned(),
                Direction::Egress => "egress".to_owned(),
            },
            reason: reason.name().to_owned(),
            packets,
            bytes,
        };
    sums.into_iter().map(line).collect()
}
