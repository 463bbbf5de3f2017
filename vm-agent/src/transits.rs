//! Whether the transit nodes that this node chooses among are there: each is asked for an ICMP echo through its tunnel
//! every second. What does not answer is not sent to while another one answers. A transit node's agent may be stopped
//! or killed meanwhile: its kernel forwards and answers without it.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

use crate::agent::{Agent, Topic};
use crate::echo;
use crate::kernel::{Silent, TransitNodes};
use crate::state_dir::{StateDir, StateFile};

mod judge;

use judge::Judge;

/// Time between two questions, and how long an answer may take.
const PERIOD: Duration = Duration::from_secs(1);
/// The length of a question, without the IP header.
const LENGTH: usize = 32;

/// What an earlier process knew: it holds until the nodes answer again. What cannot be read counts as nothing.
#[must_use]
pub fn load(state: &StateDir) -> Silent {
    let read = || -> Result<Silent, String> {
        let bytes = state.read(StateFile::Silent).map_err(|error| error.to_string())?;
        let Some(bytes) = bytes else { return Ok(Silent::default()) };
        serde_json::from_slice::<BTreeSet<IpAddr>>(&bytes).map(Arc::new).map_err(|error| error.to_string())
    };
    read().unwrap_or_else(|error| {
        tracing::warn!(error, "which transit nodes did not answer cannot be read");
        Silent::default()
    })
}

/// Watches over the transit nodes of the state that runs, for ever.
pub async fn run(agent: Arc<Agent>) {
    let mut members = agent.member.subscribe();
    loop {
        let member = members.borrow_and_update().clone();
        let watching = async {
            let Some(member) = &member else { return std::future::pending().await };
            watch(&agent, member.kernel.transit_nodes()).await;
        };
        tokio::select! {
            () = watching => {}
            changed = members.changed() => if changed.is_err() { return },
        }
    }
}

/// Asks until nobody says any more which nodes there are.
async fn watch(agent: &Agent, mut nodes: tokio::sync::watch::Receiver<TransitNodes>) {
    let mut judge = Judge::knowing(&agent.silent.borrow());
    let mut due = interval(PERIOD);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut round = 0_u16;
    loop {
        let known = nodes.borrow_and_update().clone();
        judge.follow(&known);
        tell(agent, &judge);
        if known.is_empty() {
            if nodes.changed().await.is_err() {
                return;
            }
            continue;
        }
        due.tick().await;
        round = round.wrapping_add(1);
        let answered = ask(&judge.questions(), round).await;
        judge.take(&answered);
    }
}

/// Publishes what became another, and keeps it for the next process.
fn tell(agent: &Agent, judge: &Judge) {
    let silent = judge.silent();
    let is_new = agent.silent.send_if_modified(|known| {
        let is_new = *known != silent;
        known.clone_from(&silent);
        is_new
    });
    if !is_new {
        return;
    }
    if silent.is_empty() {
        tracing::info!("every transit node that is needed answers");
        agent.tell(|report| drop(report.warnings.remove(&Topic::Transit)));
    } else {
        let names: Vec<String> = silent.iter().map(ToString::to_string).collect();
        let warning = format!(
            "transit nodes that do not answer, so that others take their place: {}",
            names.join(", ")
        );
        tracing::warn!("{warning}");
        agent.tell(|report| drop(report.warnings.insert(Topic::Transit, warning)));
    }
    let _writing = agent.writing.lock().unwrap_or_else(PoisonError::into_inner);
    let saved = if silent.is_empty() {
        agent.state.remove(&[StateFile::Silent]).map(drop)
    } else {
        agent.state.write(StateFile::Silent, &serde_json::to_vec(&*silent).unwrap_or_default())
    };
    if let Err(error) = saved {
        tracing::warn!(%error, "which transit nodes do not answer could not be written down");
    }
}

/// Asks all of these at once, and returns who answered in time. What cannot be sent is not answered.
async fn ask(nodes: &[IpAddr], round: u16) -> BTreeSet<IpAddr> {
    let deadline = Instant::now() + PERIOD;
    let of = |v4: bool| nodes.iter().copied().filter(|node| node.is_ipv4() == v4).collect::<Vec<_>>();
    let (v4, v6) =
        tokio::join!(ask_family(of(true), round, deadline), ask_family(of(false), round, deadline));
    v4.into_iter().chain(v6).collect()
}

async fn ask_family(nodes: Vec<IpAddr>, round: u16, deadline: Instant) -> BTreeSet<IpAddr> {
    let mut answered = BTreeSet::new();
    let Some(v4) = nodes.first().map(IpAddr::is_ipv4) else { return answered };
    let socket = match socket(v4) {
        Ok(socket) => socket,
        Err(error) => {
            tracing::warn!(%error, "transit nodes cannot be asked whether they are there");
            return answered;
        }
    };
    let id = u16::try_from(std::process::id() & 0xffff).unwrap_or_default();
    let request = echo::request(v4, id, round, LENGTH);
    for node in &nodes {
        drop(socket.send_to(&request, SocketAddr::new(*node, 0)).await);
    }
    let mut buffer = [0; 2048];
    while answered.len() < nodes.len() {
        match timeout_at(deadline, socket.recv_from(&mut buffer)).await {
            Ok(Ok((count, from))) => {
                let packet = buffer.get(..count).unwrap_or_default();
                let message = if v4 { echo::after_ip_header(packet) } else { packet };
                if echo::is_reply(v4, message, &request) && nodes.contains(&from.ip()) {
                    answered.insert(from.ip());
                }
            }
            // An error that came back for one of them is the socket's next result.
            Ok(Err(_)) => {}
            Err(_late) => break,
        }
    }
    answered
}

/// A raw socket, as if for datagrams. The kernel chooses the source: this host's mesh address.
fn socket(v4: bool) -> std::io::Result<UdpSocket> {
    let (domain, protocol, any) = if v4 {
        (Domain::IPV4, Protocol::ICMPV4, IpAddr::V4(Ipv4Addr::UNSPECIFIED))
    } else {
        (Domain::IPV6, Protocol::ICMPV6, IpAddr::V6(Ipv6Addr::UNSPECIFIED))
    };
    let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
    socket.bind(&SocketAddr::new(any, 0).into())?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket.into())
}
