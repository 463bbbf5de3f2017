//! Compiled policies. An unknown verdict or constraint denies; a missing set is refused, never read as "any".

use std::collections::BTreeSet;
use std::sync::Arc;

use policy::evaluate::Tier;
use policy::rules::precedence;
use policy::state::{
    Block, Default, DirectionPolicy, Peers, Policy, PortRange, Ports, Reach, Rule, RuleAction,
};

use super::{InvalidResource, identity_from_wire, prefix_from_wire, prefix_to_wire};
use crate::v1;

/// A policy as it is sent.
#[must_use]
pub fn policy_to_wire(policy: &Policy) -> v1::Policy {
    let Policy { ingress, egress } = policy;
    v1::Policy { ingress: Some(direction_to_wire(ingress)), egress: Some(direction_to_wire(egress)) }
}

/// Reads a policy.
///
/// # Errors
/// [`InvalidResource`] naming direction and rule.
pub fn policy_from_wire(wire: &v1::Policy) -> Result<Policy, InvalidResource> {
    Ok(Policy {
        ingress: direction_from_wire("ingress", wire.ingress.as_ref())?,
        egress: direction_from_wire("egress", wire.egress.as_ref())?,
    })
}

fn direction_to_wire(direction: &DirectionPolicy) -> v1::DirectionPolicy {
    let DirectionPolicy { default, rules } = direction;
    v1::DirectionPolicy {
        default: Some(match default {
            Default::Allow => v1::direction_policy::Default::Allow(v1::AllowDefault {}),
            Default::Deny { by } => v1::direction_policy::Default::Deny(v1::DenyDefault { by: by.clone() }),
        }),
        rules: rules.iter().map(rule_to_wire).collect(),
    }
}

fn direction_from_wire(
    name: &str,
    wire: Option<&v1::DirectionPolicy>,
) -> Result<DirectionPolicy, InvalidResource> {
    let missing = |what: &str| InvalidResource::new(format!("policy {name}"), format!("no {what}"));
    let wire = wire.ok_or_else(|| missing("direction"))?;
    let default = match wire.default.as_ref().ok_or_else(|| missing("default"))? {
        v1::direction_policy::Default::Allow(v1::AllowDefault {}) => Default::Allow,
        v1::direction_policy::Default::Deny(v1::DenyDefault { by }) => Default::Deny { by: by.clone() },
    };
    let rules = wire
        .rules
        .iter()
        .map(|rule| {
            rule_from_wire(rule).map_err(|error| {
                InvalidResource::new(format!("policy {name} rule {}", rule.origin), error.to_string())
            })
        })
        .collect::<Result<_, _>>()?;
    Ok(DirectionPolicy { default, rules })
}

fn rule_to_wire(rule: &Rule) -> v1::Rule {
    let Rule { origin, peers, ports, action, precedence } = rule;
    v1::Rule {
        origin: origin.to_string(),
        peers: Some(v1::Peers { peers: Some(peers_to_wire(peers)) }),
        ports: Some(v1::Ports { ports: Some(ports_to_wire(ports)) }),
        verdict: match action {
            RuleAction::Allow => v1::Verdict::Allow,
            RuleAction::Deny => v1::Verdict::Deny,
            RuleAction::Pass => v1::Verdict::Pass,
        }
        .into(),
        precedence: *precedence,
    }
}

/// A set that this build does not know may only narrow an allow: the rule becomes a deny for every peer and port
/// it might have meant.
fn rule_from_wire(wire: &v1::Rule) -> Result<Rule, InvalidResource> {
    let peers = wire.peers.as_ref().ok_or_else(|| InvalidResource::new("peers", "absent"))?;
    let ports = wire.ports.as_ref().ok_or_else(|| InvalidResource::new("ports", "absent"))?;
    let known = peers.peers.is_some() && ports.ports.is_some();
    if wire.precedence > precedence::HIGHEST {
        let message = format!("{} is more than {}", wire.precedence, precedence::HIGHEST);
        return Err(InvalidResource::new("precedence", message));
    }
    let action = match v1::Verdict::try_from(wire.verdict) {
        Ok(v1::Verdict::Allow) if known => RuleAction::Allow,
        Ok(v1::Verdict::Pass) if known => RuleAction::Pass,
        Ok(_) | Err(_) => RuleAction::Deny,
    };
    let mut rule = Rule {
        origin: Arc::from(wire.origin.as_str()),
        peers: peers.peers.as_ref().map_or(Ok(Peers::Any), peers_from_wire)?,
        ports: ports.ports.as_ref().map_or(Ok(Ports::Any), ports_from_wire)?,
        action,
        precedence: wire.precedence,
    };
    // Only administrators leave decisions to others; nothing is left to where teams decide themselves.
    if rule.action == RuleAction::Pass && rule.tier() == Tier::Namespace {
        rule.action = RuleAction::Deny;
    }
    Ok(rule)
}

fn peers_to_wire(peers: &Peers) -> v1::peers::Peers {
    match peers {
        Peers::Any => v1::peers::Peers::Any(v1::AnyPeer {}),
        Peers::Only { identities, blocks } => v1::peers::Peers::Only(v1::PeerSet {
            identities: identities.iter().map(|identity| identity.get()).collect(),
            blocks: blocks.iter().map(block_to_wire).collect(),
        }),
    }
}

fn peers_from_wire(wire: &v1::peers::Peers) -> Result<Peers, InvalidResource> {
    Ok(match wire {
        v1::peers::Peers::Any(v1::AnyPeer {}) => Peers::Any,
        v1::peers::Peers::Only(v1::PeerSet { identities, blocks }) => Peers::Only {
            identities: Arc::new(
                identities.iter().copied().map(identity_from_wire).collect::<Result<BTreeSet<_>, _>>()?,
            ),
            blocks: blocks.iter().map(block_from_wire).collect::<Result<_, _>>()?,
        },
    })
}

fn block_to_wire(block: &Block) -> v1::Block {
    let Block { cidr, except, reach } = block;
    v1::Block {
        cidr: Some(prefix_to_wire(*cidr)),
        except: except.iter().copied().map(prefix_to_wire).collect(),
        reach: match reach {
            Reach::Everyone => v1::Reach::Everyone,
            Reach::Outside => v1::Reach::Outside,
        }
        .into(),
    }
}

fn block_from_wire(wire: &v1::Block) -> Result<Block, InvalidResource> {
    let cidr = wire.cidr.as_ref().ok_or_else(|| InvalidResource::new("block", "no cidr"))?;
    let reach = match v1::Reach::try_from(wire.reach) {
        Ok(v1::Reach::Everyone) => Reach::Everyone,
        Ok(v1::Reach::Outside) => Reach::Outside,
        Err(_) => return Err(InvalidResource::new("block", format!("reach {} is unknown", wire.reach))),
    };
    Ok(Block {
        cidr: prefix_from_wire(cidr)?,
        except: wire.except.iter().map(prefix_from_wire).collect::<Result<_, _>>()?,
        reach,
    })
}

fn ports_to_wire(ports: &Ports) -> v1::ports::Ports {
    match ports {
        Ports::Any => v1::ports::Ports::Any(v1::AnyPort {}),
        Ports::Only(ranges) => v1::ports::Ports::Only(v1::PortSet {
            ranges: ranges
                .iter()
                .map(|&PortRange { protocol, first, last }| v1::PortRange {
                    protocol: u32::from(protocol),
                    first: u32::from(first),
                    last: u32::from(last),
                })
                .collect(),
        }),
    }
}

fn ports_from_wire(wire: &v1::ports::Ports) -> Result<Ports, InvalidResource> {
    Ok(match wire {
        v1::ports::Ports::Any(v1::AnyPort {}) => Ports::Any,
        v1::ports::Ports::Only(v1::PortSet { ranges }) => {
            Ports::Only(ranges.iter().map(range_from_wire).collect::<Result<_, _>>()?)
        }
    })
}

fn range_from_wire(wire: &v1::PortRange) -> Result<PortRange, InvalidResource> {
    let named = || {
        InvalidResource::new(
            "ports",
            format!("protocol {} ports {}-{}", wire.protocol, wire.first, wire.last),
        )
    };
    let protocol = u8::try_from(wire.protocol).map_err(|_ignored| named())?;
    let first = u16::try_from(wire.first).map_err(|_ignored| named())?;
    let last = u16::try_from(wire.last).map_err(|_ignored| named())?;
    // 255 stands for "any" in the kernel's tables and is no protocol of the wire.
    if first > last || protocol == u8::MAX { Err(named()) } else { Ok(PortRange { protocol, first, last }) }
}
