//! Why a policy decides about a flow as it does: for each rule of the direction, that it matched or the first thing
//! that did not. For `policy trace`.

use std::fmt;

use datapath::Direction;

use crate::evaluate::{Flow, Reason, Verdict, evaluate, matches_peer, matches_port};
use crate::state::{DirectionPolicy, Peers, Policy, PortRange, Ports, Reach, Rule, RuleAction};

#[cfg(test)]
mod tests;

/// A verdict with the way to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation<'a> {
    /// The flow.
    pub flow: Flow,
    /// Every rule of the direction, the highest precedence first.
    pub steps: Vec<Step<'a>>,
    /// What was decided.
    pub verdict: Verdict<'a>,
}

/// What one rule says about a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step<'a> {
    /// The rule.
    pub rule: &'a Rule,
    /// Whether it matched.
    pub outcome: Outcome,
}

/// Whether a rule matched, or the first thing that did not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// It matched, and decides or passes the decision on.
    Matched,
    /// It matched, and one that counts more decides.
    Overruled,
    /// It matched, and is not asked: a policy isolates the workload, which comes before the baseline.
    NotAsked,
    /// The other end is none of its peers.
    OtherPeer,
    /// The peer matched, the protocol is none of its own.
    OtherProtocol,
    /// Peer and protocol matched, the port is none of its own.
    OtherPort,
}

/// Explains the decision about a flow.
#[must_use]
pub fn explain<'a>(policy: &'a Policy, flow: &Flow) -> Explanation<'a> {
    let DirectionPolicy { default, rules } = policy.direction(flow.direction);
    let verdict = evaluate(policy, flow);
    let decides = |rule: &Rule| match verdict.reason {
        Reason::Rule(decisive) => std::ptr::eq(decisive, rule),
        Reason::Default(_) => false,
    };
    // Nothing that counts as much as a rule which passes can decide, but a deny.
    let overruled = |rule: &Rule| match (rule.action, verdict.reason) {
        (RuleAction::Pass, Reason::Rule(decisive)) => decisive.tier() >= rule.tier(),
        (RuleAction::Pass, Reason::Default(_)) => false,
        (RuleAction::Allow | RuleAction::Deny, _) => !decides(rule),
    };
    let outcome = |rule: &Rule| {
        let found = outcome(rule, flow);
        if found != Outcome::Matched {
            found
        } else if !rule.applies_under(default) {
            Outcome::NotAsked
        } else if overruled(rule) {
            Outcome::Overruled
        } else {
            Outcome::Matched
        }
    };
    let mut rules: Vec<&Rule> = rules.iter().collect();
    rules.sort_by_key(|rule| std::cmp::Reverse(rule.precedence));
    let steps = rules.into_iter().map(|rule| Step { rule, outcome: outcome(rule) }).collect();
    Explanation { flow: *flow, steps, verdict }
}

fn outcome(rule: &Rule, flow: &Flow) -> Outcome {
    let knows_protocol = match &rule.ports {
        Ports::Any => true,
        Ports::Only(ranges) => ranges.iter().any(|range| range.protocol == flow.protocol),
    };
    if !matches_peer(&rule.peers, flow) {
        Outcome::OtherPeer
    } else if !knows_protocol {
        Outcome::OtherProtocol
    } else if !matches_port(&rule.ports, flow) {
        Outcome::OtherPort
    } else {
        Outcome::Matched
    }
}

impl fmt::Display for Explanation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (direction, preposition) = match self.flow.direction {
            Direction::Ingress => ("ingress", "from"),
            Direction::Egress => ("egress", "to"),
        };
        write!(f, "{direction} {preposition} {}", self.flow.remote)?;
        match self.flow.identity {
            Some(identity) => write!(f, " (identity {identity})"),
            None => write!(f, " (no endpoint)"),
        }?;
        writeln!(f, ", {} port {}", Protocol(self.flow.protocol), self.flow.port)?;
        for step in &self.steps {
            writeln!(f, "  {step}")?;
        }
        if self.steps.is_empty() {
            writeln!(f, "  no rules")?;
        }
        let action = if self.verdict.action == RuleAction::Allow { "allowed" } else { "denied" };
        write!(f, "{action} by {}", self.verdict.name(self.flow.direction))
    }
}

impl fmt::Display for Step<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Rule { origin, peers, ports, action, .. } = self.rule;
        let action = match action {
            RuleAction::Allow => "allow",
            RuleAction::Deny => "deny",
            RuleAction::Pass => "pass",
        };
        match self.outcome {
            Outcome::Matched => write!(f, "{origin}: matched, {action}"),
            Outcome::Overruled => {
                write!(f, "{origin}: matched, {action}, but a rule that counts more decides")
            }
            Outcome::NotAsked => {
                write!(
                    f,
                    "{origin}: matched, {action}, but the workload is isolated and the baseline is not asked"
                )
            }
            Outcome::OtherPeer => write!(f, "{origin}: other peer: the rule is about {}", PeersText(peers)),
            Outcome::OtherProtocol => {
                write!(f, "{origin}: other protocol: the rule is about {}", PortsText(ports))
            }
            Outcome::OtherPort => write!(f, "{origin}: other port: the rule is about {}", PortsText(ports)),
        }
    }
}

/// A protocol by name where it has a common one.
struct Protocol(u8);

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            1 => f.write_str("ICMP"),
            6 => f.write_str("TCP"),
            17 => f.write_str("UDP"),
            58 => f.write_str("ICMPv6"),
            132 => f.write_str("SCTP"),
            number => write!(f, "protocol {number}"),
        }
    }
}

struct PeersText<'a>(&'a Peers);

impl fmt::Display for PeersText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Peers::Only { identities, blocks } = self.0 else { return f.write_str("every peer") };
        let mut parts: Vec<String> = Vec::new();
        if !identities.is_empty() {
            let numbers: Vec<String> = identities.iter().map(ToString::to_string).collect();
            parts.push(format!("identities {}", numbers.join(" ")));
        }
        for block in blocks {
            let holes: Vec<String> = block.except.iter().map(ToString::to_string).collect();
            let except =
                if holes.is_empty() { String::new() } else { format!(" except {}", holes.join(" ")) };
            let outside = if block.reach == Reach::Outside { " outside the mesh" } else { "" };
            parts.push(format!("{}{except}{outside}", block.cidr));
        }
        f.write_str(if parts.is_empty() { "nobody" } else { "" })?;
        f.write_str(&parts.join(", "))
    }
}

struct PortsText<'a>(&'a Ports);

impl fmt::Display for PortsText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ports::Only(ranges) = self.0 else { return f.write_str("every port") };
        let texts: Vec<String> = ranges.iter().copied().map(range_text).collect();
        f.write_str(if texts.is_empty() { "no port" } else { "" })?;
        f.write_str(&texts.join(", "))
    }
}

pub(crate) fn range_text(range: PortRange) -> String {
    let protocol = Protocol(range.protocol);
    match (range.first, range.last) {
        (0, u16::MAX) => protocol.to_string(),
        (first, last) if first == last => format!("{protocol} {first}"),
        (first, last) => format!("{protocol} {first}-{last}"),
    }
}
