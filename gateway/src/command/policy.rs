//! `policy check`.

use std::io::Read as _;
use std::path::PathBuf;

use clap::Subcommand;
use proto::v1;
use serde_json::{Value, json};

use super::connection::Arguments;
use super::failure::Failure;
use super::output::{self, Format};
use crate::check::{Checked, File, Refusal, read};

#[derive(Debug, Subcommand)]
pub(super) enum Action {
    /// Says what manifests would do, and puts nothing in force: whether they are valid, which hosts they select, and which
    /// verdicts change against what is in force now.
    #[command(
        after_help = "A file in force under the same kind and name counts as replaced. Exit code 1: an object is refused.\n\
                      Examples:\n  outrigger-gateway policy check db.yaml\n  \
                      kustomize build . | outrigger-gateway policy check -\n  \
                      outrigger-gateway policy check --offline policies/*.yaml"
    )]
    Check {
        /// Files of manifests; `-` is standard input.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Looks at the form only, without a gateway.
        #[arg(long)]
        offline: bool,
    },
}

/// Does what the command line says.
pub(super) async fn run(arguments: Arguments<Action>) -> Result<(), Failure> {
    let Action::Check { files, offline } = arguments.action;
    let files = files.iter().map(open).collect::<Result<Vec<_>, _>>()?;
    let format = arguments.connection.output;
    let response = if offline {
        v1::CheckPolicyResponse {
            objects: read(&files).iter().map(form).collect(),
            ..v1::CheckPolicyResponse::default()
        }
    } else {
        let mut client = arguments.connection.connect().await?;
        let files = files.into_iter().map(|File { name, text }| v1::ManifestText { name, text });
        client.check_policy(v1::CheckPolicyRequest { files: files.collect() }).await?.into_inner()
    };
    match format {
        Format::Json => output::json(&as_json(&response, offline))?,
        Format::Text => as_text(&response, offline).iter().try_for_each(|line| output::line(line))?,
    }
    let refused = response.objects.iter().filter(|object| !object.refused.is_empty()).count();
    match refused {
        0 => Ok(()),
        1 => Err(Failure::Failed("an object is refused".to_owned())),
        _ => Err(Failure::Failed(format!("{refused} objects are refused"))),
    }
}

fn open(path: &PathBuf) -> Result<File, Failure> {
    let (name, text) = if path.as_os_str() == "-" {
        let mut text = String::new();
        ("standard input".to_owned(), std::io::stdin().read_to_string(&mut text).map(|_size| text))
    } else {
        (path.display().to_string(), std::fs::read_to_string(path))
    };
    match text {
        Ok(text) => Ok(File { name, text }),
        Err(error) => Err(Failure::Usage(format!("{name} cannot be read: {error}"))),
    }
}

/// What can be said without a mesh.
fn form(checked: &Checked) -> v1::CheckedObject {
    let (key, refused) = match &checked.object {
        Ok((key, _)) => (Some(key), String::new()),
        Err(Refusal { key, reason }) => (key.as_ref(), reason.clone()),
    };
    v1::CheckedObject {
        file: checked.file.clone(),
        line: checked.line,
        object: key.map(ToString::to_string).unwrap_or_default(),
        refused,
        ..v1::CheckedObject::default()
    }
}

fn as_text(response: &v1::CheckPolicyResponse, offline: bool) -> Vec<String> {
    let mut lines: Vec<String> = response.objects.iter().map(|object| object_line(object, offline)).collect();
    lines.extend(response.warnings.iter().map(|warning| format!("warning: {warning}")));
    if offline {
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

fn object_line(object: &v1::CheckedObject, offline: bool) -> String {
    let name = if object.object.is_empty() { "an object" } else { &object.object };
    let place = format!("{}:{}: {name}", object.file, object.line);
    if !object.refused.is_empty() {
        return format!("{place}: refused: {}", object.refused);
    }
    if offline {
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

fn as_json(response: &v1::CheckPolicyResponse, offline: bool) -> Value {
    let objects = response.objects.iter().map(|object| {
        let mut value = json!({
            "file": object.file,
            "line": object.line,
            "object": object.object,
            "valid": object.refused.is_empty(),
            "refused": object.refused,
        });
        if let (false, Some(fields)) = (offline, value.as_object_mut()) {
            fields.insert("selects".to_owned(), json!(object.selects));
            fields.insert("replaces".to_owned(), json!(object.replaces));
        }
        value
    });
    let mut value = json!({ "objects": objects.collect::<Vec<_>>() });
    if let (false, Some(fields)) = (offline, value.as_object_mut()) {
        fields.insert("warnings".to_owned(), json!(response.warnings));
        fields.insert("changes".to_owned(), response.changes.iter().map(change_as_json).collect());
        fields.insert("omitted".to_owned(), json!(response.omitted));
    }
    value
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
        let lines = as_text(&response, false);
        assert_eq!(
            lines[1],
            "shop/db-1: ingress from shop/web (10.244.0.7) and 2 more like it, TCP 80: allow -> deny"
        );
        assert_eq!(lines.last().unwrap(), "... and 2 more");
    }

    #[test]
    fn without_a_gateway_only_the_form_is_judged() {
        let text = "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n---\napiVersion: v1\nkind: Pods\n";
        let file = File { name: "x".to_owned(), text: text.to_owned() };
        let objects: Vec<_> = read(&[file]).iter().map(form).collect();
        let lines = as_text(&v1::CheckPolicyResponse { objects, ..Default::default() }, true);
        assert_eq!(lines[0], "x:1: Namespace/a: valid");
        assert!(lines[1].starts_with("x:6: an object: refused: kind"), "{lines:?}");
        assert_eq!(lines.len(), 2, "nothing is said of verdicts");
    }
}
