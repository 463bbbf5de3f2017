//! `outrigger monitor`.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use proto::v1::{MonitorRequest, VerdictEvent};
use serde_json::{Value, json};

use crate::arguments::{Format, Monitor};
use crate::connection::Client;
use crate::failure::Failure;
use crate::output::{self, Colour};

/// Shows events until Ctrl-C, or until nobody reads them.
pub(crate) async fn run(mut client: Client, monitor: &Monitor, format: Format) -> Result<(), Failure> {
    let mut events = client.monitor(request(monitor)).await?.into_inner();
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);
    loop {
        let event = tokio::select! {
            event = events.message() => event?,
            _interrupted = &mut interrupted => return Ok(()),
        };
        let Some(event) = event else {
            return Err(Failure::Failed("the agent stopped".to_owned()));
        };
        match format {
            Format::Json => output::json_line(&as_json(&event))?,
            Format::Text => {
                if event.lost > 0 {
                    output::line(&format!("… {} events lost: this command was too slow", event.lost))?;
                }
                output::line(&as_text(&event, &TimeZone::system()))?;
            }
        }
    }
}

fn request(monitor: &Monitor) -> MonitorRequest {
    MonitorRequest {
        verdicts: monitor.verdict.iter().map(|verdict| verdict.name().to_owned()).collect(),
        direction: monitor.direction.map(|direction| direction.name().to_owned()).unwrap_or_default(),
        remote: monitor.remote.map(|remote| remote.0.to_string()).unwrap_or_default(),
        port: monitor.port.map(u32::from).unwrap_or_default(),
    }
}

fn as_json(event: &VerdictEvent) -> Value {
    json!({
        "time": Timestamp::from_nanosecond(event.time_ns.into()).unwrap_or_default().to_string(),
        "verdict": event.verdict,
        "reason": event.reason,
        "direction": event.direction,
        "protocol": event.protocol,
        "source": event.source,
        "sourcePort": event.source_port,
        "destination": event.destination,
        "destinationPort": event.destination_port,
        "remoteOwner": event.remote_owner,
        "remoteIdentity": event.remote_identity,
        "remoteLabels": event.remote_labels,
        "rule": event.rule,
        "tunnel": event.tunnel,
        "vni": event.vni,
        "length": event.length,
        "suppressed": event.suppressed,
        "lost": event.lost,
    })
}

fn as_text(event: &VerdictEvent, zone: &TimeZone) -> String {
    let time = Timestamp::from_nanosecond(event.time_ns.into()).unwrap_or_default().to_zoned(zone.clone());
    let colour = match event.verdict.as_str() {
        "allowed" => Colour::Green,
        "audited" => Colour::Yellow,
        _ => Colour::Red,
    };
    let verdict = output::colour(&format!("{:<7}", event.verdict), colour);
    let remote = match (event.remote_owner.as_str(), event.remote_identity) {
        ("", 0) => "unknown".to_owned(),
        ("", identity) => format!("identity {identity}"),
        (owner, identity) => format!("{owner}, identity {identity}"),
    };
    // The remote is the source of what comes in, and the destination of what goes out.
    let (source, destination) =
        (end(&event.source, event.source_port), end(&event.destination, event.destination_port));
    let (source, destination) = if event.direction == "egress" {
        (source, format!("{destination} ({remote})"))
    } else {
        (format!("{source} ({remote})"), destination)
    };
    let by = if event.rule.is_empty() { String::new() } else { format!(" by {}", event.rule) };
    let suppressed = match event.suppressed {
        0 => String::new(),
        count => format!(" (and {count} like it)"),
    };
    let (direction, protocol, reason) = (&event.direction, &event.protocol, &event.reason);
    format!(
        "{} {verdict} {direction:<7} {protocol} {source} → {destination}: {reason}{by}{suppressed}",
        time.strftime("%H:%M:%S%.3f")
    )
}

fn end(address: &str, port: u32) -> String {
    match (port, address.contains(':')) {
        (0, _) => address.to_owned(),
        (port, true) => format!("[{address}]:{port}"),
        (port, false) => format!("{address}:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> VerdictEvent {
        VerdictEvent {
            time_ns: 1_700_000_000_123_000_000,
            verdict: "dropped".to_owned(),
            reason: "policy_denied".to_owned(),
            direction: "ingress".to_owned(),
            protocol: "tcp".to_owned(),
            source: "fd00::7".to_owned(),
            source_port: 40000,
            destination: "fd00::1".to_owned(),
            destination_port: 5432,
            remote_owner: "shop/api".to_owned(),
            remote_identity: 300,
            rule: "default-deny ingress (NetworkPolicy/shop/db)".to_owned(),
            suppressed: 4,
            ..VerdictEvent::default()
        }
    }

    #[test]
    fn a_line_names_remote_and_policy() {
        let line = as_text(&event(), &TimeZone::UTC);
        assert!(line.starts_with("22:13:20.123 dropped"), "{line}");
        assert!(line.contains("[fd00::7]:40000 (shop/api, identity 300) → [fd00::1]:5432"), "{line}");
        assert!(line.contains("policy_denied by default-deny ingress (NetworkPolicy/shop/db)"), "{line}");
        assert!(line.ends_with("(and 4 like it)"), "{line}");
    }

    #[test]
    fn the_remote_of_egress_is_the_destination() {
        let line = as_text(&VerdictEvent { direction: "egress".to_owned(), ..event() }, &TimeZone::UTC);
        assert!(line.contains("→ [fd00::1]:5432 (shop/api, identity 300)"), "{line}");
    }
}
