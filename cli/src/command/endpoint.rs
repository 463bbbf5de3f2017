//! `outrigger endpoint list`.

use proto::v1::{EndpointLine, ListEndpointsRequest};
use serde_json::{Value, json};

use crate::arguments::Format;
use crate::connection::Client;
use crate::failure::Failure;
use crate::output;

/// Lists every address of the mesh.
pub(crate) async fn list(mut client: Client, format: Format) -> Result<(), Failure> {
    let endpoints = client.list_endpoints(ListEndpointsRequest {}).await?.into_inner().endpoints;
    if format == Format::Json {
        return output::json(&Value::Array(endpoints.iter().map(as_json).collect()));
    }
    let row = |line: EndpointLine| {
        vec![
            line.address,
            line.kind,
            line.identity.to_string(),
            line.owner,
            line.tunnels.join(", "),
            output::labels(&line.labels),
        ]
    };
    let head = ["ADDRESS", "KIND", "IDENTITY", "OWNER", "TUNNELS", "LABELS"];
    output::table(&head, endpoints.into_iter().map(row))
}

fn as_json(line: &EndpointLine) -> Value {
    json!({
        "address": line.address,
        "identity": line.identity,
        "owner": line.owner,
        "kind": line.kind,
        "tunnels": line.tunnels,
        "labels": line.labels,
    })
}
