//! The specification of what a compiled policy means: slow and obvious. What [`crate::lower()`] makes of a policy must
//! decide every flow as this does.

use std::net::IpAddr;

use datapath::Direction;

use crate::identity::Identity;
use crate::rules::precedence;
use crate::state::{Default, DirectionPolicy, Peers, Policy, Ports, Reach, Rule, RuleAction};

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

/// Decides about a flow: of all rules that match, the highest precedence, deny before pass before allow; else the
/// default. A rule that passes leaves the flow to the tiers below its own. Where the default denies, it comes before the
/// baseline.
#[must_use]
pub fn evaluate<'a>(policy: &'a Policy, flow: &Flow) -> Verdict<'a> {
    let DirectionPolicy { default, rules } = policy.direction(flow.direction);
    let rules = || rules.iter().filter(|rule| rule.applies_under(default) && matches(rule, flow));
    let mut below: Option<Tier> = None;
    loop {
        match decisive(rules().filter(|rule| below.is_none_or(|tier| rule.tier() < tier))) {
            Some(rule) if rule.action == RuleAction::Pass => below = Some(rule.tier()),
            Some(rule) => return Verdict { action: rule.action, reason: Reason::Rule(rule) },
            None => return Verdict { action: default.action(), reason: Reason::Default(default) },
        }
    }
}

/// The rule that decides; of several equal ones the first.
fn decisive<'a>(rules: impl Iterator<Item = &'a Rule>) -> Option<&'a Rule> {
    rules.reduce(
        |best, rule| {
            if (rule.precedence, rule.action) > (best.precedence, best.action) { rule } else { best }
        },
    )
}

/// A rank of rules: those of administrators, those of namespaces, the baseline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// For who is not isolated.
    Baseline,
    /// Of namespaces.
    Namespace,
    /// Of administrators.
    Admin,
}

impl Tier {
    /// As it is shown: `admin`, `namespace`, `baseline`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Namespace => "namespace",
            Self::Baseline => "baseline",
        }
    }
}

impl Rule {
    /// The tier that its precedence puts it in.
    #[must_use]
    pub const fn tier(&self) -> Tier {
        if self.precedence >= precedence::ADMIN {
            Tier::Admin
        } else if self.precedence >= precedence::NETWORK_POLICY {
            Tier::Namespace
        } else {
            Tier::Baseline
        }
    }

    /// Whether the rule can decide at all: what is isolated never comes to the baseline.
    #[must_use]
    pub const fn applies_under(&self, default: &Default) -> bool {
        !matches!((default, self.tier()), (Default::Deny { .. }, Tier::Baseline))
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
                || blocks.iter().any(|block| {
                    block.contains(flow.remote) && (block.reach == Reach::Everyone || flow.identity.is_none())
                })
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
