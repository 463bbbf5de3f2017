//! What the active tables say to the first packet of a flow, by the code that runs in the kernel.

use std::net::IpAddr;

use datapath::abi::{Control, Hook};
use datapath::{Address, Direction, Moment, Outer, Reason, Work};

use super::error::KernelError;
use super::pins::Pins;
use super::programs;

mod dump;
mod packet;
#[cfg(test)]
mod tests;

use dump::Dump;
use packet::FirstPacket;
pub use packet::default_port;

/// The first packet of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceQuery {
    /// Toward this host or from it.
    pub direction: Direction,
    /// The other end.
    pub remote: IpAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// Source port, for protocols that have ports.
    pub source_port: u16,
    /// Destination port, for protocols that have ports; the type of ICMP and `ICMPv6`.
    pub destination_port: u16,
    /// On the NICs, not in the mesh.
    pub nic: bool,
}

/// What would happen to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    /// Why it would pass or be dropped; [`Reason::passes`] tells which.
    pub reason: Reason,
    /// The rule that decides; 0 = none. Its name is in `Kernel::rules`.
    pub rule: u32,
    /// The remote's identity; 0 = no endpoint has its address.
    pub identity: u32,
    /// Where the packet would be sent, or is expected from.
    pub tunnel: Option<IpAddr>,
    /// The epoch of the tables.
    pub epoch: u32,
}

/// Reads the active bank and decides.
pub(super) fn trace(pins: &Pins, query: &TraceQuery) -> Result<Trace, KernelError> {
    let store = programs::store(pins)?;
    let control = store.switch.control()?;
    let dump = Dump::read(&store, control.bank())?;
    Ok(if query.nic { decide_on_nic(&dump, control, query) } else { decide(&dump, control, query) })
}

/// A trial counts as what it would become.
fn decide_on_nic(dump: &Dump, control: Control, query: &TraceQuery) -> Trace {
    let TraceQuery { direction, remote, protocol, source_port, destination_port, nic: _ } = *query;
    let local = dump.nic_address(remote.is_ipv4());
    let remote = Address::from(remote);
    let (hook, source, destination) = match direction {
        Direction::Ingress => (Hook::GuardIngress, remote, local),
        Direction::Egress => (Hook::GuardEgress, local, remote),
    };
    let packet = FirstPacket::new(source, destination, protocol, source_port, destination_port);
    let moment = Moment { hook, control, now_ns: 1 };
    let mut work = Work::new();
    let passes = datapath::guard_in(&packet.at(dump.nic_device()), &moment, dump, &mut work);
    let verdict = work.verdict;
    Trace {
        // Where no address or device is governed, nothing was asked.
        reason: if passes && !verdict.reason.passes() { Reason::Forwarded } else { verdict.reason },
        rule: verdict.rule,
        identity: dump.nic_endpoint(remote).map_or(0, |entry| entry.identity),
        tunnel: None,
        epoch: control.epoch(),
    }
}

fn decide(dump: &Dump, control: Control, query: &TraceQuery) -> Trace {
    let TraceQuery { direction, remote, protocol, source_port, destination_port, nic: _ } = *query;
    let local = dump.own_address(remote.is_ipv4());
    let remote = Address::from(remote);
    let endpoint = dump.endpoint_at(remote);
    let (hook, source, destination, outer) = match direction {
        // The packet comes as the remote's own sender would send it.
        Direction::Ingress => {
            let outer =
                endpoint.map_or(UNKNOWN_SENDER, |entry| Outer { source: entry.tunnel, vni: entry.mark });
            (Hook::MeshIngress, remote, local, outer)
        }
        Direction::Egress => (Hook::MeshEgress, local, remote, Outer::NONE),
    };
    let packet = FirstPacket::new(source, destination, protocol, source_port, destination_port);
    let moment = Moment { hook, control, now_ns: 1 };
    let verdict = datapath::decide(&packet, &outer, &moment, dump);
    Trace {
        reason: verdict.reason,
        rule: verdict.rule,
        identity: endpoint.map_or(0, |entry| entry.identity),
        tunnel: endpoint
            .map(|entry| entry.tunnel)
            .filter(|tunnel| *tunnel != Address::NONE)
            .map(IpAddr::from),
        epoch: control.epoch(),
    }
}

/// Some sender that no table knows.
const UNKNOWN_SENDER: Outer = Outer { source: Address::from_v4([192, 0, 2, 1]), vni: 2 };
