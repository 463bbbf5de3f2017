//! The specification of what a compiled policy means: slow and obvious. What [`crate::lower()`] makes of a policy must
//! decide every flow as this does.

use std::net::IpAddr;

use datapath::Direction;

use crate::identity::Identity;
use crate::state::{Default, DirectionPolicy, Peers, Policy, Ports, Rule, RuleAction};

/// What policy looks at: a flow, as its opener opens it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Whether it is opened toward the workload or by it.
    pub direction: Direction,
    /// The identity of the other end; `None` when no endpoint has its address.
    pub identity: Option<Identity>,
    /// The address of the other end.
    pub remote: IpAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// The destination port of the opener; 0 for protocols without ports.
    pub port: u16,
}

/// What a policy says about a flow, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict<'a> {
    /// What happens to it.
    pub action: RuleAction,
    /// What decided.
    pub reason: Reason<'a>,
}

/// What decided about a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason<'a> {
    /// A rule; of several equal ones the first.
    Rule(&'a Rule),
    /// No rule matched.
    Default(&'a Default),
}

/// Decides about a flow: of all rules that match, the highest precedence, deny before allow; else the default.
#[must_use]
pub fn evaluate<'a>(policy: &'a Policy, flow: &Flow) -> Verdict<'a> {
    let DirectionPolicy { default, rules } = policy.direction(flow.direction);
    let mut decisive: Option<&Rule> = None;
    for rule in rules.iter().filter(|rule| matches(rule, flow)) {
        if decisive.is_none_or(|best| (rule.precedence, rule.action) > (best.precedence, best.action)) {
            decisive = Some(rule);
        }
    }
    match decisive {
        Some(rule) => Verdict { action: rule.action, reason: Reason::Rule(rule) },
        None => Verdict { action: default.action(), reason: Reason::Default(default) },
    }
}

/// Whether the rule is about the flow.
#[must_use]
pub fn matches(rule: &Rule, flow: &Flow) -> bool {
    matches_peer(&rule.peers, flow) && matches_port(&rule.ports, flow)
}

/// Whether the other end is one of the peers.
#[must_use]
pub fn matches_peer(peers: &Peers, flow: &Flow) -> bool {
    match peers {
        Peers::Any => true,
        Peers::Only { identities, blocks } => {
            flow.identity.is_some_and(|identity| identities.contains(&identity))
                || blocks.iter().any(|block| block.contains(flow.remote))
        }
    }
}

/// Whether protocol and port are among these.
#[must_use]
pub fn matches_port(ports: &Ports, flow: &Flow) -> bool {
    match ports {
        Ports::Any => true,
        Ports::Only(ranges) => ranges
            .iter()
            .any(|range| range.protocol == flow.protocol && (range.first..=range.last).contains(&flow.port)),
    }
}

impl Default {
    /// What it says.
    #[must_use]
    pub const fn action(&self) -> RuleAction {
        match self {
            Self::Allow => RuleAction::Allow,
            Self::Deny { .. } => RuleAction::Deny,
        }
    }
}
