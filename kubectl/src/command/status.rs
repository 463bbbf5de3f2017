//! `status`: hosts and how they are, from their objects alone.

use crds::ExternalWorkload;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt as _};
use serde_json::{Value, json};

use crate::arguments::Format;
use crate::failure::Failure;

/// Objects of a page of the list.
const PAGE: u32 = 500;

pub(super) async fn list(client: Client, namespace: Option<&str>, format: Format) -> Result<(), Failure> {
    let api: Api<ExternalWorkload> = match namespace {
        Some(namespace) => Api::namespaced(client, namespace),
        None => Api::all(client),
    };
    let mut hosts = Vec::new();
    let mut parameters = ListParams::default().limit(PAGE);
    loop {
        let page = api.list(&parameters).await.map_err(Failure::cluster("externalworkloads"))?;
        hosts.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => parameters = parameters.continue_token(&token),
            None => break,
        }
    }
    match format {
        Format::Json => {
            console::json(&json!({ "workloads": hosts.iter().map(as_json).collect::<Vec<_>>() }))?
        }
        Format::Text if hosts.is_empty() => console::note("no hosts"),
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
    let common = ["Ready", "Connected", "PolicyInSync"];
    let also =
        status.conditions.iter().filter(|found| !common.contains(&&*found.type_) && found.status == "True");
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

fn as_json(host: &ExternalWorkload) -> Value {
    json!({
        "namespace": host.namespace(), "name": host.name_any(), "group": host.spec.group,
        "addresses": addresses(host), "joined": host.spec.recorded.is_some(), "status": host.status,
    })
}

fn addresses(host: &ExternalWorkload) -> Vec<String> {
    host.spec.addresses.iter().map(|address| address.0.clone()).collect()
}

fn condition<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == kind)
}
