//! What is enforced in place of an object that was never valid.

use serde_json::Value;

use super::{KIND, name_of, subject};
use crate::rules::{PolicyObject, Section, Subject};
use crate::selector::LabelSelector;

/// For an object that was never valid: what isolates the workloads it evidently selects, in its evident directions,
/// and allows nothing. `None` where kind, name or `spec.podSelector` cannot be read: such an object touches nothing.
/// An absent `podSelector` is not evident either; it is often a misspelt one.
#[must_use]
pub fn isolation_of(raw: &Value) -> Option<PolicyObject> {
    if raw.get("kind")?.as_str()? != KIND {
        return None;
    }
    let origin = name_of(raw)?;
    let namespace = origin.split('/').nth(1)?.to_owned();
    let spec = raw.get("spec")?;
    let selector: LabelSelector = serde::Deserialize::deserialize(spec.get("podSelector")?).ok()?;
    let mut errors = Vec::new();
    let subject = subject(Some(&selector), &namespace, &mut errors);
    if !errors.is_empty() {
        return None;
    }
    let (ingress, egress) = directions(spec);
    Some(PolicyObject {
        origin: origin.into(),
        subject: Subject::Endpoints(subject),
        ingress: ingress.then(|| Section::isolating(Vec::new())),
        egress: egress.then(|| Section::isolating(Vec::new())),
        warnings: vec!["was never valid: isolates what it selects and allows nothing".to_owned()],
    })
}

/// (ingress, egress). What `policyTypes` says; where it is missing or has entries that say nothing, also what the
/// presence of rules says.
fn directions(spec: &Value) -> (bool, bool) {
    let present = |field: &str| match spec.get(field) {
        None | Some(Value::Null) => false,
        Some(Value::Array(rules)) => !rules.is_empty(),
        Some(_) => true,
    };
    let types: &[Value] = spec.get("policyTypes").and_then(Value::as_array).map_or(&[], Vec::as_slice);
    let named = |name: &str| types.iter().any(|kind| kind.as_str() == Some(name));
    let unclear =
        types.is_empty() || types.iter().any(|kind| !matches!(kind.as_str(), Some("Ingress" | "Egress")));
    let (ingress, egress) = (named("Ingress"), named("Egress"));
    if !unclear {
        return (ingress, egress);
    }
    let egress = egress || present("egress");
    (ingress || present("ingress") || types.is_empty() || !egress, egress)
}
