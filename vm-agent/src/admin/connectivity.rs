//! `outrigger connectivity test`: from this host, with real packets; each failure says what to look at.

use std::net::IpAddr;
use std::sync::Arc;

use async_stream::stream;
use futures_util::Stream;
use policy::state::{Endpoint, EndpointKind, NodeState, Role, RuleAction};
use proto::v1::ConnectivityCheck;
use tokio::task::spawn_blocking;
use tonic::Status;

use super::policies::{Query, flow, icmp};
use crate::agent::Agent;
use crate::echo;
use crate::kernel::Applied;
use crate::member::Member;

mod refusal;

/// Endpoints of a kind that are tried before the check fails.
const TRIES: usize = 4;
/// The least that IPv6 lets a device carry; what a small echo stays below.
const SMALL: u32 = 100;

/// The checks, one after the other.
pub(super) fn run(
    agent: Arc<Agent>,
    member: Arc<Member>,
) -> impl Stream<Item = Result<ConnectivityCheck, Status>> {
    stream! {
        yield Ok(control(&agent));
        yield Ok(enforcement(&agent, &member));
        let running = member.running.borrow().clone();
        let Some(version) = running else {
            yield Ok(skipped("tunnel", "no state is enforced"));
            return;
        };
        let state = member.kernel.in_force(&version.state);
        for address in state.settings.addresses.clone() {
            let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
            let mtu = member.kernel.status().borrow().device.as_ref().map_or(1280, |device| device.mtu);
            yield Ok(tunnel(&state, address, family, mtu).await);
            yield Ok(pod(&state, address, family).await);
        }
        yield Ok(refusal::check(member, state).await);
    }
}

fn control(agent: &Agent) -> ConnectivityCheck {
    let session = agent.report().session;
    if session.connected {
        return passed("control connection", format!("connected to {}", session.gateway));
    }
    let reason = if session.error.is_empty() { "no session yet".to_owned() } else { session.error };
    let advice = format!(
        "whether the gateway runs, and whether a firewall lets TCP to {} through; what is enforced stays",
        if session.gateway.is_empty() { "the gateway" } else { &session.gateway }
    );
    failed("control connection", reason, &advice)
}

fn enforcement(agent: &Agent, member: &Member) -> ConnectivityCheck {
    let name = "enforcement";
    let applied: Applied = member.kernel.applied().borrow().clone();
    let status = member.kernel.status().borrow().clone();
    let error = agent.report().error(Some(&applied));
    let Some(tag) = applied.tag else {
        return failed(
            name,
            format!("nothing is enforced: {error}"),
            "`outrigger status` and the agent's log",
        );
    };
    let missing: Vec<String> =
        status.hooks.iter().filter(|hook| hook.attached.is_none()).map(|hook| hook.device.clone()).collect();
    if !missing.is_empty() {
        return failed(
            name,
            format!("no program on {}", missing.join(", ")),
            "what else manages these devices' tc hooks",
        );
    }
    match status.device {
        Some(device) if device.up => {
            passed(name, format!("generation {} runs on {}, MTU {}", tag.counter, device.name, device.mtu))
        }
        Some(device) => {
            failed(name, format!("{} is down", device.name), "who took it down; `ip link set` raises it")
        }
        None => failed(
            name,
            "the mesh device is missing".to_owned(),
            "the agent's log, and whether another program removes devices",
        ),
    }
}

/// Endpoints of one family that policy lets this host ping.
fn pingable(state: &NodeState, own: IpAddr, wanted: impl Fn(&EndpointKind) -> bool) -> (Vec<IpAddr>, bool) {
    let of_family = |(address, endpoint): &(&IpAddr, &Endpoint)| {
        address.is_ipv4() == own.is_ipv4()
            && !state.settings.addresses.contains(address)
            && wanted(&endpoint.kind)
    };
    let found: Vec<IpAddr> = state.endpoints.iter().filter(of_family).map(|(address, _)| *address).collect();
    let allowed = |address: &IpAddr| {
        let query = Query {
            direction: datapath::Direction::Egress,
            remote: *address,
            protocol: icmp(*address),
            port: 0,
            nic: false,
        };
        policy::evaluate(&state.policy, &flow(state, &query)).action == RuleAction::Allow
    };
    let usable = found.iter().copied().filter(allowed).take(TRIES).collect();
    (usable, !found.is_empty())
}

async fn tunnel(state: &NodeState, own: IpAddr, family: &str, mtu: u32) -> ConnectivityCheck {
    let name = format!("tunnel both ways, full size, {family}");
    let is_node = state.settings.role.is_cluster_node();
    let (mut targets, mut any) = pingable(state, own, |kind| match kind {
        EndpointKind::Transit => true,
        EndpointKind::Workload => is_node,
        EndpointKind::Pod { .. } | EndpointKind::Node => false,
    });
    if targets.is_empty() && !is_node {
        let (pods, any_pod) = pingable(state, own, |kind| matches!(kind, EndpointKind::Pod { .. }));
        (targets, any) = (pods, any || any_pod);
    }
    if targets.is_empty() {
        return skipped(
            &name,
            if any { "policy lets this host ping nothing" } else { "there is nothing to ping" },
        );
    }
    let tried = ping(Some(own), targets, mtu).await;
    match tried {
        Ok((target, time)) => passed(&name, format!("{target} answered {mtu} bytes in {time:.1} ms")),
        Err(reason) => {
            let tunnels: Vec<String> = state
                .endpoints
                .values()
                .flat_map(|endpoint| endpoint.tunnels.iter())
                .take(TRIES)
                .map(ToString::to_string)
                .collect();
            let port = state.settings.tunnel_port;
            let advice = format!(
                "whether firewalls let UDP {port} through both ways between this host and {}, and whether the path \
                 carries {mtu} bytes and the tunnel's own headers (`mtu` in agent.yaml lowers it); `outrigger monitor` \
                 shows what is dropped here",
                tunnels.join(", ")
            );
            failed(&name, reason, &advice)
        }
    }
}

async fn pod(state: &NodeState, own: IpAddr, family: &str) -> ConnectivityCheck {
    let name = format!("a pod reached, {family}");
    let (targets, any) = pingable(state, own, |kind| matches!(kind, EndpointKind::Pod { .. }));
    if targets.is_empty() {
        return skipped(&name, if any { "policy lets this host ping no pod" } else { "there is no pod" });
    }
    // A transit node reaches its pods from its own addresses: what comes bare for a mesh address is dropped.
    let source = (state.settings.role == Role::Host).then_some(own);
    match ping(source, targets, SMALL).await {
        Ok((target, time)) => {
            let owner = state.endpoints.get(&target).and_then(|endpoint| endpoint.owner.clone());
            passed(
                &name,
                format!("{} ({target}) answered in {time:.1} ms", owner.as_deref().unwrap_or("a pod")),
            )
        }
        Err(reason) => failed(
            &name,
            reason,
            "the transit node's agent (`outrigger status` there), its forwarding, and policies that select the pod",
        ),
    }
}

/// The first that answers, with the time it took in milliseconds; else what was tried.
async fn ping(source: Option<IpAddr>, targets: Vec<IpAddr>, size: u32) -> Result<(IpAddr, f64), String> {
    let mut tried = Vec::new();
    for target in targets {
        let answer = spawn_blocking(move || echo::echo(source, target, size)).await;
        match answer {
            Ok(Ok(time)) => return Ok((target, time.as_secs_f64() * 1000.0)),
            Ok(Err(error)) => tried.push(format!("{target}: {error}")),
            Err(error) => tried.push(format!("{target}: {error}")),
        }
    }
    Err(tried.join(", "))
}

fn check(name: &str, result: &str, detail: String, advice: &str) -> ConnectivityCheck {
    ConnectivityCheck { name: name.to_owned(), result: result.to_owned(), detail, advice: advice.to_owned() }
}

fn passed(name: &str, detail: String) -> ConnectivityCheck {
    check(name, "passed", detail, "")
}

fn failed(name: &str, detail: String, advice: &str) -> ConnectivityCheck {
    check(name, "failed", detail, advice)
}

fn skipped(name: &str, detail: &str) -> ConnectivityCheck {
    check(name, "skipped", detail.to_owned(), "")
}
