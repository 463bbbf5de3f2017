//! `outrigger leave`.

use proto::v1::{AgentLeaveRequest, AgentLeaveResponse};
use serde_json::json;

use crate::arguments::Format;
use crate::connection::Client;
use crate::failure::Failure;
use crate::output;

/// Leaves the mesh, and lists what was removed.
pub(crate) async fn run(mut client: Client, force: bool, format: Format) -> Result<(), Failure> {
    let AgentLeaveResponse { removed, gateway_error } =
        client.leave(AgentLeaveRequest { force }).await?.into_inner();
    if format == Format::Json {
        return output::json(&json!({ "removed": removed, "gatewayError": gateway_error }));
    }
    output::line("This host left the mesh. Removed:")?;
    for item in &removed {
        output::line(&format!("  {item}"))?;
    }
    if gateway_error.is_empty() {
        output::line("The gateway was told.")
    } else {
        output::line(&format!(
            "The gateway was not told: {gateway_error}\nThe workload stays there until an administrator deletes it."
        ))
    }
}
