//! `outrigger seal`.

use proto::v1::{SealRequest, SealResponse};
use serde_json::json;

use crate::arguments::Format;
use crate::connection::Client;
use crate::failure::Failure;
use crate::output;

/// Makes this machine's disk an image that can be copied, and lists what was removed.
pub(crate) async fn run(mut client: Client, format: Format) -> Result<(), Failure> {
    let SealResponse { removed } = client.seal(SealRequest {}).await?.into_inner();
    if format == Format::Json {
        return output::json(&json!({ "removed": removed }));
    }
    if removed.is_empty() {
        return output::line("Nothing had to be removed: this disk may be copied.");
    }
    output::line("This disk may be copied; every copy joins with a token of its own. Removed:")?;
    removed.iter().try_for_each(|item| output::line(&format!("  {item}")))
}
