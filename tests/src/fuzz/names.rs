//! The small texts that name something: each has one form, and nothing in it can pose as something else.

use std::fmt::{Debug, Display};
use std::net::IpAddr;
use std::str::FromStr;

use config::HostPort;
use gateway::config::Lasting;
use gateway::store::WorkloadName;
use ipnet::IpNet;
use pki::{KeyHash, SpiffeId, TrustDomain};
use policy::labels::Labels;
use proto::v1::{MonitorRequest, VerdictEvent};
use vm_agent::config::{DeviceName, MeshName, Mtu};
use vm_agent::monitor::Filter;

use super::choices::Choices;

/// Whatever the text: what is accepted as a name is of the letters that such names have, and its text form is read as
/// the same name again; a filter of the monitor lets pass what its prefix holds and nothing else.
///
/// # Panics
///
/// If that is not so.
pub fn names(data: &[u8]) {
    let mut choices = Choices::new(data);
    let kind = choices.byte() % 10;
    let Ok(text) = std::str::from_utf8(choices.rest()) else { return };
    match kind {
        0 => spiffe_id(text),
        1 => of_letters::<TrustDomain>(text, ".-_", 255),
        2 => of_letters::<WorkloadName>(text, "/.-", 63 + 1 + 253),
        3 => of_letters::<MeshName>(text, "-", 32),
        4 => device(text),
        5 => host_and_port(text),
        6 => labels(text),
        7 => numbers(text),
        8 => filter(text),
        _ => hash(text),
    }
}

/// A name that is its own text form, of lower-case letters, digits and a few others.
fn of_letters<T: FromStr + Display + PartialEq + Debug>(text: &str, others: &str, longest: usize) {
    let Ok(name) = text.parse::<T>() else { return };
    assert_eq!(name.to_string(), text);
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || others.contains(c);
    assert!(!text.is_empty() && text.len() <= longest && text.chars().all(fits), "{name:?}");
}

fn spiffe_id(text: &str) {
    let Ok(id) = text.parse::<SpiffeId>() else { return };
    assert_eq!(id.to_string(), text);
    let rest = text.strip_prefix("spiffe://").unwrap();
    let parts: Vec<&str> = rest.split('/').collect();
    let is_known = matches!(parts.as_slice(), [_, "ns", _, "ew", _] | [_, "gateway" | "admin", _]);
    let is_path = |part: &&str| part.is_empty() || part.starts_with('.') || part.ends_with('.');
    assert!(is_known && !parts.iter().any(is_path), "{text}");
    assert!(
        rest.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "/.-_".contains(c)),
        "{text}"
    );
}

fn device(text: &str) {
    let Ok(name) = text.parse::<DeviceName>() else { return };
    assert_eq!(name.to_string(), text);
    // `dev_valid_name` of the kernel.
    let fits = !text.is_empty() && text.len() < 16 && text != "." && text != "..";
    assert!(fits && !text.contains(['/', ':']) && !text.contains(char::is_whitespace), "{text:?}");
}

fn host_and_port(text: &str) {
    let Ok(at) = text.parse::<HostPort>() else { return };
    assert_eq!(at.as_str(), text);
    assert_eq!(at.to_string().parse::<HostPort>().as_ref(), Ok(&at));
    let (_, port) = text.rsplit_once(':').unwrap();
    assert!(port.parse::<u16>().is_ok_and(|port| port > 0));
    let host = at.host();
    let is_address = host.parse::<std::net::Ipv6Addr>().is_ok();
    assert_eq!(is_address, text.starts_with('['), "{text}");
    assert!(!host.is_empty() && !host.contains(['[', ']', '/', '@']), "{text}");
}

fn labels(text: &str) {
    let Ok(labels) = text.parse::<Labels>() else { return };
    assert_eq!(labels.to_string().parse::<Labels>().as_ref(), Ok(&labels), "{text:?}");
}

fn numbers(text: &str) {
    if let Ok(mtu) = text.parse::<Mtu>() {
        assert!((1280..=65_000).contains(&mtu.get()));
    }
    if let Ok(Lasting(time)) = text.parse::<Lasting>() {
        let again = format!("{}ns", time.as_nanos()).parse::<Lasting>();
        assert!(again.is_err() || again == Ok(Lasting(time)), "{text}: {time:?}, {again:?}");
    }
}

fn hash(text: &str) {
    let Ok(hash) = text.parse::<KeyHash>() else { return };
    assert_eq!(hash.to_string(), text.to_ascii_lowercase());
}

fn filter(text: &str) {
    let request = MonitorRequest { remote: text.to_owned(), ..MonitorRequest::default() };
    let Ok(filter) = Filter::try_from(request) else { return };
    let event = |source: &str| VerdictEvent {
        direction: "ingress".to_owned(),
        source: source.to_owned(),
        ..VerdictEvent::default()
    };
    let Ok(net) = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)) else {
        assert!(text.is_empty() && filter.matches(&event("10.0.0.1")), "{text}");
        return;
    };
    assert!(filter.matches(&event(&net.addr().to_string())), "{text}");
    let other = if net.addr() == IpAddr::from([203, 0, 113, 7]) { "203.0.113.8" } else { "203.0.113.7" };
    let is_held = net.contains(&other.parse::<IpAddr>().unwrap());
    assert_eq!(filter.matches(&event(other)), is_held, "{text}");
}
