//! `outrigger connectivity test`.

use proto::v1::{ConnectivityCheck, TestConnectivityRequest};
use serde_json::json;

use crate::arguments::Format;
use crate::connection::Client;
use crate::failure::Failure;
use crate::output::{self, Colour};

/// Shows each check as it ends; fails if one of them did.
pub(crate) async fn test(mut client: Client, format: Format) -> Result<(), Failure> {
    let mut checks = client.test_connectivity(TestConnectivityRequest {}).await?.into_inner();
    let (mut failed, mut total) = (0_u32, 0_u32);
    while let Some(check) = checks.message().await? {
        total += 1;
        failed += u32::from(check.result == "failed");
        match format {
            Format::Json => output::json_line(&json!({
                "name": check.name,
                "result": check.result,
                "detail": check.detail,
                "advice": check.advice,
            }))?,
            Format::Text => as_text(&check).iter().try_for_each(|line| output::line(line))?,
        }
    }
    if failed > 0 { Err(Failure::Failed(format!("{failed} of {total} checks failed"))) } else { Ok(()) }
}

fn as_text(check: &ConnectivityCheck) -> Vec<String> {
    let colour = match check.result.as_str() {
        "passed" => Colour::Green,
        "skipped" => Colour::Yellow,
        _ => Colour::Red,
    };
    let result = output::colour(&format!("{:<7}", check.result), colour);
    let mut lines = vec![format!("{result} {}: {}", check.name, check.detail)];
    if !check.advice.is_empty() {
        lines.push(format!("        look at: {}", check.advice));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_comes_with_its_advice() {
        let check = ConnectivityCheck {
            name: "tunnel".to_owned(),
            result: "failed".to_owned(),
            detail: "no answer".to_owned(),
            advice: "the firewall on UDP 8479".to_owned(),
        };
        assert_eq!(
            as_text(&check),
            ["failed  tunnel: no answer", "        look at: the firewall on UDP 8479"]
        );
    }
}
