//! Compiled policies of any shape.

use std::net::IpAddr;
use std::sync::Arc;

use datapath::Direction;
use ipnet::IpNet;
use policy::evaluate::Flow;
use policy::identity::Identity;
use policy::rules::precedence;
use policy::state::{
    Block, Default, DirectionPolicy, Peers, Policy, PortRange, Ports, Reach, Rule, RuleAction,
};

use super::choices::Choices;

/// The numbers of identities that rules name; flows also have others.
pub(super) const IDENTITIES: [u32; 4] = [300, 301, 302, 6];
const CIDRS: [&str; 18] = [
    "0.0.0.0/0",
    "0.0.0.0/1",
    "10.0.0.0/8",
    "10.1.0.0/16",
    "10.1.2.0/24",
    "10.1.2.3/32",
    "10.1.2.2/31",
    "10.1.2.128/25",
    "255.255.255.255/32",
    "::/0",
    "::/64",
    "::fffe:0:0/95",
    "::ffff:0:0/96",
    "::ffff:10.1.0.0/112",
    "2001:db8::/32",
    "2001:db8::/64",
    "2001:db8::1/128",
    "8000::/1",
];
const ADDRESSES: [&str; 12] = [
    "10.1.2.3",
    "10.1.2.2",
    "10.1.2.9",
    "10.1.2.200",
    "10.1.9.9",
    "10.9.9.9",
    "255.255.255.255",
    "0.0.0.0",
    "::1",
    "2001:db8::1",
    "2001:db8:0:1::1",
    "ffff::1",
];
const PORTS: [u16; 16] = [0, 1, 2, 3, 53, 79, 80, 81, 1023, 1024, 8080, 32767, 32768, 49152, 65534, 65535];
pub(super) const PROTOCOLS: [u8; 6] = [6, 17, 132, 1, 58, 255];

pub(super) fn identity(number: u32) -> Identity {
    Identity::try_new(number).unwrap()
}

pub(super) fn port(choices: &mut Choices<'_>) -> u16 {
    if choices.seldom(4) { u16::from_be_bytes(choices.bytes()) } else { choices.one_of(&PORTS) }
}

fn range(choices: &mut Choices<'_>) -> PortRange {
    PortRange { protocol: choices.one_of(&PROTOCOLS), first: port(choices), last: port(choices) }
}

fn block(choices: &mut Choices<'_>, cidrs: &[&str]) -> Block {
    let mut cidr = |choices: &mut Choices<'_>| -> IpNet { choices.one_of(cidrs).parse().unwrap() };
    let reach = if choices.flag() { Reach::Everyone } else { Reach::Outside };
    Block { cidr: cidr(choices), except: choices.list(3, &mut cidr), reach }
}

fn rule(choices: &mut Choices<'_>, cidrs: &[&str]) -> Rule {
    let peers = if choices.seldom(4) {
        Peers::Any
    } else {
        let identities = choices.list(3, |choices| identity(choices.one_of(&IDENTITIES)));
        let blocks = choices.list(2, |choices| block(choices, cidrs));
        Peers::Only { identities: Arc::new(identities.into_iter().collect()), blocks }
    };
    let ports = if choices.seldom(4) { Ports::Any } else { Ports::Only(choices.list(4, range)) };
    let precedence = choices.one_of(&[
        precedence::BASELINE + 1,
        precedence::NETWORK_POLICY,
        precedence::NETWORK_POLICY,
        precedence::ADMIN,
        precedence::ADMIN + 1,
        precedence::HIGHEST,
    ]);
    let action = if precedence >= precedence::ADMIN && choices.seldom(3) {
        RuleAction::Pass
    } else if choices.flag() {
        RuleAction::Deny
    } else {
        RuleAction::Allow
    };
    Rule {
        origin: Arc::from(choices.one_of(&["r0", "r1", "r2", "r3", "r4", "default-allow egress"])),
        peers,
        ports,
        action,
        precedence,
    }
}

fn direction(choices: &mut Choices<'_>, cidrs: &[&str]) -> DirectionPolicy {
    let default = if choices.flag() {
        Default::Allow
    } else {
        Default::Deny { by: vec!["NetworkPolicy/fuzz/only".to_owned()] }
    };
    DirectionPolicy { default, rules: choices.list(5, |choices| rule(choices, cidrs)) }
}

/// A policy whose blocks are among these.
pub(super) fn policy_with(choices: &mut Choices<'_>, cidrs: &[&str]) -> Policy {
    Policy { ingress: direction(choices, cidrs), egress: direction(choices, cidrs) }
}

pub(super) fn policy(choices: &mut Choices<'_>) -> Policy {
    policy_with(choices, &CIDRS)
}

/// A flow that the policies of this file may be about.
pub(super) fn flow(choices: &mut Choices<'_>) -> Flow {
    let remote: IpAddr = if choices.seldom(4) {
        IpAddr::from(choices.bytes::<4>())
    } else {
        choices.one_of(&ADDRESSES).parse().unwrap()
    };
    Flow {
        direction: if choices.flag() { Direction::Egress } else { Direction::Ingress },
        identity: Some(choices.one_of(&[300, 301, 302, 6, 299, 0])).filter(|id| *id != 0).map(identity),
        remote,
        // 255 stands for every protocol in the map, and is on no wire.
        protocol: choices.one_of(&PROTOCOLS[..5]),
        port: port(choices),
    }
}
