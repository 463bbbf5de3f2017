//! An answer for people and for programs.

use proto::v1;
use serde_json::{Value, json};

/// How much an answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Whether objects are valid.
    Form,
    /// Whom objects that are in force select, too.
    InForce,
    /// What they would change, too.
    Change,
}

/// Lines for people.
#[must_use]
pub fn as_text(response: &v1::CheckPolicyResponse, extent: Extent) -> Vec<String> {
    let mut lines: Vec<String> = response.objects.iter().map(|object| object_line(object, extent)).collect();
    lines.extend(response.warnings.iter().map(|warning| format!("warning: {warning}")));
    if extent != Extent::Change {
        return lines;
    }
    if response.changes.is_empty() {
        lines.push("No verdict changes.".to_owned());
        return lines;
    }
    lines.push(String::new());
    for change in &response.changes {
        let preposition = if change.direction == "ingress" { "from" } else { "to" };
        lines.push(format!(
            "{}: {} {preposition} {}, {}: {} -> {}",
            change.workloads.join(", "),
            change.direction,
            remote(change),
            change.ports,
            change.before,
            change.after,
        ));
        lines.push(format!("    before: {}", change.before_rule));
        lines.push(format!("    after:  {}", change.after_rule));
    }
    if response.omitted > 0 {
        lines.push(format!("... and {} more", response.omitted));
    }
    lines
}

/// How many objects are refused, in words; `None`: none is.
#[must_use]
pub fn refusals(response: &v1::CheckPolicyResponse) -> Option<String> {
    match response.objects.iter().filter(|object| !object.refused.is_empty()).count() {
        0 => None,
        1 => Some("an object is refused".to_owned()),
        refused => Some(format!("{refused} objects are refused")),
    }
}

fn object_line(object: &v1::CheckedObject, extent: Extent) -> String {
    let name = if object.object.is_empty() { "an object" } else { &object.object };
    let place = match (object.file.as_str(), object.line) {
        ("", _) => name.to_owned(),
        (file, line) => format!("{file}:{line}: {name}"),
    };
    if !object.refused.is_empty() {
        return format!("{place}: refused: {}", object.refused);
    }
    if extent == Extent::Form {
        return format!("{place}: valid");
    }
    let replaces = if object.replaces { ", takes the place of the one in force" } else { "" };
    let selects = match (object.is_policy, object.selects.as_slice()) {
        (false, _) => String::new(),
        (true, []) => ", selects no host".to_owned(),
        (true, names) => format!(", selects {}", names.join(", ")),
    };
    format!("{place}: valid{replaces}{selects}")
}

fn remote(change: &v1::VerdictChange) -> String {
    let others = change.remotes.saturating_sub(1);
    let like = if others > 0 { format!(" and {others} more like it") } else { String::new() };
    match (change.remote_is_endpoint, change.remote_owner.as_str()) {
        (false, _) => format!("{} and addresses like it that no endpoint has", change.remote),
        (true, "") => format!("{}{like}", change.remote),
        (true, owner) => format!("{owner} ({}){like}", change.remote),
    }
}

/// The same for programs.
#[must_use]
pub fn as_json(response: &v1::CheckPolicyResponse, extent: Extent) -> Value {
    let objects = response.objects.iter().map(|object| {
        let mut value = json!({
            "file": object.file,
            "line": object.line,
            "object": object.object,
            "valid": object.refused.is_empty(),
            "refused": object.refused,
        });
        if extent != Extent::Form {
            insert(&mut value, "selects", json!(object.selects));
        }
        if extent == Extent::Change {
            insert(&mut value, "replaces", json!(object.replaces));
        }
        value
    });
    let mut value = json!({ "objects": objects.collect::<Vec<_>>() });
    if extent != Extent::Form {
        insert(&mut value, "warnings", json!(response.warnings));
    }
    if extent == Extent::Change {
        insert(&mut value, "changes", response.changes.iter().map(change_as_json).collect());
        insert(&mut value, "omitted", json!(response.omitted));
    }
    value
}

fn insert(value: &mut Value, key: &str, field: Value) {
    if let Some(fields) = value.as_object_mut() {
        fields.insert(key.to_owned(), field);
    }
}

fn change_as_json(change: &v1::VerdictChange) -> Value {
    json!({
        "workloads": change.workloads,
        "direction": change.direction,
        "remote": change.remote,
        "remoteIsEndpoint": change.remote_is_endpoint,
        "remoteOwner": change.remote_owner,
        "remotes": change.remotes,
        "ports": change.ports,
        "before": { "verdict": change.before, "rule": change.before_rule },
        "after": { "verdict": change.after, "rule": change.after_rule },
    })
}

#[cfg(test)]
mod tests {
    use super::super::{File, form};
    use super::*;

    #[test]
    fn a_change_is_said_in_one_sentence() {
        let change = v1::VerdictChange {
            workloads: vec!["shop/db-1".to_owned()],
            direction: "ingress".to_owned(),
            remote: "10.244.0.7".to_owned(),
            remote_is_endpoint: true,
            remote_owner: "shop/web".to_owned(),
            remotes: 3,
            ports: "TCP 80".to_owned(),
            before: "allow".to_owned(),
            before_rule: "a".to_owned(),
            after: "deny".to_owned(),
            after_rule: "b".to_owned(),
        };
        let response = v1::CheckPolicyResponse { changes: vec![change], omitted: 2, ..Default::default() };
        let lines = as_text(&response, Extent::Change);
        assert_eq!(
            lines[1],
            "shop/db-1: ingress from shop/web (10.244.0.7) and 2 more like it, TCP 80: allow -> deny"
        );
        assert_eq!(lines.last().unwrap(), "... and 2 more");
        assert!(as_text(&response, Extent::InForce).is_empty(), "what is in force changes nothing");
    }

    #[test]
    fn without_a_gateway_only_the_form_is_judged() {
        let text = "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n---\napiVersion: v1\nkind: Pods\n";
        let response = form(&[File { name: "x".to_owned(), text: text.to_owned() }]);
        let lines = as_text(&response, Extent::Form);
        assert_eq!(lines[0], "x:1: Namespace/a: valid");
        assert!(lines[1].starts_with("x:6: an object: refused: kind"), "{lines:?}");
        assert_eq!(lines.len(), 2, "nothing is said of verdicts");
        assert_eq!(refusals(&response).as_deref(), Some("an object is refused"));
        assert_eq!(as_json(&response, Extent::Form)["objects"][0].get("selects"), None);
    }
}
