//! `status`.

use proto::v1;
use serde_json::{Value, json};

use super::connection::Connection;
use super::failure::Failure;
use super::output::{self, Format};

/// Shows the gateway's state.
pub(super) async fn run(connection: &Connection) -> Result<(), Failure> {
    let mut client = connection.connect().await?;
    let status = client.status(v1::GatewayStatusRequest {}).await?.into_inner();
    match connection.output {
        Format::Json => output::json(&as_json(&status)),
        Format::Text => show(&status),
    }
}

fn show(status: &v1::GatewayStatusResponse) -> Result<(), Failure> {
    let synced = if status.synced { "yes" } else { "no: the manifests are not read whole yet" };
    output::list(&[
        ("Version", status.version.clone()),
        ("Synced", synced.to_owned()),
        ("Generation", status.generation.to_string()),
        ("Sessions", status.sessions.to_string()),
        ("Endpoints", status.endpoints.to_string()),
        ("Identities", status.identities.to_string()),
        ("Policies", status.policies.to_string()),
        ("Rejected objects", status.rejected.len().to_string()),
        ("Warnings", status.warnings.len().to_string()),
    ])?;
    if !status.warnings.is_empty() {
        output::line("")?;
        status.warnings.iter().try_for_each(|warning| output::line(&format!("warning: {warning}")))?;
    }
    if status.rejected.is_empty() {
        return Ok(());
    }
    output::line("")?;
    let head = ["FILE", "OBJECT", "IN FORCE", "REASON"];
    output::table(
        &head,
        status.rejected.iter().map(|object| {
            let in_force = if object.last_good_in_force { "last good version" } else { "nothing" };
            let name = output::or_dash(object.object.clone());
            vec![object.file.clone(), name, in_force.to_owned(), object.reason.clone()]
        }),
    )
}

fn as_json(status: &v1::GatewayStatusResponse) -> Value {
    let rejected = status.rejected.iter().map(|object| {
        json!({
            "file": object.file,
            "object": object.object,
            "reason": object.reason,
            "lastGoodInForce": object.last_good_in_force,
        })
    });
    json!({
        "version": status.version,
        "synced": status.synced,
        "generation": status.generation,
        "sessions": status.sessions,
        "endpoints": status.endpoints,
        "identities": status.identities,
        "policies": status.policies,
        "rejected": rejected.collect::<Vec<_>>(),
        "warnings": status.warnings,
    })
}
