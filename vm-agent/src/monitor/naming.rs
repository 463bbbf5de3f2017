//! From an event's numbers to names: pure.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use datapath::abi::{Event, EventKind};
use datapath::{Address, Direction, Reason};
use policy::identity::Identity;
use policy::state::NodeState;
use proto::v1::VerdictEvent;

/// ICMP of both families: their events carry type and code where others have ports.
const WITHOUT_PORTS: [u8; 2] = [1, 58];

/// Names an event by the state that the kernel runs and the names of its rules. What has no name keeps its number.
/// `clock_offset` leads from the event's clock to the Unix epoch, in nanoseconds.
#[must_use]
pub fn name(
    event: &Event,
    state: Option<&NodeState>,
    rules: &BTreeMap<u32, Arc<str>>,
    clock_offset: i64,
) -> VerdictEvent {
    let (source, destination) = (IpAddr::from(event.source), IpAddr::from(event.destination));
    let remote = match Direction::from_u8(event.direction) {
        Some(Direction::Ingress) => source,
        Some(Direction::Egress) | None => destination,
    };
    let endpoint = state.and_then(|state| state.endpoints.get(&remote));
    let labels = Identity::try_new(event.identity).ok().and_then(|identity| state?.identities.get(&identity));
    let port = |port: datapath::Port| {
        if WITHOUT_PORTS.contains(&event.protocol) { 0 } else { u32::from(port.get()) }
    };
    let outer = Some(event.outer).filter(|outer| *outer != Address::NONE);
    VerdictEvent {
        time_ns: i64::try_from(event.time_ns).unwrap_or(i64::MAX).saturating_add(clock_offset),
        verdict: verdict(event.kind),
        reason: Reason::from_u8(event.reason)
            .map_or_else(|| format!("reason {}", event.reason), |r| r.name().to_owned()),
        direction: direction(event.direction),
        protocol: protocol_name(event.protocol),
        source: source.to_string(),
        source_port: port(event.source_port),
        destination: destination.to_string(),
        destination_port: port(event.destination_port),
        remote_owner: endpoint.and_then(|endpoint| endpoint.owner.as_deref()).unwrap_or_default().to_owned(),
        remote_identity: event.identity,
        remote_labels: labels.map(ToString::to_string).unwrap_or_default(),
        rule: rule(event.rule, rules),
        tunnel: outer.map(|outer| IpAddr::from(outer).to_string()).unwrap_or_default(),
        vni: event.vni,
        length: event.length,
        suppressed: event.suppressed.into(),
        lost: 0,
    }
}

fn verdict(kind: u8) -> String {
    match EventKind::from_u8(kind) {
        Some(EventKind::Allowed) => "allowed".to_owned(),
        Some(EventKind::Dropped) => "dropped".to_owned(),
        Some(EventKind::Audited) => "audited".to_owned(),
        Some(EventKind::Cut) => "cut".to_owned(),
        None => format!("kind {kind}"),
    }
}

fn direction(number: u8) -> String {
    match Direction::from_u8(number) {
        Some(Direction::Ingress) => "ingress".to_owned(),
        Some(Direction::Egress) => "egress".to_owned(),
        None => format!("direction {number}"),
    }
}

fn rule(id: u32, rules: &BTreeMap<u32, Arc<str>>) -> String {
    match rules.get(&id) {
        Some(origin) => origin.to_string(),
        None if id == 0 => String::new(),
        None => format!("rule {id}"),
    }
}

/// The name of an IP protocol, or its number as text.
#[must_use]
pub fn protocol_name(number: u8) -> String {
    match number {
        1 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        58 => "icmpv6".to_owned(),
        132 => "sctp".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use datapath::Port;
    use policy::state::{Endpoint, EndpointKind, Mode, NodeSettings, Policy, Role};

    use super::*;

    fn state() -> NodeState {
        let identity = Identity::try_new(300).unwrap();
        let endpoint = Endpoint {
            identity,
            previous: None,
            mark: identity,
            tunnels: Arc::new(Vec::new()),
            kind: EndpointKind::Workload,
            owner: Some("shop/api".into()),
        };
        NodeState {
            endpoints: [("10.0.0.7".parse().unwrap(), endpoint)].into_iter().collect(),
            identities: [(identity, Arc::from("k8s:app=api;"))].into_iter().collect(),
            policy: Arc::new(Policy::unrestricted()),
            settings: NodeSettings {
                workload: "shop/db".to_owned(),
                identity,
                mark: identity,
                addresses: Vec::new(),
                prefixes: Vec::new(),
                role: Role::Host,
                mode: Mode::Enforce,
                tunnel_port: 8479,
                rejected: Vec::new(),
                nic: None,
                partly_enforced: Vec::new(),
                probes: Vec::new(),
            },
        }
    }

    fn event() -> Event {
        Event {
            time_ns: 5,
            kind: EventKind::Dropped.number(),
            reason: Reason::PolicyDenied.number(),
            direction: Direction::Ingress.number(),
            protocol: 6,
            rule: 9,
            identity: 300,
            source: Address::from_v4([10, 0, 0, 7]),
            destination: Address::from_v4([10, 0, 0, 1]),
            outer: Address::from_v4([192, 0, 2, 7]),
            source_port: Port::new(40000),
            destination_port: Port::new(5432),
            ..Event::default()
        }
    }

    fn rules() -> BTreeMap<u32, Arc<str>> {
        BTreeMap::from([(9, "default-deny ingress (NetworkPolicy/shop/db)".into())])
    }

    #[test]
    fn numbers_become_names() {
        let named = name(&event(), Some(&state()), &rules(), 100);
        assert_eq!((named.verdict.as_str(), named.reason.as_str()), ("dropped", "policy_denied"));
        assert_eq!((named.remote_owner.as_str(), named.remote_labels.as_str()), ("shop/api", "k8s:app=api;"));
        assert_eq!(named.rule, "default-deny ingress (NetworkPolicy/shop/db)");
        assert_eq!((named.source.as_str(), named.source_port), ("10.0.0.7", 40000));
        assert_eq!((named.tunnel.as_str(), named.time_ns), ("192.0.2.7", 105));
    }

    #[test]
    fn the_remote_of_egress_is_the_destination() {
        let swapped = Event {
            direction: Direction::Egress.number(),
            source: event().destination,
            destination: event().source,
            outer: Address::NONE,
            ..event()
        };
        let named = name(&swapped, Some(&state()), &rules(), 0);
        assert_eq!((named.direction.as_str(), named.remote_owner.as_str()), ("egress", "shop/api"));
        assert_eq!(named.tunnel, "");
    }

    #[test]
    fn what_has_no_name_keeps_its_number() {
        let unknown = Event { kind: 200, reason: 250, rule: 77, protocol: 89, ..event() };
        let named = name(&unknown, None, &rules(), 0);
        assert_eq!((named.verdict.as_str(), named.reason.as_str()), ("kind 200", "reason 250"));
        assert_eq!((named.rule.as_str(), named.protocol.as_str()), ("rule 77", "89"));
        assert_eq!(name(&Event { rule: 0, ..event() }, None, &rules(), 0).rule, "");
    }

    #[test]
    fn icmp_has_no_ports() {
        let named = name(&Event { protocol: 58, ..event() }, Some(&state()), &rules(), 0);
        assert_eq!((named.source_port, named.destination_port), (0, 0));
    }
}
