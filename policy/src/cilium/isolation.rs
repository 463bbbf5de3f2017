//! What is enforced in place of an object that was never valid.

use std::sync::Arc;

use serde::Deserialize as _;
use serde_json::Value;

use super::{Kind, selector};
use crate::labels;
use crate::rules::{PolicyObject, Section, Subject};
use crate::selector::{LabelSelector, Requirement};

/// For an object that was never valid: what isolates the workloads that each of its specifications evidently selects, in
/// its evident directions, and allows nothing. Nothing for a specification whose selector cannot be read, and for an
/// object whose kind or name cannot.
#[must_use]
pub fn isolation_of(kind: Kind, raw: &Value) -> Vec<PolicyObject> {
    let is_kind = raw.get("kind").and_then(Value::as_str) == Some(kind.of_object().name);
    let Some(origin) = kind.name_of(raw).filter(|_| is_kind) else { return Vec::new() };
    let namespace = match kind {
        Kind::Namespaced => origin.split('/').nth(1),
        Kind::Clusterwide => None,
    };
    let spec = raw.get("spec").map(|spec| (spec, Arc::from(origin.as_str())));
    let specs = raw.get("specs").and_then(Value::as_array).into_iter().flatten().enumerate();
    let specs = specs.map(|(index, spec)| (spec, Arc::from(format!("{origin}#specs[{index}]"))));
    spec.into_iter().chain(specs).filter_map(|(spec, origin)| of_spec(spec, origin, namespace)).collect()
}

fn of_spec(spec: &Value, origin: Arc<str>, namespace: Option<&str>) -> Option<PolicyObject> {
    let text = LabelSelector::deserialize(spec.get("endpointSelector")?).ok()?;
    let mut errors = Vec::new();
    let selector = selector::plain(&text, "endpointSelector", &mut errors);
    if !errors.is_empty() {
        return None;
    }
    let subject = Subject::Endpoints(match namespace {
        Some(namespace) => selector.and(Requirement::is(labels::NAMESPACE, namespace)),
        None => selector,
    });
    let concerns = |allow: &str, deny: &str, direction: &str| {
        let is_there = |field: &str| match spec.get(field) {
            None | Some(Value::Null) => false,
            Some(Value::Array(rules)) => !rules.is_empty(),
            Some(_) => true,
        };
        let wanted = spec.get("enableDefaultDeny").and_then(|wanted| wanted.get(direction));
        match wanted.and_then(Value::as_bool) {
            // It asked not to isolate; what it would have denied is not known, so that the rest is not let through.
            Some(false) => is_there(deny),
            Some(true) => true,
            None => is_there(allow) || is_there(deny),
        }
    };
    let section = |isolates: bool| isolates.then(|| Section::isolating(Vec::new()));
    let ingress = section(concerns("ingress", "ingressDeny", "ingress"));
    let egress = section(concerns("egress", "egressDeny", "egress"));
    let warnings = vec!["was never valid: isolates what it selects and allows nothing".to_owned()];
    (ingress.is_some() || egress.is_some()).then_some(PolicyObject {
        origin,
        subject,
        ingress,
        egress,
        warnings,
    })
}
