//! What `outrigger policy list` and `policy trace` show: the rules as received, the decision by the specification,
//! and the decision by the kernel's own tables.

use std::cmp::Reverse;
use std::net::IpAddr;
use std::sync::Arc;

use datapath::{Direction, Reason};
use policy::evaluate::Flow;
use policy::explain;
use policy::identity::Identity;
use policy::labels::{Labels, OBJECT_PREFIX};
use policy::pages::Pages;
use policy::state::{Block, NodeState, Peers, Policy, PortRange, Ports, Reach, Rule, RuleAction};
use proto::v1::{ListPoliciesResponse, PolicyRule, TracePolicyRequest, TracePolicyResponse};

use crate::kernel::{KernelError, TraceQuery};
use crate::member::Member;
use crate::monitor::protocol_name;
use crate::selection;

/// A source port as clients have it.
const EPHEMERAL: u16 = 40_000;

/// A flow that is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Query {
    pub(super) direction: Direction,
    pub(super) remote: IpAddr,
    pub(super) protocol: u8,
    pub(super) port: u16,
    pub(super) nic: bool,
}

/// A question that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum InvalidQuery {
    /// No such direction.
    #[error("`{0}` is no direction: ingress or egress")]
    Direction(String),
    /// No address.
    #[error("`{0}` is no address")]
    Remote(String),
    /// No such protocol.
    #[error("`{0}` is no protocol: tcp, udp, sctp, icmp or a number")]
    Protocol(String),
    /// No such port.
    #[error("{0} is no port")]
    Port(u32),
    /// No such type.
    #[error("{0} is no type of ICMP: 0 to 255")]
    IcmpType(u32),
}

impl TryFrom<TracePolicyRequest> for Query {
    type Error = InvalidQuery;

    fn try_from(request: TracePolicyRequest) -> Result<Self, Self::Error> {
        let TracePolicyRequest { direction, remote, protocol, port, nic } = request;
        let direction = match direction.as_str() {
            "ingress" => Direction::Ingress,
            "egress" => Direction::Egress,
            _ => return Err(InvalidQuery::Direction(direction)),
        };
        let remote: IpAddr = remote.parse().map_err(|_no_address| InvalidQuery::Remote(remote))?;
        let remote = remote.to_canonical();
        let protocol = match protocol.as_str() {
            "tcp" => 6,
            "udp" => 17,
            "sctp" => 132,
            "icmp" | "icmpv6" => icmp(remote),
            number => number.parse().map_err(|_no_number| InvalidQuery::Protocol(protocol.clone()))?,
        };
        let port = match port {
            Some(port) => in_range(protocol, port)?,
            None => crate::kernel::default_port(protocol),
        };
        Ok(Self { direction, remote, protocol, port, nic })
    }
}

/// A port, or the type of an ICMP message.
fn in_range(protocol: u8, port: u32) -> Result<u16, InvalidQuery> {
    let icmp = [1, 58].contains(&protocol);
    if icmp {
        u8::try_from(port).map(u16::from).map_err(|_too_large| InvalidQuery::IcmpType(port))
    } else {
        u16::try_from(port).map_err(|_too_large| InvalidQuery::Port(port))
    }
}

/// ICMP has a number of its own in each family.
pub(super) const fn icmp(remote: IpAddr) -> u8 {
    if remote.is_ipv4() { 1 } else { 58 }
}

/// Decides by the policy and by the kernel's tables.
pub(super) fn trace(
    member: &Member,
    state: &NodeState,
    query: &Query,
) -> Result<TracePolicyResponse, KernelError> {
    let endpoint = state.endpoints.get(&query.remote);
    let traced = member.kernel.trace(&trace_query(query))?;
    let explanation = explain(&state.policy, &flow(state, query));
    let labels = endpoint.and_then(|endpoint| state.identities.get(&endpoint.identity));
    Ok(TracePolicyResponse {
        verdict: action(explanation.verdict.action).to_owned(),
        rule: explanation.verdict.name(query.direction),
        remote_identity: endpoint.map_or(0, |endpoint| endpoint.identity.get()),
        remote_owner: endpoint.and_then(|endpoint| endpoint.owner.as_deref()).unwrap_or_default().to_owned(),
        remote_labels: labels.map(ToString::to_string).unwrap_or_default(),
        rules: explanation.steps.iter().map(ToString::to_string).collect(),
        kernel_verdict: kernel_verdict(traced.reason),
        tunnel: traced.tunnel.map(|tunnel| tunnel.to_string()).unwrap_or_default(),
    })
}

/// The same on the NICs: of a policy that knows nodes and addresses.
pub(super) fn trace_on_nic(
    member: &Member,
    policy: &Policy,
    query: &Query,
) -> Result<TracePolicyResponse, KernelError> {
    let traced = member.kernel.trace(&trace_query(query))?;
    let Query { direction, remote, protocol, port, nic: _ } = *query;
    let identity = Identity::try_new(traced.identity).ok();
    let explanation = explain(policy, &Flow { direction, identity, remote, protocol, port });
    Ok(TracePolicyResponse {
        verdict: action(explanation.verdict.action).to_owned(),
        rule: explanation.verdict.name(direction),
        remote_identity: traced.identity,
        rules: explanation.steps.iter().map(ToString::to_string).collect(),
        kernel_verdict: kernel_verdict(traced.reason),
        ..TracePolicyResponse::default()
    })
}

/// The flow as the specification sees it.
pub(super) fn flow(state: &NodeState, query: &Query) -> Flow {
    let Query { direction, remote, protocol, port, nic: _ } = *query;
    let identity = state.endpoints.get(&remote).map(|endpoint| endpoint.identity);
    Flow { direction, identity, remote, protocol, port }
}

/// Why the kernel would let the flow pass or not.
pub(super) fn trace_kernel(member: &Member, query: &Query) -> Result<Reason, KernelError> {
    member.kernel.trace(&trace_query(query)).map(|trace| trace.reason)
}

const fn trace_query(query: &Query) -> TraceQuery {
    let Query { direction, remote, protocol, port, nic } = *query;
    TraceQuery { direction, remote, protocol, source_port: EPHEMERAL, destination_port: port, nic }
}

fn kernel_verdict(reason: Reason) -> String {
    if reason == Reason::Audited {
        "audit".to_owned()
    } else if reason.passes() {
        "allow".to_owned()
    } else if reason == Reason::PolicyDenied {
        "deny".to_owned()
    } else {
        format!("dropped: {}", reason.name())
    }
}

/// The rules of a policy and its defaults; identities with the labels that are known.
pub(super) fn list(policy: &Policy, known: &Pages<Identity, Arc<str>>) -> ListPoliciesResponse {
    let rules = |direction: &'static str, rules: &[Rule]| -> Vec<PolicyRule> {
        let mut rules: Vec<&Rule> = rules.iter().collect();
        rules.sort_by_key(|rule| Reverse(rule.precedence));
        let line = |rule: &Rule| PolicyRule {
            direction: direction.to_owned(),
            origin: rule.origin.to_string(),
            peers: peers(&rule.peers, known),
            ports: ports(&rule.ports),
            action: action(rule.action).to_owned(),
            tier: rule.tier().name().to_owned(),
        };
        rules.into_iter().map(line).collect()
    };
    ListPoliciesResponse {
        rules: [rules("ingress", &policy.ingress.rules), rules("egress", &policy.egress.rules)].concat(),
        ingress_default_deny: selection::is_default_deny(&policy.ingress),
        egress_default_deny: selection::is_default_deny(&policy.egress),
        ingress_by: selection::default_deny_by(&policy.ingress).to_vec(),
        egress_by: selection::default_deny_by(&policy.egress).to_vec(),
    }
}

const fn action(action: RuleAction) -> &'static str {
    match action {
        RuleAction::Allow => "allow",
        RuleAction::Deny => "deny",
        RuleAction::Pass => "pass",
    }
}

fn peers(peers: &Peers, known: &Pages<Identity, Arc<str>>) -> String {
    let Peers::Only { identities, blocks } = peers else { return "any".to_owned() };
    let block = |block: &Block| {
        let except: Vec<String> = block.except.iter().map(ToString::to_string).collect();
        let except = if except.is_empty() { String::new() } else { format!(" except {}", except.join(" ")) };
        match block.reach {
            Reach::Everyone => format!("{}{except}", block.cidr),
            Reach::Outside => format!("{}{except} outside the mesh", block.cidr),
        }
    };
    let identities =
        identities.iter().map(|identity| match known.get(identity).map(|labels| given(labels)) {
            Some(labels) if !labels.is_empty() => format!("identity {identity} ({labels})"),
            Some(_) | None => format!("identity {identity}"),
        });
    let all: Vec<String> = identities.chain(blocks.iter().map(block)).collect();
    if all.is_empty() { "none".to_owned() } else { all.join(", ") }
}

/// The labels that people gave to objects: those of namespace, cluster and account say little here.
fn given(labels: &str) -> String {
    let labels: Labels = labels.parse().unwrap_or_default();
    let own = |key: &str| !key.starts_with("io.kubernetes.") && !key.starts_with("io.cilium.");
    let objects = labels.0.iter().filter_map(|(key, value)| Some((key.strip_prefix(OBJECT_PREFIX)?, value)));
    let shown = objects.filter(|&(key, _)| own(key)).map(|(key, value)| format!("{key}={value}"));
    shown.collect::<Vec<_>>().join(" ")
}

fn ports(ports: &Ports) -> String {
    let Ports::Only(ranges) = ports else { return "any".to_owned() };
    let range = |range: &PortRange| {
        let protocol = protocol_name(range.protocol);
        match (range.first, range.last) {
            (0, u16::MAX) => protocol,
            (first, last) if first == last => format!("{protocol}/{first}"),
            (first, last) => format!("{protocol}/{first}-{last}"),
        }
    };
    let all: Vec<String> = ranges.iter().map(range).collect();
    if all.is_empty() { "none".to_owned() } else { all.join(", ") }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn request() -> TracePolicyRequest {
        TracePolicyRequest {
            direction: "ingress".to_owned(),
            remote: "fd00::7".to_owned(),
            protocol: "icmp".to_owned(),
            port: None,
            nic: false,
        }
    }

    #[test]
    fn icmp_is_of_the_remotes_family() {
        let v6 = Query::try_from(request()).unwrap();
        assert_eq!((v6.protocol, v6.port), (58, 128));
        let v4 = TracePolicyRequest { remote: "::ffff:10.0.0.1".to_owned(), ..request() };
        let v4 = Query::try_from(v4).unwrap();
        assert_eq!((v4.protocol, v4.port), (1, 8));
        let reply = TracePolicyRequest { port: Some(0), ..request() };
        assert_eq!(Query::try_from(reply).unwrap().port, 0);
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        for bad in [
            TracePolicyRequest { direction: "in".to_owned(), ..request() },
            TracePolicyRequest { remote: "web".to_owned(), ..request() },
            TracePolicyRequest { protocol: "quic".to_owned(), ..request() },
            TracePolicyRequest { port: Some(256), ..request() },
            TracePolicyRequest { protocol: "udp".to_owned(), port: Some(70_000), ..request() },
        ] {
            assert!(Query::try_from(bad.clone()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn empty_and_absent_sets_look_different() {
        let none = Peers::Only { identities: Arc::new(BTreeSet::new()), blocks: Vec::new() };
        let labels = "k8s:app=api;k8s:io.kubernetes.pod.namespace=shop;";
        let known = Pages::from_iter([(Identity::try_new(301).unwrap(), Arc::from(labels))]);
        let peers = |of: &Peers| peers(of, &known);
        assert_eq!((peers(&Peers::Any).as_str(), peers(&none).as_str()), ("any", "none"));
        assert_eq!((ports(&Ports::Any).as_str(), ports(&Ports::Only(Vec::new())).as_str()), ("any", "none"));
        let block = Block {
            cidr: "10.0.0.0/8".parse().unwrap(),
            except: vec!["10.1.0.0/16".parse().unwrap()],
            reach: Reach::Outside,
        };
        let identities =
            Arc::new(BTreeSet::from([300, 301].map(|number| Identity::try_new(number).unwrap())));
        let some = Peers::Only { identities, blocks: vec![block] };
        assert_eq!(
            peers(&some),
            "identity 300, identity 301 (app=api), 10.0.0.0/8 except 10.1.0.0/16 outside the mesh"
        );
        let range = |first, last| PortRange { protocol: 6, first, last };
        let some = Ports::Only(vec![range(80, 80), range(8000, 8010), range(0, u16::MAX)]);
        assert_eq!(ports(&some), "tcp/80, tcp/8000-8010, tcp");
    }
}
