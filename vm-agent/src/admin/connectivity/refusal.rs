//! A refusal where policy demands one: by the specification, by the kernel's tables, and by a real attempt.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use datapath::{Direction, Reason};
use policy::state::{Mode, NodeState, RuleAction};
use proto::v1::ConnectivityCheck;
use tokio::net::TcpSocket;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::super::policies::{Query, flow, trace_kernel};
use super::{failed, passed, skipped};
use crate::member::Member;

const NAME: &str = "a refusal";
/// How long a connection that must not come about is tried.
const ATTEMPT: Duration = Duration::from_millis(1500);
/// Ports that are asked about; one that no rule allows will do.
const PORTS: [u16; 5] = [9, 443, 22, 1, 65_535];
const TCP: u8 = 6;

/// Looks for a flow that policy denies, and tries it.
pub(super) async fn check(member: Arc<Member>, state: Arc<NodeState>) -> ConnectivityCheck {
    if state.settings.role.is_cluster_node() {
        return skipped(NAME, "a node of the cluster leaves policy to the ends");
    }
    if state.settings.mode == Mode::Audit {
        return skipped(NAME, "the mode is audit: nothing is refused for policy");
    }
    let Some((query, rule)) = denied(&state) else {
        return skipped(NAME, "no policy denies this host anything that could be tried");
    };
    let asked = member.clone();
    let traced = spawn_blocking(move || trace_kernel(&asked, &query)).await;
    let what = what(&query);
    match traced {
        Ok(Ok(Reason::PolicyDenied)) => {}
        Ok(Ok(reason)) => {
            let detail = format!("{rule} denies {what}, and the kernel's tables say {}", reason.name());
            return failed(
                NAME,
                detail,
                "whether a change is just being published: repeat the test; else report this",
            );
        }
        Ok(Err(error)) => return failed(NAME, error.to_string(), "the agent's log"),
        Err(error) => return failed(NAME, error.to_string(), "the agent's log"),
    }
    match query.direction {
        Direction::Ingress => {
            passed(NAME, format!("{what} is denied by {rule} (policy and kernel tables agree)"))
        }
        Direction::Egress => attempt(&member, &state, &query, &what, &rule).await,
    }
}

/// A flow that policy denies and by what: one that this host can try before one that it can only ask about.
fn denied(state: &NodeState) -> Option<(Query, String)> {
    let own = &state.settings.addresses;
    let remotes = || {
        state.endpoints.keys().filter(|address| {
            !own.contains(address) && own.iter().any(|own| own.is_ipv4() == address.is_ipv4())
        })
    };
    let of = |direction: Direction| {
        let queries = remotes().flat_map(move |remote| {
            PORTS.map(|port| Query { direction, remote: *remote, protocol: TCP, port, nic: false })
        });
        queries.into_iter().find_map(|query| {
            let verdict = policy::evaluate(&state.policy, &flow(state, &query));
            (verdict.action == RuleAction::Deny).then(|| (query, verdict.name(direction)))
        })
    };
    of(Direction::Egress).or_else(|| of(Direction::Ingress))
}

async fn attempt(
    member: &Member,
    state: &NodeState,
    query: &Query,
    what: &str,
    rule: &str,
) -> ConnectivityCheck {
    let own = state.settings.addresses.iter().find(|own| own.is_ipv4() == query.remote.is_ipv4());
    let before = refused(member);
    let answer = timeout(ATTEMPT, connect(own.copied(), query)).await;
    let counted = refused(member) > before;
    match answer {
        Ok(Ok(())) => failed(
            NAME,
            format!("{what} was reached, which {rule} denies"),
            "`outrigger policy trace` for it, and report this",
        ),
        Ok(Err(_)) | Err(_) if counted => passed(NAME, format!("{what} was refused by {rule}")),
        Ok(Err(error)) => failed(
            NAME,
            format!("{what}: {error}, and no refusal was counted"),
            "`outrigger status`: whether the programs are attached",
        ),
        Err(_elapsed) => failed(
            NAME,
            format!("{what}: no answer, and no refusal was counted"),
            "`ip route get` for it: the way must lead to the mesh device",
        ),
    }
}

async fn connect(own: Option<IpAddr>, query: &Query) -> std::io::Result<()> {
    let socket = if query.remote.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(own) = own {
        socket.bind(SocketAddr::new(own, 0))?;
    }
    socket.connect(SocketAddr::new(query.remote, query.port)).await.map(drop)
}

/// Packets of this host that policy refused so far.
fn refused(member: &Member) -> u64 {
    let counters = member.kernel.counters().unwrap_or_default();
    let ours =
        counters.iter().filter(|c| c.direction == Direction::Egress && c.reason == Reason::PolicyDenied);
    ours.map(|counter| counter.packets).sum()
}

fn what(query: &Query) -> String {
    let remote = SocketAddr::new(query.remote, query.port);
    match query.direction {
        Direction::Ingress => format!("TCP from {} to port {}", query.remote, query.port),
        Direction::Egress => format!("TCP to {remote}"),
    }
}
