//! From the API's types to the common form, with every error collected.

mod icmp;
mod layer7;
mod peers;
mod ports;

use std::sync::Arc;

use super::api::{EgressRule, IngressRule, Spec};
use super::selector::{self, Scope};
use crate::labels;
use crate::rules::{PeerSpec, PolicyObject, PortSpec, RuleSpec, Section, Subject, precedence};
use crate::selector::{FieldError, Requirement};
use crate::state::RuleAction;

/// Compiles one specification of an object. What is returned must not be used when anything was added to `errors`.
pub(super) fn compile(
    spec: &Spec,
    origin: Arc<str>,
    namespace: Option<&str>,
    path: &str,
    errors: &mut Vec<FieldError>,
) -> PolicyObject {
    let scope = namespace.map_or(Scope::Cluster, Scope::Namespace);
    let subject = subject(spec, namespace, path, errors);
    let mut compiler = Compiler { scope, origin: &origin, path, errors, warnings: Vec::new() };
    let ingress = compiler.ingress(spec);
    let egress = compiler.egress(spec);
    let warnings = compiler.warnings;
    PolicyObject { origin, subject, ingress, egress, warnings }
}

/// Whom a specification governs. One with a namespace governs nobody outside of it, whatever its expressions say.
pub(super) fn subject(
    spec: &Spec,
    namespace: Option<&str>,
    path: &str,
    errors: &mut Vec<FieldError>,
) -> Subject {
    match (&spec.endpoint_selector, &spec.node_selector) {
        (Some(_), Some(_)) => {
            errors.push(FieldError::new(path, "has endpointSelector and nodeSelector: give one of them"));
            Subject::Nobody
        }
        (None, None) => {
            errors.push(FieldError::new(path, "needs an endpointSelector"));
            Subject::Nobody
        }
        (Some(endpoints), None) => {
            let selector = selector::plain(endpoints, &format!("{path}.endpointSelector"), errors);
            Subject::Endpoints(match namespace {
                Some(namespace) => selector.and(Requirement::is(labels::NAMESPACE, namespace)),
                None => selector,
            })
        }
        (None, Some(nodes)) => {
            let path = format!("{path}.nodeSelector");
            if namespace.is_some() {
                errors.push(FieldError::new(&path, "is for CiliumClusterwideNetworkPolicy only"));
            }
            Subject::Nodes(selector::plain(nodes, &path, errors))
        }
    }
}

/// Whether rules of a direction isolate the subject in it.
pub(super) fn isolates<T>(wanted: Option<bool>, allow: Option<&Vec<T>>, deny: Option<&Vec<T>>) -> bool {
    let has_rules = |rules: Option<&Vec<T>>| rules.is_some_and(|rules| !rules.is_empty());
    wanted.unwrap_or_else(|| has_rules(allow) || has_rules(deny))
}

struct Compiler<'a> {
    scope: Scope<'a>,
    origin: &'a str,
    /// Of the specification.
    path: &'a str,
    errors: &'a mut Vec<FieldError>,
    warnings: Vec<String>,
}

/// The parts of a rule that are alike in both directions.
struct Parts {
    /// `None`: nothing was said about peers.
    peers: Option<PeerSpec>,
    /// `None`: nothing was said about ports.
    ports: Option<PortSpec>,
    action: RuleAction,
}

impl Compiler<'_> {
    fn ingress(&mut self, spec: &Spec) -> Option<Section> {
        let wanted = spec.enable_default_deny.as_ref().and_then(|default| default.ingress);
        let isolates = isolates(wanted, spec.ingress.as_ref(), spec.ingress_deny.as_ref());
        let mut rules = Vec::new();
        for (field, list, action) in [
            ("ingress", &spec.ingress, RuleAction::Allow),
            ("ingressDeny", &spec.ingress_deny, RuleAction::Deny),
        ] {
            for (index, rule) in list.iter().flatten().enumerate() {
                let path = format!("{}.{field}[{index}]", self.path);
                let parts = self.ingress_rule(rule, action, &path);
                rules.push(self.rule(parts, field, index));
            }
        }
        section(isolates, rules)
    }

    fn egress(&mut self, spec: &Spec) -> Option<Section> {
        let wanted = spec.enable_default_deny.as_ref().and_then(|default| default.egress);
        let isolates = isolates(wanted, spec.egress.as_ref(), spec.egress_deny.as_ref());
        let mut rules = Vec::new();
        for (field, list, action) in
            [("egress", &spec.egress, RuleAction::Allow), ("egressDeny", &spec.egress_deny, RuleAction::Deny)]
        {
            for (index, rule) in list.iter().flatten().enumerate() {
                let path = format!("{}.{field}[{index}]", self.path);
                let parts = self.egress_rule(rule, action, &path);
                rules.push(self.rule(parts, field, index));
            }
        }
        section(isolates, rules)
    }

    fn ingress_rule(&mut self, rule: &IngressRule, action: RuleAction, path: &str) -> Parts {
        self.refuse(
            path,
            "fromRequires",
            rule.from_requires.is_some(),
            "was removed from the API: write fromEndpoints",
        );
        self.refuse(path, "fromGroups", rule.from_groups.is_some(), "is not supported");
        self.refuse(path, "authentication", rule.authentication.is_some(), "is not supported");
        let members = [
            (
                "fromEndpoints",
                self.endpoints(rule.from_endpoints.as_deref(), action, &format!("{path}.fromEndpoints")),
            ),
            ("fromCIDR", self.cidrs(rule.from_cidr.as_deref(), &format!("{path}.fromCIDR"))),
            ("fromCIDRSet", self.cidr_sets(rule.from_cidr_set.as_deref(), &format!("{path}.fromCIDRSet"))),
            ("fromEntities", self.entities(rule.from_entities.as_deref(), &format!("{path}.fromEntities"))),
            ("fromNodes", self.nodes(rule.from_nodes.as_deref(), &format!("{path}.fromNodes"))),
        ];
        let peers = self.only_one(members, path);
        let ports = self.ports(rule.to_ports.as_deref(), rule.icmps.as_deref(), action, path);
        Parts { peers, ports, action }
    }

    fn egress_rule(&mut self, rule: &EgressRule, action: RuleAction, path: &str) -> Parts {
        self.refuse(
            path,
            "toRequires",
            rule.to_requires.is_some(),
            "was removed from the API: write toEndpoints",
        );
        self.refuse(path, "toGroups", rule.to_groups.is_some(), "is not supported");
        self.refuse(path, "authentication", rule.authentication.is_some(), "is not supported");
        let is_deny = action == RuleAction::Deny;
        self.refuse(path, "toFQDNs", is_deny && rule.to_fqdns.is_some(), "is no field of a deny rule");
        let members = [
            (
                "toEndpoints",
                self.endpoints(rule.to_endpoints.as_deref(), action, &format!("{path}.toEndpoints")),
            ),
            ("toCIDR", self.cidrs(rule.to_cidr.as_deref(), &format!("{path}.toCIDR"))),
            ("toCIDRSet", self.cidr_sets(rule.to_cidr_set.as_deref(), &format!("{path}.toCIDRSet"))),
            ("toEntities", self.entities(rule.to_entities.as_deref(), &format!("{path}.toEntities"))),
            ("toNodes", self.nodes(rule.to_nodes.as_deref(), &format!("{path}.toNodes"))),
            ("toServices", self.services(rule.to_services.as_deref(), &format!("{path}.toServices"))),
            ("toFQDNs", self.fqdns(rule.to_fqdns.as_deref(), &format!("{path}.toFQDNs"))),
        ];
        let peers = self.only_one(members, path);
        let ports = self.ports(rule.to_ports.as_deref(), rule.icmps.as_deref(), action, path);
        let has_services = rule.to_services.as_ref().is_some_and(|services| !services.is_empty());
        if has_services && rule.to_ports.as_ref().is_some_and(|ports| !ports.is_empty()) {
            self.error(&format!("{path}.toPorts"), "cannot stand beside toServices, which brings its ports");
        }
        Parts { peers, ports, action }
    }

    /// What the parts come to. Where nothing is said about peers, ports are for all of them; a rule that says nothing at
    /// all matches nothing, and only isolates.
    fn rule(&self, parts: Parts, field: &str, index: usize) -> RuleSpec {
        let nothing_said = parts.peers.is_none() && parts.ports.is_none();
        let unsaid = if nothing_said { PeerSpec::Only(Vec::new()) } else { PeerSpec::Any };
        let peers = parts.peers.unwrap_or(unsaid);
        let separator = if self.origin.contains('#') { '.' } else { '#' };
        RuleSpec {
            origin: format!("{}{separator}{field}[{index}]", self.origin).into(),
            peers,
            ports: parts.ports.unwrap_or(PortSpec::Any),
            action: parts.action,
            precedence: precedence::NETWORK_POLICY,
        }
    }

    fn refuse(&mut self, path: &str, field: &str, is_there: bool, why: &str) {
        if is_there {
            self.error(&format!("{path}.{field}"), why);
        }
    }

    fn error(&mut self, path: &str, message: impl Into<String>) {
        self.errors.push(FieldError::new(path, message));
    }

    fn warn(&mut self, path: &str, message: &str) {
        self.warnings.push(format!("{path}: {message}"));
    }
}

/// A direction without rules that does not isolate is none of the object's concern.
fn section(isolates: bool, rules: Vec<RuleSpec>) -> Option<Section> {
    (isolates || !rules.is_empty()).then_some(Section { isolates, rules })
}
