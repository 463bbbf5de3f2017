//! `status`: hosts and how they are, from their objects alone.

use crds::ExternalWorkload;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::Api;
use kube::{Client, ResourceExt as _};
use serde_json::{Value, json};

use crate::arguments::Format;
use crate::cluster;
use crate::failure::Failure;

/// Conditions that every host has.
const COMMON: [&str; 3] = ["Ready", "Connected", "PolicyInSync"];

pub(super) async fn list(client: Client, namespace: Option<&str>, format: Format) -> Result<(), Failure> {
    let api: Api<ExternalWorkload> = match namespace {
        Some(namespace) => Api::namespaced(client, namespace),
        None => Api::all(client),
    };
    let hosts = cluster::list(&api).await?;
    match format {
        Format::Json => {
            console::json(&json!({ "workloads": hosts.iter().map(as_json).collect::<Vec<_>>() }))?;
        }
        Format::Text if hosts.is_empty() => match namespace {
            Some(namespace) => console::note(&format!("no hosts in namespace {namespace}; -A shows all")),
            None => console::note("no hosts"),
        },
        Format::Text => {
            let head = ["NAMESPACE", "NAME", "GROUP", "ADDRESSES", "READY", "AGENT", "AWAY SINCE", "ALSO"];
            console::table(&head, hosts.iter().map(row))?;
        }
    }
    Ok(())
}

fn row(host: &ExternalWorkload) -> Vec<String> {
    let status = host.status.clone().unwrap_or_default();
    let ready = condition(&status.conditions, "Ready");
    let ready = ready.map_or("Unknown", |ready| if ready.status == "True" { "yes" } else { &*ready.reason });
    let is_away = condition(&status.conditions, "Connected").is_some_and(|found| found.status == "False");
    let also =
        status.conditions.iter().filter(|found| !COMMON.contains(&&*found.type_) && found.status == "True");
    let dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
    vec![
        host.namespace().unwrap_or_default(),
        host.name_any(),
        host.spec.group.clone(),
        dash(addresses(host).join(", ")),
        ready.to_owned(),
        dash(status.agent_version.clone().unwrap_or_default()),
        dash(status.last_seen.clone().filter(|_| is_away).unwrap_or_default()),
        dash(also.map(|found| found.type_.clone()).collect::<Vec<_>>().join(", ")),
    ]
}

pub(super) fn as_json(host: &ExternalWorkload) -> Value {
    json!({
        "namespace": host.namespace(), "name": host.name_any(), "group": host.spec.group,
        "addresses": addresses(host), "joined": host.spec.recorded.is_some(), "status": host.status,
    })
}

pub(super) fn addresses(host: &ExternalWorkload) -> Vec<String> {
    host.spec.addresses.iter().map(|address| address.0.clone()).collect()
}

fn condition<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(conditions: &Value) -> ExternalWorkload {
        serde_json::from_value(json!({
            "apiVersion": "outrigger.dev/v1alpha1", "kind": "ExternalWorkload",
            "metadata": {"namespace": "shop", "name": "db-1"},
            "spec": {"group": "db", "addresses": ["10.9.0.1", "fd00::1"]},
            "status": {"agentVersion": "0.1.0", "lastSeen": "2026-01-01T00:00:00Z", "conditions": conditions},
        }))
        .unwrap()
    }

    fn said(kind: &str, status: &str, reason: &str) -> Value {
        json!({"type": kind, "status": status, "reason": reason, "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z"})
    }

    #[test]
    fn a_row_says_why_a_host_is_not_ready_and_since_when_it_is_away() {
        let away =
            host(&json!([said("Ready", "False", "NoSession"), said("Connected", "False", "NoSession")]));
        let expected =
            ["shop", "db-1", "db", "10.9.0.1, fd00::1", "NoSession", "0.1.0", "2026-01-01T00:00:00Z", "-"];
        assert_eq!(row(&away), expected);
        let here = host(&json!([
            said("Ready", "True", "Ready"),
            said("Connected", "True", "Session"),
            said("DuplicateHost", "True", "TwoMachines")
        ]));
        assert_eq!(row(&here)[4..], ["yes", "0.1.0", "-", "DuplicateHost"]);
        assert_eq!(row(&host(&json!([])))[4], "Unknown");
    }
}
