//! What the gateway tells a node about itself.

use std::sync::Arc;

use policy::state::{Mode, Nic, NodeSettings, Probe, ProbeKind, Role, Scope};

use super::{
    InvalidResource, address_from_wire, address_to_wire, identity_from_wire, policy_from_wire,
    policy_to_wire, prefix_from_wire, prefix_to_wire,
};
use crate::v1;

/// The settings of a node, with the addresses of the gateways it may use.
#[must_use]
pub fn settings_to_wire(settings: &NodeSettings, gateways: &[String]) -> v1::Settings {
    let NodeSettings { workload, identity, mark, addresses, prefixes, role, mode, tunnel_port, .. } =
        settings;
    v1::Settings {
        workload: workload.clone(),
        identity: identity.get(),
        mark: mark.get(),
        addresses: addresses.iter().copied().map(address_to_wire).collect(),
        prefixes: prefixes.iter().copied().map(prefix_to_wire).collect(),
        role: match role {
            Role::Host => v1::Role::Host,
            Role::Transit => v1::Role::Transit,
            Role::Node => v1::Role::Node,
        }
        .into(),
        mode: match mode {
            Mode::Enforce => v1::Mode::Enforce,
            Mode::Audit => v1::Mode::Audit,
        }
        .into(),
        tunnel_port: u32::from(*tunnel_port),
        rejected: settings.rejected.clone(),
        gateways: gateways.to_vec(),
        nic: settings.nic.as_ref().map(nic_to_wire),
        partly_enforced: settings.partly_enforced.clone(),
        probes: settings.probes.iter().map(probe_to_wire).collect(),
    }
}

fn probe_to_wire(probe: &Probe) -> v1::Probe {
    let times = v1::Probe {
        period_seconds: probe.period_s,
        timeout_seconds: probe.timeout_s,
        success_threshold: probe.successes,
        failure_threshold: probe.failures,
        ..v1::Probe::default()
    };
    match probe.kind.clone() {
        ProbeKind::Tcp { port } => v1::Probe { kind: "tcp".to_owned(), port: port.into(), ..times },
        ProbeKind::Http { port, path, host } => {
            v1::Probe { kind: "http".to_owned(), port: port.into(), path, host, ..times }
        }
        ProbeKind::Exec { name } => v1::Probe { kind: "exec".to_owned(), name, ..times },
        ProbeKind::Unknown(kind) => v1::Probe { kind, ..times },
    }
}

/// A probe that makes no sense refuses nothing but itself: policy must not wait for it.
fn probe_from_wire(wire: &v1::Probe) -> Probe {
    let port = u16::try_from(wire.port).ok().filter(|port| *port > 0);
    let kind = match (wire.kind.as_str(), port) {
        ("tcp", Some(port)) => ProbeKind::Tcp { port },
        ("http", Some(port)) => ProbeKind::Http { port, path: wire.path.clone(), host: wire.host.clone() },
        ("exec", _) => ProbeKind::Exec { name: wire.name.clone() },
        ("tcp" | "http", None) => ProbeKind::Unknown(format!("{} without a port", wire.kind)),
        (kind, _) => ProbeKind::Unknown(kind.to_owned()),
    };
    Probe {
        kind,
        period_s: wire.period_seconds,
        timeout_s: wire.timeout_seconds,
        successes: wire.success_threshold,
        failures: wire.failure_threshold,
    }
}

fn nic_to_wire(nic: &Nic) -> v1::Nic {
    let scope = match nic.scope {
        Scope::Mesh => v1::Scope::Unspecified,
        Scope::Host => v1::Scope::Host,
        Scope::All => v1::Scope::All,
    };
    let mode = match nic.mode {
        Mode::Enforce => v1::Mode::Enforce,
        Mode::Audit => v1::Mode::Audit,
    };
    v1::Nic { scope: scope.into(), mode: mode.into(), policy: Some(policy_to_wire(&nic.policy)) }
}

/// Whatever is not clearly to be enforced on a NIC is only reported there.
fn nic_from_wire(wire: &v1::Nic) -> Result<Nic, InvalidResource> {
    let named = |reason: &str| InvalidResource::new("settings", format!("nic: {reason}"));
    Ok(Nic {
        scope: match v1::Scope::try_from(wire.scope) {
            Ok(v1::Scope::Host) => Scope::Host,
            Ok(v1::Scope::All) => Scope::All,
            Ok(v1::Scope::Unspecified) | Err(_) => return Err(named(&format!("scope {}", wire.scope))),
        },
        mode: match v1::Mode::try_from(wire.mode) {
            Ok(v1::Mode::Enforce) => Mode::Enforce,
            Ok(v1::Mode::Audit | v1::Mode::Unspecified) | Err(_) => Mode::Audit,
        },
        policy: Arc::new(policy_from_wire(wire.policy.as_ref().ok_or_else(|| named("no policy"))?)?),
    })
}

/// Reads a node's settings; [`v1::Settings::gateways`] is left to the caller.
///
/// # Errors
/// [`InvalidResource`] naming the field: also for a role this build does not know, and for more than one address
/// of a family.
pub fn settings_from_wire(wire: &v1::Settings) -> Result<NodeSettings, InvalidResource> {
    let named = |reason: String| InvalidResource::new("settings", reason);
    let addresses = wire.addresses.iter().map(|a| address_from_wire(a)).collect::<Result<Vec<_>, _>>()?;
    let of_v4 = addresses.iter().filter(|address| address.is_ipv4()).count();
    if addresses.is_empty() || of_v4 > 1 || addresses.len() - of_v4 > 1 {
        return Err(named(format!("addresses {addresses:?}: at least one, and at most one of each family")));
    }
    Ok(NodeSettings {
        workload: wire.workload.clone(),
        identity: identity_from_wire(wire.identity)?,
        mark: identity_from_wire(wire.mark)?,
        addresses,
        prefixes: wire.prefixes.iter().map(prefix_from_wire).collect::<Result<_, _>>()?,
        role: match v1::Role::try_from(wire.role) {
            Ok(v1::Role::Host) => Role::Host,
            Ok(v1::Role::Transit) => Role::Transit,
            Ok(v1::Role::Node) => Role::Node,
            Ok(v1::Role::Unspecified) | Err(_) => return Err(named(format!("role {}", wire.role))),
        },
        mode: match v1::Mode::try_from(wire.mode) {
            Ok(v1::Mode::Audit) => Mode::Audit,
            Ok(v1::Mode::Enforce | v1::Mode::Unspecified) | Err(_) => Mode::Enforce,
        },
        tunnel_port: u16::try_from(wire.tunnel_port)
            .ok()
            .filter(|&port| port != 0)
            .ok_or_else(|| named(format!("tunnel port {}", wire.tunnel_port)))?,
        rejected: wire.rejected.clone(),
        nic: wire.nic.as_ref().map(nic_from_wire).transpose()?,
        partly_enforced: wire.partly_enforced.clone(),
        probes: wire.probes.iter().map(probe_from_wire).collect(),
    })
}
