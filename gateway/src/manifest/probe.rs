//! Probes, as groups and workloads say them: what their definitions refuse is refused here too.

use policy::state::{Probe, ProbeKind};
use serde::Deserialize;

use super::decode::InvalidField;
use super::fields;
use super::node::Node;
use super::port::check_number;

/// More of them than anybody needs.
const MOST: usize = 8;
const LONGEST_PATH: usize = 1024;
const LONGEST_HOST: usize = 253;
const LONGEST_NAME: usize = 63;

/// A probe, as it is written.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Wire {
    tcp: Option<Tcp>,
    http: Option<Http>,
    exec: Option<Exec>,
    #[serde(default)]
    period_seconds: Option<u32>,
    #[serde(default)]
    timeout_seconds: Option<u32>,
    #[serde(default)]
    success_threshold: Option<u32>,
    #[serde(default)]
    failure_threshold: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tcp {
    port: u16,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Http {
    port: u16,
    path: Option<String>,
    host: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Exec {
    name: String,
}

/// The probes of a spec.
///
/// # Errors
/// [`InvalidField`] of `probes` in the node.
pub(super) fn probes(spec: &Node, wires: &[Wire]) -> Result<Vec<Probe>, InvalidField> {
    if wires.len() > MOST {
        let message = format!("{} probes: at most {MOST}", wires.len());
        return Err(InvalidField::new(spec.get("probes").unwrap_or(spec), "probes", message));
    }
    let mut probes = Vec::new();
    fields::each(spec, "probes", |index, item| {
        probes.extend(wires.get(index).map(|wire| probe(item, wire)).transpose()?);
        Ok(())
    })?;
    Ok(probes)
}

fn probe(node: &Node, wire: &Wire) -> Result<Probe, InvalidField> {
    let Wire { tcp, http, exec, period_seconds, timeout_seconds, success_threshold, failure_threshold } =
        wire;
    let kind = match (tcp, http, exec) {
        (Some(Tcp { port }), None, None) => {
            check_number(node.get("tcp").unwrap_or(node), "port", *port)?;
            ProbeKind::Tcp { port: *port }
        }
        (None, Some(http), None) => http_kind(node.get("http").unwrap_or(node), http)?,
        (None, None, Some(Exec { name })) => {
            let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
            let is_name = name.len() <= LONGEST_NAME
                && ends(name.chars().next())
                && ends(name.chars().next_back())
                && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
            if !is_name {
                let message = format!("{name:?} is no name of a file: letters, digits, '-', '_' and '.'");
                return Err(InvalidField::new(node, "exec", message));
            }
            ProbeKind::Exec { name: name.clone() }
        }
        _ => return Err(InvalidField::new(node, "", "a probe is one of tcp, http and exec")),
    };
    let within = |field: &str, value: Option<u32>, default: u32, most: u32| {
        let value = value.unwrap_or(default);
        if (1..=most).contains(&value) {
            return Ok(value);
        }
        Err(InvalidField::new(node.get(field).unwrap_or(node), field, format!("{value} is not 1 to {most}")))
    };
    let probe = Probe {
        kind,
        period_s: within("periodSeconds", *period_seconds, 10, 3600)?,
        timeout_s: within("timeoutSeconds", *timeout_seconds, 1, 60)?,
        successes: within("successThreshold", *success_threshold, 1, 100)?,
        failures: within("failureThreshold", *failure_threshold, 3, 100)?,
    };
    if probe.timeout_s > probe.period_s {
        return Err(InvalidField::new(node, "timeoutSeconds", "is at most periodSeconds"));
    }
    Ok(probe)
}

fn http_kind(node: &Node, http: &Http) -> Result<ProbeKind, InvalidField> {
    let Http { port, path, host } = http;
    check_number(node, "port", *port)?;
    let path = path.clone().unwrap_or_else(|| "/".to_owned());
    let host = host.clone().unwrap_or_default();
    // Both are written into a request as they are.
    if !path.starts_with('/') || path.len() > LONGEST_PATH || !path.bytes().all(|c| c.is_ascii_graphic()) {
        let message = format!("{path:?} is no path: `/`, and visible ASCII characters");
        return Err(InvalidField::new(node, "path", message));
    }
    let is_host = |c: u8| c.is_ascii_alphanumeric() || b"._:-".contains(&c);
    if host.len() > LONGEST_HOST || !host.bytes().all(is_host) {
        return Err(InvalidField::new(node, "host", format!("{host:?} is no name of a host")));
    }
    Ok(ProbeKind::Http { port: *port, path, host })
}
