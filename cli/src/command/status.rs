//! `outrigger status`.

use jiff::Timestamp;
use proto::v1::{AgentStatus, AgentStatusRequest, Counter, NicStatus, ProbeStatus};
use serde_json::{Value, json};

use crate::arguments::Format;
use crate::connection::Client;
use crate::failure::Failure;
use crate::output::{self, Colour};

/// Shows the status; a host that has not joined ends with its own exit code.
pub(crate) async fn run(mut client: Client, format: Format) -> Result<(), Failure> {
    let status = client.status(AgentStatusRequest {}).await?.into_inner();
    match format {
        Format::Json => output::json(&as_json(&status))?,
        Format::Text => {
            for (name, value) in rows(&status, Timestamp::now()) {
                output::line(format!("{name:<14} {value}").trim_end())?;
            }
        }
    }
    if status.phase == "unjoined" {
        let why = match status.last_error.as_str() {
            "" => "run `outrigger join`",
            // It joins by itself.
            error => error,
        };
        return Err(Failure::NotJoined(format!("this host has not joined a mesh: {why}")));
    }
    Ok(())
}

fn as_json(status: &AgentStatus) -> Value {
    let counter = |counter: &Counter| {
        json!({
            "direction": counter.direction,
            "reason": counter.reason,
            "packets": counter.packets,
            "bytes": counter.bytes,
        })
    };
    json!({
        "version": status.version,
        "phase": status.phase,
        "role": status.role,
        "mode": status.mode,
        "workload": status.workload,
        "identity": status.identity,
        "labels": status.labels,
        "meshAddresses": status.mesh_addresses,
        "connected": status.connected,
        "gateway": status.gateway,
        "lastError": status.last_error,
        "generation": status.generation,
        "epoch": status.epoch,
        "stateSource": status.state_source,
        "certificateExpires": status.certificate_expires,
        "device": status.device,
        "mtu": status.mtu,
        "guardedDevices": status.guarded_devices,
        "ingressDefaultDeny": status.ingress_default_deny,
        "egressDefaultDeny": status.egress_default_deny,
        "policies": status.policies,
        "rejected": status.rejected,
        "endpoints": status.endpoints,
        "mapMemoryBytes": status.map_memory_bytes,
        "counters": status.counters.iter().map(counter).collect::<Vec<_>>(),
        "warnings": status.warnings,
        "partlyEnforced": status.partly_enforced,
        "nic": status.nic.as_ref().map(nic_as_json),
        "probes": status.probes.iter().map(probe_as_json).collect::<Vec<_>>(),
    })
}

fn probe_as_json(probe: &ProbeStatus) -> Value {
    json!({ "probe": probe.probe, "state": probe.state, "message": probe.message })
}

fn probe(probe: &ProbeStatus) -> String {
    let ProbeStatus { probe, state, message } = probe;
    if message.is_empty() { format!("{probe}: {state}") } else { format!("{probe}: {state}; {message}") }
}

fn nic_as_json(nic: &NicStatus) -> Value {
    json!({
        "scope": nic.scope,
        "state": nic.state,
        "message": nic.message,
        "devices": nic.devices,
        "open": nic.open,
        "auditUntil": nic.audit_until,
        "policies": nic.policies,
        "reverted": nic.reverted,
    })
}

fn nic(nic: &NicStatus) -> String {
    let mut text = format!("scope {}: {} on {}", nic.scope, nic.state, nic.devices.join(", "));
    if !nic.message.is_empty() {
        text = format!("{text}; {}", nic.message);
    }
    if let Some(until) = i64::try_from(nic.audit_until).ok().filter(|until| *until > 0)
        && let Ok(until) = Timestamp::from_second(until)
    {
        text = format!("{text}, until {until}");
    }
    text
}

fn phase(phase: &str) -> String {
    let colour = match phase {
        "enforcing" => Colour::Green,
        "failed" | "duplicate" => Colour::Red,
        _ => Colour::Yellow,
    };
    output::colour(phase, colour)
}

fn rows(status: &AgentStatus, now: Timestamp) -> Vec<(&'static str, String)> {
    let mut rows = vec![("phase", phase(&status.phase))];
    if !status.workload.is_empty() {
        rows.push(("workload", status.workload.clone()));
        rows.push(("role", status.role.clone()));
        rows.push(("mode", status.mode.clone()));
        rows.push(("identity", status.identity.to_string()));
        rows.push(("labels", output::labels(&status.labels)));
        rows.push(("addresses", status.mesh_addresses.join(", ")));
        rows.push(("gateway", gateway(status)));
        rows.push(("certificate", expiry(status.certificate_expires, now)));
        rows.push((
            "state",
            format!(
                "generation {}, epoch {}, from the {}",
                status.generation, status.epoch, status.state_source
            ),
        ));
        rows.push(("device", device(status)));
        rows.push(("guarded", status.guarded_devices.join(", ")));
        rows.push(("endpoints", status.endpoints.to_string()));
        rows.push(("ingress", direction(status.ingress_default_deny)));
        rows.push(("egress", direction(status.egress_default_deny)));
    }
    rows.retain(|(_, value)| !value.is_empty());
    if !status.last_error.is_empty() {
        rows.push(("last error", status.last_error.clone()));
    }
    list(&mut rows, "policies", &status.policies);
    if let Some(governed) = status.nic.as_ref().filter(|nic| nic.state != "off") {
        rows.push(("NICs", nic(governed)));
        list(&mut rows, "NIC policies", &governed.policies);
        list(&mut rows, "never closed", &governed.open);
    }
    list(&mut rows, "probes", &status.probes.iter().map(probe).collect::<Vec<_>>());
    list(&mut rows, "rejected", &status.rejected);
    list(&mut rows, "not enforced", &status.partly_enforced);
    let counter = |counter: &Counter| {
        format!(
            "{:<8} {:<20} {:>10} packets {:>12} bytes",
            counter.direction, counter.reason, counter.packets, counter.bytes
        )
    };
    list(&mut rows, "packets", &status.counters.iter().map(counter).collect::<Vec<_>>());
    list(&mut rows, "warnings", &status.warnings);
    rows.push(("agent", status.version.clone()));
    rows
}

/// The name on the first line, the items one below the other.
fn list(rows: &mut Vec<(&'static str, String)>, name: &'static str, items: &[String]) {
    let names = std::iter::once(name).chain(std::iter::repeat(""));
    rows.extend(names.zip(items.iter().cloned()));
}

fn gateway(status: &AgentStatus) -> String {
    let state =
        if status.connected { "connected" } else { "not connected; the last good state stays enforced" };
    format!("{} ({state})", status.gateway)
}

fn device(status: &AgentStatus) -> String {
    if status.device.is_empty() {
        "none".to_owned()
    } else {
        format!("{}, MTU {}", status.device, status.mtu)
    }
}

fn direction(default_deny: bool) -> String {
    if default_deny { "default-deny".to_owned() } else { "open, no policy selects it".to_owned() }
}

fn expiry(seconds: i64, now: Timestamp) -> String {
    let Ok(at) = Timestamp::from_second(seconds) else { return "none".to_owned() };
    if seconds == 0 {
        return "none".to_owned();
    }
    let left = at.as_second() - now.as_second();
    let (word, left) = if left < 0 { ("expired", -left) } else { ("expires", left) };
    let distance = if left >= 7200 { format!("{} h", left / 3600) } else { format!("{} min", left / 60) };
    if word == "expired" { format!("{at} (expired {distance} ago)") } else { format!("{at} (in {distance})") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unjoined_host_shows_little() {
        let status = AgentStatus {
            phase: "unjoined".to_owned(),
            version: "0.1.0".to_owned(),
            ..AgentStatus::default()
        };
        let names: Vec<_> = rows(&status, Timestamp::UNIX_EPOCH).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["phase", "agent"]);
    }

    #[test]
    fn expiry_is_told_as_a_distance() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        assert!(expiry(1_000_000 + 5 * 3600, now).ends_with("(in 5 h)"));
        assert!(expiry(1_000_000 - 600, now).ends_with("(expired 10 min ago)"));
        assert_eq!(expiry(0, now), "none");
    }

    #[test]
    fn a_lost_gateway_is_told_together_with_what_still_holds() {
        let status = AgentStatus { gateway: "gw:7443".to_owned(), ..AgentStatus::default() };
        assert!(gateway(&status).contains("stays enforced"));
    }
}
