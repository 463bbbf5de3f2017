//! From the API's types to the common form, with every error collected.

mod peers;
mod ports;

use std::sync::Arc;

use super::Kind;
use super::api::{Action, Object, Rule, Tier};
use crate::rules::{PolicyObject, PortSpec, RuleSpec, Section, Subject, precedence};
use crate::selector::FieldError;
use crate::state::RuleAction;

/// The priorities that objects may have.
const LAST_PRIORITY: u32 = 1000;
/// How many rules of one direction an object may have: v1alpha1's limit, which is the higher one.
const MOST_RULES: usize = 100;
/// Longest name of a rule, and most peers, protocols and networks in one.
const LONGEST_NAME: usize = 100;

/// Compiles the object. What is returned must not be used when anything was added to `errors`.
pub(super) fn compile(
    kind: Kind,
    object: &Object,
    origin: Arc<str>,
    errors: &mut Vec<FieldError>,
) -> PolicyObject {
    let mut compiler = Compiler { kind, origin: &origin, errors, warnings: Vec::new() };
    let base = compiler.base(object);
    let subject =
        compiler.pods(&object.spec.subject, "spec.subject").map_or(Subject::Nobody, Subject::Endpoints);
    let ingress = compiler.section("ingress", object.spec.ingress.as_deref(), base);
    let egress = compiler.section("egress", object.spec.egress.as_deref(), base);
    let warnings = compiler.warnings;
    PolicyObject { origin, subject, ingress, egress, warnings }
}

/// The precedence of the first rule of an object with a priority. Below those of every priority there is room for the
/// rules of a `BaselineAdminNetworkPolicy`.
const fn first_of(tier: u32, priority: u32) -> u32 {
    tier + (LAST_PRIORITY - priority + 2) * PRECEDENCES - 1
}

struct Compiler<'a> {
    kind: Kind,
    origin: &'a str,
    errors: &'a mut Vec<FieldError>,
    warnings: Vec<String>,
}

/// How many precedences one priority has, more than an object has rules.
pub(super) const PRECEDENCES: u32 = 128;

impl Compiler<'_> {
    /// The precedence of the first rule; others follow below it.
    fn base(&mut self, object: &Object) -> u32 {
        let spec = &object.spec;
        if self.kind == Kind::Baseline {
            if object.metadata.name != "default" {
                self.error("metadata.name", "has to be \"default\": a cluster has one such object");
            }
            self.refuse("spec.priority", spec.priority.is_some(), "is no field of this kind");
        }
        let tier = match (self.kind, spec.tier) {
            (Kind::Cluster, Some(Tier::Admin)) | (Kind::Admin, None) => precedence::ADMIN,
            (Kind::Cluster, Some(Tier::Baseline)) => precedence::BASELINE,
            // What every ClusterNetworkPolicy of the tier comes before.
            (Kind::Baseline, None) => return precedence::BASELINE + PRECEDENCES - 1,
            (Kind::Cluster, None) => {
                self.error("spec.tier", "is missing");
                precedence::ADMIN
            }
            (Kind::Admin | Kind::Baseline, Some(_)) => {
                self.error("spec.tier", "is no field of this kind");
                precedence::ADMIN
            }
        };
        let Some(given) = spec.priority else {
            self.error("spec.priority", "is missing");
            return tier;
        };
        let priority = u32::try_from(given).ok().filter(|priority| *priority <= LAST_PRIORITY);
        if priority.is_none() {
            self.error("spec.priority", format!("{given} is not within 0 to {LAST_PRIORITY}"));
        }
        priority.map_or(tier, |priority| first_of(tier, priority))
    }

    fn section(&mut self, direction: &'static str, rules: Option<&[Rule]>, base: u32) -> Option<Section> {
        let rules = rules.filter(|rules| !rules.is_empty())?;
        if rules.len() > MOST_RULES {
            self.error(
                &format!("spec.{direction}"),
                format!("has {} rules, at most {MOST_RULES}", rules.len()),
            );
            return None;
        }
        let mut specs = Vec::new();
        for (index, (rule, precedence)) in rules.iter().zip((0..=base).rev()).enumerate() {
            specs.push(self.rule(direction, index, rule, precedence));
        }
        Some(Section { isolates: false, rules: specs })
    }

    fn rule(&mut self, direction: &'static str, index: usize, rule: &Rule, precedence: u32) -> RuleSpec {
        let path = format!("spec.{direction}[{index}]");
        let name = rule.name.as_deref().unwrap_or_default();
        if name.chars().count() > LONGEST_NAME {
            self.error(&format!("{path}.name"), format!("is longer than {LONGEST_NAME} characters"));
        }
        let action = self.action(rule.action, &path);
        let (peers, field, other, foreign) = match direction {
            "ingress" => (&rule.from, "from", "to", rule.to.is_some()),
            _ => (&rule.to, "to", "from", rule.from.is_some()),
        };
        self.refuse(&format!("{path}.{other}"), foreign, "is no field of this direction");
        let peers = self.peers(peers.as_deref(), direction, action, &format!("{path}.{field}"));
        let ports = self.ports(rule, &path);
        // A name of a rule is for people, and stands beside its number.
        let name = if name.is_empty() { String::new() } else { format!(" ({name})") };
        let origin = format!("{}#{direction}[{index}]{name}", self.origin).into();
        RuleSpec { origin, peers, ports, action, precedence }
    }

    fn action(&mut self, action: Action, path: &str) -> RuleAction {
        let path = format!("{path}.action");
        match (action, self.kind) {
            (Action::Accept, Kind::Cluster) | (Action::Allow, Kind::Admin | Kind::Baseline) => {
                RuleAction::Allow
            }
            (Action::Accept, _) => {
                self.error(&path, "is Accept: of this kind it is Allow");
                RuleAction::Deny
            }
            (Action::Allow, _) => {
                self.error(&path, "is Allow: of this kind it is Accept");
                RuleAction::Deny
            }
            (Action::Deny, _) => RuleAction::Deny,
            (Action::Pass, Kind::Baseline) => {
                self.error(&path, "is Pass, but there is nothing below this kind");
                RuleAction::Deny
            }
            (Action::Pass, _) => RuleAction::Pass,
        }
    }

    /// No protocols means every protocol.
    fn ports(&mut self, rule: &Rule, path: &str) -> PortSpec {
        match self.kind {
            Kind::Cluster => {
                self.refuse(
                    &format!("{path}.ports"),
                    rule.ports.is_some(),
                    "is no field of this kind: write protocols",
                );
                self.protocols(rule.protocols.as_deref(), &format!("{path}.protocols"))
            }
            Kind::Admin | Kind::Baseline => {
                let given = rule.protocols.is_some();
                self.refuse(&format!("{path}.protocols"), given, "is no field of this kind: write ports");
                self.old_ports(rule.ports.as_deref(), &format!("{path}.ports"))
            }
        }
    }

    fn refuse(&mut self, path: &str, is_there: bool, why: &str) {
        if is_there {
            self.error(path, why);
        }
    }

    fn error(&mut self, path: &str, message: impl Into<String>) {
        self.errors.push(FieldError::new(path, message));
    }
}
