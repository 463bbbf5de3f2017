//! What is enforced in place of an object that was never valid.

use std::sync::Arc;

use serde::Deserialize as _;
use serde_json::Value;

use super::Kind;
use crate::labels;
use crate::rules::{PeerSpec, PolicyObject, PortSpec, RuleSpec, Section, Subject, precedence};
use crate::selector::{FieldError, LabelSelector, Requirement, Selector};
use crate::state::RuleAction;

/// For an object that was never valid: what denies everything, in its evident directions, to those it evidently selects,
/// where its tier stands. Of administrators, nothing below their tier is then asked; in the baseline, namespaces still
/// decide for those they isolate. `None` where kind, name or subject cannot be read.
#[must_use]
pub fn isolation_of(kind: Kind, raw: &Value) -> Option<PolicyObject> {
    if raw.get("kind")?.as_str()? != kind.of_object().name {
        return None;
    }
    let origin: Arc<str> = kind.name_of(raw)?.into();
    let spec = raw.get("spec")?;
    let subject = subject(spec.get("subject")?)?;
    let is_baseline = kind == Kind::Baseline || spec.get("tier").and_then(Value::as_str) == Some("Baseline");
    let precedence = if is_baseline { precedence::BASELINE } else { precedence::ADMIN };
    let section = |direction: &str| {
        let concerns = match spec.get(direction) {
            None | Some(Value::Null) => false,
            Some(Value::Array(rules)) => !rules.is_empty(),
            Some(_) => true,
        };
        concerns.then(|| Section {
            isolates: false,
            rules: vec![RuleSpec {
                origin: format!("{origin}#{direction}").into(),
                peers: PeerSpec::Any,
                ports: PortSpec::Any,
                action: RuleAction::Deny,
                precedence,
            }],
        })
    };
    let (ingress, egress) = (section("ingress"), section("egress"));
    let warnings = vec!["was never valid: denies everything to what it selects".to_owned()];
    (ingress.is_some() || egress.is_some()).then(|| PolicyObject {
        origin: Arc::clone(&origin),
        subject: Subject::Endpoints(subject),
        ingress,
        egress,
        warnings,
    })
}

fn subject(raw: &Value) -> Option<Selector> {
    let mut errors = Vec::new();
    let selector = match (raw.get("namespaces"), raw.get("pods")) {
        (Some(namespaces), None) => compiled(namespaces, labels::NAMESPACE_LABEL_PREFIX, &mut errors)?,
        (None, Some(pods)) => {
            let namespaces = match pods.get("namespaceSelector") {
                Some(namespaces) => compiled(namespaces, labels::NAMESPACE_LABEL_PREFIX, &mut errors)?,
                None => Selector::default(),
            };
            namespaces.and_all(compiled(pods.get("podSelector")?, labels::OBJECT_PREFIX, &mut errors)?)
        }
        _ => return None,
    };
    errors.is_empty().then(|| selector.and(Requirement::exists(labels::NAMESPACE)))
}

fn compiled(raw: &Value, prefix: &str, errors: &mut Vec<FieldError>) -> Option<Selector> {
    LabelSelector::deserialize(raw).ok().map(|selector| selector.compile(prefix, "spec.subject", errors))
}
