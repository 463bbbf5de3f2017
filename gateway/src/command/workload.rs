//! `workload list|describe|replace|delete`.

use clap::Subcommand;
use proto::v1;
use serde_json::{Value, json};

use super::connection::Arguments;
use super::failure::Failure;
use super::output::{self, Format};
use super::token;
use crate::config::Lasting;
use crate::store::WorkloadName;

#[derive(Debug, Subcommand)]
pub(super) enum Action {
    /// Lists the hosts that joined.
    List,
    /// Shows all of one host: addresses, labels, the policies that select it, its agent's state.
    Describe {
        /// The workload.
        #[arg(value_name = "NAMESPACE/NAME")]
        name: WorkloadName,
    },
    /// Makes a token with which a new machine takes over the name and addresses of a lost one.
    #[command(
        after_help = "The old machine keeps its access until the new one has joined; then its key is revoked."
    )]
    Replace {
        /// The workload.
        #[arg(value_name = "NAMESPACE/NAME")]
        name: WorkloadName,
        /// How long the token is valid.
        #[arg(long, value_name = "TIME", default_value = "24h")]
        ttl: Lasting,
    },
    /// Removes a host from the mesh and revokes its key, at once.
    Delete {
        /// The workload.
        #[arg(value_name = "NAMESPACE/NAME")]
        name: WorkloadName,
    },
}

/// Does what the command line says.
pub(super) async fn run(arguments: Arguments<Action>) -> Result<(), Failure> {
    let mut client = arguments.connection.connect().await?;
    let format = arguments.connection.output;
    match arguments.action {
        Action::List => {
            let listed = client.list_workloads(v1::ListWorkloadsRequest {}).await?.into_inner();
            show_all(&listed.workloads, format)
        }
        Action::Describe { name } => {
            let request = v1::DescribeWorkloadRequest { namespace: name.namespace, name: name.name };
            show_one(&client.describe_workload(request).await?.into_inner(), format)
        }
        Action::Replace { name, ttl } => {
            let ttl_seconds = token::ttl_seconds(ttl)?;
            let request =
                v1::ReplaceWorkloadRequest { namespace: name.namespace, name: name.name, ttl_seconds };
            token::show_token(&client.replace_workload(request).await?.into_inner(), format)
        }
        Action::Delete { name } => {
            let text = name.to_string();
            let request = v1::DeleteWorkloadRequest { namespace: name.namespace, name: name.name };
            client.delete_workload(request).await?;
            match format {
                Format::Json => output::json(&json!({ "workload": text, "deleted": true })),
                Format::Text => output::line(&format!("workload {text} deleted, its key is revoked")),
            }
        }
    }
}

fn show_all(workloads: &[v1::Workload], format: Format) -> Result<(), Failure> {
    if format == Format::Json {
        let workloads: Vec<Value> = workloads.iter().map(as_json).collect();
        return output::json(&json!({ "workloads": workloads }));
    }
    let head = ["NAME", "GROUP", "IDENTITY", "MESH ADDRESSES", "CONNECTED", "LAST SEEN", "AGENT"];
    output::table(
        &head,
        workloads.iter().map(|workload| {
            vec![
                format!("{}/{}", workload.namespace, workload.name),
                part(workload),
                workload.identity.to_string(),
                workload.mesh_addresses.join(", "),
                if workload.connected { "yes" } else { "no" }.to_owned(),
                output::moment(workload.last_seen),
                workload.agent_version.clone(),
            ]
        }),
    )
}

fn part(workload: &v1::Workload) -> String {
    match (workload.transit_node.as_str(), workload.node.as_str()) {
        ("", "") => workload.group.clone(),
        ("", node) => format!("node {node}"),
        (node, _) => format!("transit node {node}"),
    }
}

fn show_one(described: &v1::DescribeWorkloadResponse, format: Format) -> Result<(), Failure> {
    let workload = described.workload.clone().unwrap_or_default();
    if format == Format::Json {
        let mut value = as_json(&workload);
        for (key, more) in [
            ("labels", json!(described.labels)),
            ("policies", json!(described.policies)),
            ("ingressDefaultDeny", json!(described.ingress_default_deny)),
            ("egressDefaultDeny", json!(described.egress_default_deny)),
        ] {
            if let Some(object) = value.as_object_mut() {
                object.insert(key.to_owned(), more);
            }
        }
        return output::json(&value);
    }
    let default = |deny: bool| if deny { "deny what no policy allows" } else { "allow" }.to_owned();
    output::list(&[
        ("Name", format!("{}/{}", workload.namespace, workload.name)),
        ("Group", part(&workload)),
        ("Identity", workload.identity.to_string()),
        ("Labels", described.labels.clone()),
        ("Mesh addresses", workload.mesh_addresses.join(", ")),
        ("Underlay addresses", workload.underlay_addresses.join(", ")),
        ("Policies", described.policies.join(", ")),
        ("Ingress default", default(described.ingress_default_deny)),
        ("Egress default", default(described.egress_default_deny)),
        ("Connected", if workload.connected { "yes" } else { "no" }.to_owned()),
        ("Last seen", output::moment(workload.last_seen)),
        ("Agent", workload.agent_version.clone()),
        ("Generation", workload.acked_generation.to_string()),
        ("Rejected", workload.rejected_reason.clone()),
        ("Certificate until", output::moment(workload.certificate_expires)),
    ])?;
    for condition in workload.conditions.iter().filter(|condition| condition.status) {
        output::line(&format!("{} ({}): {}", condition.r#type, condition.reason, condition.message))?;
    }
    Ok(())
}

fn as_json(workload: &v1::Workload) -> Value {
    let conditions = workload.conditions.iter().map(|condition| {
        json!({
            "type": condition.r#type,
            "status": condition.status,
            "reason": condition.reason,
            "message": condition.message,
        })
    });
    json!({
        "namespace": workload.namespace,
        "name": workload.name,
        "group": workload.group,
        "transitNode": workload.transit_node,
        "node": workload.node,
        "identity": workload.identity,
        "meshAddresses": workload.mesh_addresses,
        "underlayAddresses": workload.underlay_addresses,
        "connected": workload.connected,
        "lastSeen": workload.last_seen,
        "agentVersion": workload.agent_version,
        "ackedGeneration": workload.acked_generation,
        "rejectedReason": workload.rejected_reason,
        "certificateExpires": workload.certificate_expires,
        "conditions": conditions.collect::<Vec<_>>(),
    })
}
