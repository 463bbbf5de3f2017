//! `outrigger enforce`.

use jiff::Timestamp;
use proto::v1::{EnforceRequest, EnforceResponse};
use serde_json::json;

use crate::arguments::Format;
use crate::connection::Client;
use crate::failure::Failure;
use crate::output;

/// Has policy on the NICs only reported for so many seconds, or enforced again.
pub(crate) async fn run(mut client: Client, audit_seconds: u64, format: Format) -> Result<(), Failure> {
    let EnforceResponse { audit_until } =
        client.enforce(EnforceRequest { audit_seconds }).await?.into_inner();
    if format == Format::Json {
        return output::json(&json!({ "auditUntil": audit_until }));
    }
    if audit_until == 0 {
        return output::line("Policy on the NICs is enforced again, as its mode says.");
    }
    let until = i64::try_from(audit_until).ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
    let until = until.map_or_else(|| audit_until.to_string(), |until| until.to_string());
    output::line(&format!("Policy on the NICs is only reported until {until}."))
}
