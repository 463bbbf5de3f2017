//! `workload describe`: what its object says, and what selects it.

use crds::{ExternalWorkload, ExternalWorkloadStatus};
use gateway::check::Governed;
use gateway::store::WorkloadName;
use kube::Client;
use kube::api::Api;
use serde_json::{Value, json};

use super::{check, status};
use crate::arguments::Format;
use crate::failure::Failure;

pub(super) async fn show(
    client: Client,
    namespace: &str,
    name: &str,
    cluster_name: &str,
    format: Format,
) -> Result<(), Failure> {
    let full =
        WorkloadName::try_new(namespace, name).map_err(|invalid| Failure::Usage(invalid.to_string()))?;
    let api: Api<ExternalWorkload> = Api::namespaced(client.clone(), namespace);
    let host = api.get(name).await.map_err(Failure::cluster(format!("ExternalWorkload {full}")))?;
    // The object is worth something without the rest, which takes more rights.
    let governed = match check::standing(&client, cluster_name).await {
        Ok(standing) => Ok(standing.governed(&full)),
        Err(failure) => Err(failure),
    };
    match format {
        Format::Json => console::json(&as_json(&host, governed.as_ref().ok().and_then(Option::as_ref)))?,
        Format::Text => as_text(&host, &full, governed.as_ref().ok().and_then(Option::as_ref))?,
    }
    match governed {
        Ok(Some(_)) => Ok(()),
        Ok(None) => {
            console::note(
                "No policy is known to select it: no host has joined under this name, or its group is missing.",
            );
            Ok(())
        }
        Err(failure) => Err(failure),
    }
}

fn as_text(host: &ExternalWorkload, name: &WorkloadName, governed: Option<&Governed>) -> Result<(), Failure> {
    let default = |deny: bool| if deny { "deny what no policy allows" } else { "allow" }.to_owned();
    let known = host.status.clone().unwrap_or_default();
    let ExternalWorkloadStatus {
        identity,
        agent_version,
        underlay,
        certificate_expires,
        last_seen,
        conditions,
    } = known;
    let recorded = host.spec.recorded.as_ref();
    let of = |read: fn(&Governed) -> String| governed.map(read).unwrap_or_default();
    console::list(&[
        ("Name", name.to_string()),
        ("Group", host.spec.group.clone()),
        ("Identity", identity.map(|number| number.to_string()).unwrap_or_default()),
        ("Labels", of(|governed| governed.labels.clone())),
        ("Mesh addresses", status::addresses(host).join(", ")),
        ("Underlay addresses", underlay.iter().map(|claim| &*claim.address).collect::<Vec<_>>().join(", ")),
        ("Policies", of(|governed| governed.policies.iter().cloned().collect::<Vec<_>>().join(", "))),
        (
            "Ingress default",
            governed.map(|governed| default(governed.ingress_default_deny)).unwrap_or_default(),
        ),
        (
            "Egress default",
            governed.map(|governed| default(governed.egress_default_deny)).unwrap_or_default(),
        ),
        ("Joined", recorded.map(|recorded| recorded.joined_at.clone()).unwrap_or_default()),
        ("Joined with", recorded.map(|recorded| recorded.joined_with.clone()).unwrap_or_default()),
        ("Agent", agent_version.unwrap_or_default()),
        ("Certificate until", certificate_expires.unwrap_or_default()),
        ("Session ended last", last_seen.unwrap_or_default()),
    ])?;
    for condition in &conditions {
        let holds = if condition.status == "True" { "" } else { "not " };
        console::line(&format!("{holds}{} ({}): {}", condition.type_, condition.reason, condition.message))?;
    }
    for line in governed.into_iter().flat_map(|governed| governed.rejected.iter()) {
        console::line(&format!("refused: {line}"))?;
    }
    for line in governed.into_iter().flat_map(|governed| governed.partly_enforced.iter()) {
        console::line(&format!("not enforced as written: {line}"))?;
    }
    Ok(())
}

fn as_json(host: &ExternalWorkload, governed: Option<&Governed>) -> Value {
    let mut value = status::as_json(host);
    if let (Some(fields), Some(governed)) = (value.as_object_mut(), governed) {
        for (key, field) in [
            ("labels", json!(governed.labels)),
            ("policies", json!(governed.policies)),
            ("ingressDefaultDeny", json!(governed.ingress_default_deny)),
            ("egressDefaultDeny", json!(governed.egress_default_deny)),
            ("rejected", json!(governed.rejected)),
            ("partlyEnforced", json!(governed.partly_enforced)),
        ] {
            fields.insert(key.to_owned(), field);
        }
    }
    value
}
