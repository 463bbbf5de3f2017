//! `outrigger policy list` and `outrigger policy trace`.

use proto::v1::{
    ListPoliciesRequest, ListPoliciesResponse, PolicyRule, TracePolicyRequest, TracePolicyResponse,
};
use serde_json::{Value, json};

use crate::arguments::{Format, Trace};
use crate::connection::Client;
use crate::failure::Failure;
use crate::output::{self, Colour};

/// Lists the rules that apply to this host, and the defaults.
pub(crate) async fn list(mut client: Client, format: Format, nic: bool) -> Result<(), Failure> {
    let response = client.list_policies(ListPoliciesRequest { nic }).await?.into_inner();
    let ListPoliciesResponse { rules, ingress_default_deny, egress_default_deny, ingress_by, egress_by } =
        response;
    if format == Format::Json {
        return output::json(&json!({
            "rules": rules.iter().map(rule_as_json).collect::<Vec<_>>(),
            "ingress": { "defaultDeny": ingress_default_deny, "by": ingress_by },
            "egress": { "defaultDeny": egress_default_deny, "by": egress_by },
        }));
    }
    if !rules.is_empty() {
        let row = |rule: PolicyRule| {
            vec![rule.direction, rule.tier, rule.action, rule.peers, rule.ports, rule.origin]
        };
        let head = ["DIRECTION", "TIER", "ACTION", "PEERS", "PORTS", "RULE"];
        output::table(&head, rules.into_iter().map(row))?;
    }
    output::line(&default("ingress", ingress_default_deny, &ingress_by))?;
    output::line(&default("egress", egress_default_deny, &egress_by))
}

fn rule_as_json(rule: &PolicyRule) -> Value {
    json!({
        "direction": rule.direction,
        "origin": rule.origin,
        "peers": rule.peers,
        "ports": rule.ports,
        "action": rule.action,
        "tier": rule.tier,
    })
}

fn default(direction: &str, deny: bool, by: &[String]) -> String {
    if deny {
        format!("{direction}: what no rule allows is denied, by {}", by.join(", "))
    } else {
        format!("{direction}: what no rule denies is allowed, no policy isolates this host")
    }
}

/// What the agent is asked.
pub(crate) fn request(trace: &Trace) -> Result<TracePolicyRequest, Failure> {
    if trace.protocol.has_ports() && trace.port.is_none() {
        return Err(Failure::Usage(format!("{} has ports: say which with --port", trace.protocol.0)));
    }
    Ok(TracePolicyRequest {
        direction: trace.direction.name().to_owned(),
        remote: trace.remote.to_canonical().to_string(),
        protocol: trace.protocol.0.clone(),
        port: trace.port.map(u32::from),
        nic: trace.nic,
    })
}

/// Says what would happen to a flow, and why.
pub(crate) async fn trace(
    mut client: Client,
    request: TracePolicyRequest,
    format: Format,
) -> Result<(), Failure> {
    let trace = client.trace_policy(request.clone()).await?.into_inner();
    if format == Format::Json {
        return output::json(&json!({
            "verdict": trace.verdict,
            "rule": trace.rule,
            "remoteIdentity": trace.remote_identity,
            "remoteOwner": trace.remote_owner,
            "remoteLabels": trace.remote_labels,
            "rules": trace.rules,
            "kernelVerdict": trace.kernel_verdict,
            "tunnel": trace.tunnel,
        }));
    }
    as_text(&request, &trace).iter().try_for_each(|line| output::line(line))
}

fn as_text(request: &TracePolicyRequest, trace: &TracePolicyResponse) -> Vec<String> {
    let owner = if trace.remote_owner.is_empty() { "no name known" } else { &trace.remote_owner };
    let identity = match trace.remote_identity {
        0 => "no endpoint of the mesh".to_owned(),
        identity => format!("{owner}, identity {identity}"),
    };
    let mut lines = vec![format!("remote   {} ({identity})", request.remote)];
    if !trace.remote_labels.is_empty() {
        lines.push(format!("labels   {}", output::labels(&trace.remote_labels)));
    }
    lines.extend(trace.rules.iter().map(|rule| format!("         {rule}")));
    let colour = if trace.verdict == "allow" { Colour::Green } else { Colour::Red };
    lines.push(format!("verdict  {} by {}", output::colour(&trace.verdict, colour), trace.rule));
    if !trace.tunnel.is_empty() {
        lines.push(format!("tunnel   {}", trace.tunnel));
    }
    let decides = matches!(trace.kernel_verdict.as_str(), "allow" | "deny");
    if !decides || trace.kernel_verdict == trace.verdict {
        lines.push(format!("kernel   {}", trace.kernel_verdict));
    } else {
        lines.push(format!(
            "kernel   {}: a change is being published, or the kernel's tables are wrong",
            trace.kernel_verdict
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments::{Direction, Protocol};

    #[test]
    fn a_protocol_with_ports_needs_one() {
        let mut trace = Trace {
            direction: Direction::In,
            remote: "::ffff:10.0.0.1".parse().unwrap(),
            protocol: Protocol("tcp".to_owned()),
            port: None,
            nic: false,
        };
        assert!(matches!(request(&trace), Err(Failure::Usage(_))));
        trace.port = Some(5432);
        let request_made = request(&trace).unwrap();
        assert_eq!((request_made.direction.as_str(), request_made.remote.as_str()), ("ingress", "10.0.0.1"));
        trace.protocol = Protocol("icmp".to_owned());
        trace.port = None;
        assert!(request(&trace).is_ok());
    }

    #[test]
    fn a_kernel_that_differs_stands_out() {
        let differs = TracePolicyResponse {
            verdict: "allow".to_owned(),
            kernel_verdict: "deny".to_owned(),
            ..TracePolicyResponse::default()
        };
        let text = as_text(&TracePolicyRequest::default(), &differs).join("\n");
        assert!(text.contains("deny: a change is being published"), "{text}");
        // What no policy is asked about is no contradiction.
        let dropped = TracePolicyResponse { kernel_verdict: "dropped: unknown_source".to_owned(), ..differs };
        let text = as_text(&TracePolicyRequest::default(), &dropped).join("\n");
        assert!(text.ends_with("kernel   dropped: unknown_source"), "{text}");
    }

    #[test]
    fn defaults_name_their_policies() {
        assert!(
            default("ingress", true, &["NetworkPolicy/a/b".to_owned()]).ends_with("by NetworkPolicy/a/b")
        );
    }
}
