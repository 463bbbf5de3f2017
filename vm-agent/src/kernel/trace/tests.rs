use std::collections::BTreeSet;
use std::sync::Arc;

use datapath::abi::Bank;
use policy::identity::Identity;
use policy::pages::Pages;
use policy::state::{
    Block, Default as DefaultVerdict, DirectionPolicy, Endpoint, EndpointKind, Mode, NodeSettings, NodeState,
    Peers, Policy, PortRange, Ports, Reach, Role, Rule, RuleAction,
};

use super::*;
use crate::kernel::lower::{Lowered, lower};

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;

/// A host that lets identity 300 in to TCP 8000–8080, and lets out to 10.244.2.0/24 only.
fn lowered() -> Lowered {
    let identity = |number| Identity::try_new(number).unwrap();
    let rule = |origin: &str, identities: &[u32], blocks: &[&str], ports: Ports| Rule {
        origin: origin.into(),
        peers: Peers::Only {
            identities: Arc::new(identities.iter().map(|number| identity(*number)).collect()),
            blocks: blocks
                .iter()
                .map(|cidr| Block { cidr: cidr.parse().unwrap(), except: Vec::new(), reach: Reach::Everyone })
                .collect(),
        },
        ports,
        action: RuleAction::Allow,
        precedence: policy::rules::precedence::NETWORK_POLICY,
    };
    let web = Ports::Only(vec![PortRange { protocol: TCP, first: 8000, last: 8080 }]);
    let by = vec!["NetworkPolicy/shop/db".to_owned()];
    let direction =
        |rule| DirectionPolicy { default: DefaultVerdict::Deny { by: by.clone() }, rules: vec![rule] };
    let endpoint = |number, kind| {
        let tunnels = Arc::new(vec!["192.0.2.9".parse().unwrap()]);
        let identity = identity(number);
        Endpoint { identity, previous: None, mark: identity, tunnels, kind, owner: None }
    };
    let pod = |number| endpoint(number, EndpointKind::Pod { behind: Arc::new(BTreeSet::new()) });
    let state = NodeState {
        endpoints: Pages::from_iter([
            ("10.244.240.1".parse().unwrap(), endpoint(4000, EndpointKind::Workload)),
            ("10.244.1.5".parse().unwrap(), pod(300)),
            ("10.244.2.5".parse().unwrap(), pod(301)),
            ("fd00::5".parse().unwrap(), pod(300)),
        ]),
        identities: Pages::new(),
        policy: Arc::new(Policy {
            ingress: direction(rule("NetworkPolicy/shop/db#ingress[0]", &[300], &[], web)),
            egress: direction(rule("NetworkPolicy/shop/db#egress[0]", &[], &["10.244.2.0/24"], Ports::Any)),
        }),
        settings: NodeSettings {
            workload: "shop/db".to_owned(),
            identity: identity(4000),
            mark: identity(4000),
            addresses: vec!["10.244.240.1".parse().unwrap(), "fd00::1".parse().unwrap()],
            prefixes: Vec::new(),
            role: Role::Host,
            mode: Mode::Enforce,
            tunnel_port: 8479,
            rejected: Vec::new(),
            nic: None,
            partly_enforced: Vec::new(),
            probes: Vec::new(),
        },
    };
    lower(&state, &[], 1450)
}

fn ask(direction: Direction, remote: &str, protocol: u8, destination_port: u16) -> (Reason, Option<String>) {
    let Lowered { contents, rules, .. } = lowered();
    let query = TraceQuery {
        direction,
        remote: remote.parse().unwrap(),
        protocol,
        source_port: 40_000,
        destination_port,
        nic: false,
    };
    let trace = decide(&Dump::of(contents), Control::new(Bank::A, 0, 1), &query);
    (trace.reason, rules.get(&trace.rule).map(ToString::to_string))
}

#[test]
fn ingress_is_decided_by_identity_and_port() {
    let rule = Some("NetworkPolicy/shop/db#ingress[0]".to_owned());
    assert_eq!(ask(Direction::Ingress, "10.244.1.5", TCP, 8080), (Reason::NewAllowed, rule.clone()));
    assert_eq!(ask(Direction::Ingress, "fd00::5", TCP, 8000), (Reason::NewAllowed, rule));
    assert_eq!(ask(Direction::Ingress, "10.244.1.5", TCP, 8081).0, Reason::PolicyDenied);
    assert_eq!(ask(Direction::Ingress, "10.244.1.5", UDP, 8080).0, Reason::PolicyDenied);
    assert_eq!(ask(Direction::Ingress, "10.244.2.5", TCP, 8080).0, Reason::PolicyDenied);
}

#[test]
fn a_denial_names_the_policy_that_closed_the_direction() {
    let (_, name) = ask(Direction::Ingress, "10.244.2.5", TCP, 8080);
    assert!(name.as_ref().is_some_and(|name| name.contains("NetworkPolicy/shop/db")), "{name:?}");
}

#[test]
fn egress_is_decided_by_address() {
    let rule = Some("NetworkPolicy/shop/db#egress[0]".to_owned());
    assert_eq!(ask(Direction::Egress, "10.244.2.5", ICMP, default_port(ICMP)), (Reason::NewAllowed, rule));
    assert_eq!(ask(Direction::Egress, "10.244.1.5", TCP, 80).0, Reason::PolicyDenied);
}

#[test]
fn who_is_unknown_is_said_to_be() {
    assert_eq!(ask(Direction::Ingress, "10.244.7.7", TCP, 80).0, Reason::UnknownSource);
    assert_eq!(ask(Direction::Egress, "10.244.7.7", TCP, 80).0, Reason::UnknownDestination);
}
