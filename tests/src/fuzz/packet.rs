//! Sequences of packets against the decision, over a small mesh: this host (`10.0.0.1`), an allowed and a refused
//! peer in both families.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use datapath::abi::{Bank, Control, EndpointEntry, EndpointKey, Hook, settings_flag};
use datapath::model::{Capacity, Frame, Model};
use datapath::{Address, Moment, Outer, Reason, Verdict, decide};
use etherparse::{NetSlice, SlicedPacket};
use policy::identity::Identity;
use policy::state::{Default, DirectionPolicy, Peers, Policy, PortRange, Ports, Rule, RuleAction};

use super::tables;

/// The bank that is filled.
const BANK: Bank = Bank::A;

const OWN: [&str; 2] = ["10.0.0.1", "fd00::1"];
const ALLOWED: [&str; 2] = ["10.0.0.2", "fd00::2"];
const REFUSED: [&str; 2] = ["10.0.0.3", "fd00::3"];

/// Identities of this host, the allowed and the refused peer.
const IDENTITIES: [u32; 3] = [1001, 1002, 1003];

/// The underlay addresses of the two peers, and one that nobody has.
const TUNNELS: [&str; 3] = ["192.0.2.2", "192.0.2.3", "192.0.2.99"];

/// Whatever the packets, deciding does not panic. A packet that passes toward the host, and is no ICMP error, comes
/// from an endpoint through a tunnel and with a mark of that endpoint, and is for this host; a new flow passes only
/// with the peer and the port that policy allows.
///
/// # Panics
///
/// If that is not so.
pub fn packet(data: &[u8]) {
    let Some((first, mut rest)) = data.split_first() else { return };
    let model = mesh(first & 1 != 0);
    let mut now_ns = 1_u64 << 40;
    while let Some(([head, length], tail)) = rest.split_first_chunk::<2>() {
        let (bytes, left) = tail.split_at(usize::from(*length).min(tail.len()));
        rest = left;
        let hook = if head & 1 == 0 { Hook::MeshIngress } else { Hook::MeshEgress };
        // Only what comes has come through a tunnel.
        let outer = if hook == Hook::MeshIngress { outer(*head) } else { Outer::NONE };
        now_ns += u64::from(head >> 6) << 32;
        let ethertype = match bytes.first().map(|byte| byte >> 4) {
            Some(4) => 0x0800,
            Some(6) => 0x86dd,
            _ => 0x0806,
        };
        let moment = Moment { hook, control: Control::new(BANK, 0, 1), now_ns };
        let verdict =
            decide(&Frame { ethertype, ifindex: 1, ..Frame::of_ip(bytes) }, &outer, &moment, &model);
        check(hook, bytes, &outer, verdict);
    }
}

/// The outer facts that the head byte names.
fn outer(head: u8) -> Outer {
    let [first, second, stranger] = TUNNELS.map(address);
    let source = match (head >> 1) & 3 {
        0 => first,
        1 => second,
        2 => stranger,
        _ => Address::NONE,
    };
    let [_, allowed, refused] = IDENTITIES;
    let vni = match (head >> 3) & 3 {
        0 => allowed,
        1 => refused,
        2 => 0,
        _ => 0x00ff_ffff,
    };
    Outer { source, vni }
}

fn check(hook: Hook, bytes: &[u8], outer: &Outer, verdict: Verdict) {
    if !verdict.reason.passes() || verdict.reason == Reason::Related {
        return;
    }
    let Some((source, destination)) = addresses(bytes) else {
        panic_if(verdict.reason != Reason::Forwarded, "a packet without addresses passed", verdict);
        return;
    };
    let (remote, own) = match hook {
        Hook::MeshIngress => (source, destination),
        Hook::MeshEgress | Hook::GuardIngress | Hook::GuardEgress => (destination, source),
    };
    let [first, second, _] = TUNNELS.map(address);
    let [_, allowed, refused] = IDENTITIES;
    let peer = [(ALLOWED, first, allowed), (REFUSED, second, refused)]
        .into_iter()
        .find(|(addresses, ..)| addresses.map(address).contains(&remote));
    let Some((_, tunnel, identity)) = peer else {
        panic_if(true, "a packet of or for nobody passed", verdict);
        return;
    };
    panic_if(!OWN.map(address).contains(&own), "a packet that is not this host's passed", verdict);
    match hook {
        Hook::MeshIngress => {
            panic_if(*outer != Outer { source: tunnel, vni: identity }, "a forged packet passed", verdict);
            let opened = verdict.reason == Reason::NewAllowed;
            panic_if(opened && identity == refused, "a refused peer opened a flow", verdict);
        }
        Hook::MeshEgress | Hook::GuardIngress | Hook::GuardEgress => {
            panic_if(verdict.tunnel != tunnel, "a packet leaves through another's tunnel", verdict);
        }
    }
}

fn panic_if(broken: bool, what: &str, verdict: Verdict) {
    assert!(!broken, "{what}: {verdict:?}");
}

/// Source and destination as another parser reads them.
fn addresses(bytes: &[u8]) -> Option<(Address, Address)> {
    let packet = SlicedPacket::from_ip(bytes);
    let pair: (IpAddr, IpAddr) = match packet.ok().and_then(|packet| packet.net) {
        Some(NetSlice::Ipv4(ip)) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
        Some(NetSlice::Ipv6(ip)) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
        Some(NetSlice::Arp(_)) | None => return fixed(bytes),
    };
    Some((pair.0.into(), pair.1.into()))
}

/// The addresses at their places, for packets that the other parser refuses further on.
fn fixed(bytes: &[u8]) -> Option<(Address, Address)> {
    let v4 = |at: usize| bytes.get(at..)?.first_chunk::<4>().copied().map(Address::from_v4);
    let v6 = |at: usize| bytes.get(at..)?.first_chunk::<16>().copied().map(Address);
    match bytes.first()? >> 4 {
        4 => Some((v4(12)?, v4(16)?)),
        6 => Some((v6(8)?, v6(24)?)),
        _ => None,
    }
}

fn mesh(audit: bool) -> Model {
    let [own, allowed, refused] = IDENTITIES;
    let policy = policy(allowed);
    let lowered = policy::lower(&policy);
    // Small maps, so that packets reach their ends.
    let mut model = Model::new(Capacity { flows: 4, half_open: 4, fragments: 2, events: 4 });
    tables::fill(&mut model, BANK, &lowered, OWN.map(address), own);
    if let [Some(settings), _] = &mut model.settings {
        // Audit lets everything pass that has a valid source; forged packets are dropped all the same.
        settings.flags |= if audit { settings_flag::AUDIT } else { settings_flag::EVENTS_ALLOWED };
    }
    let [first, second, _] = TUNNELS.map(address);
    for (addresses, tunnel, identity) in [(ALLOWED, first, allowed), (REFUSED, second, refused)] {
        for remote in addresses.map(address) {
            let entry = EndpointEntry {
                identity,
                previous: 0,
                mark: identity,
                tunnel_set: 0,
                tunnel,
                flags: 0,
                reserved: 0,
            };
            let key = EndpointKey { bank: BANK.number(), reserved: [0; 3], address: remote };
            model.endpoints.insert(key, entry);
        }
    }
    model
}

/// Ingress from the allowed peer, to TCP and UDP 80 to 90, and ICMP of nobody; egress is open.
fn policy(allowed: u32) -> Policy {
    let range = |protocol| PortRange { protocol, first: 80, last: 90 };
    let identities: BTreeSet<Identity> = Identity::try_new(allowed).into_iter().collect();
    let rule = Rule {
        origin: Arc::from("NetworkPolicy/fuzz/only#ingress[0]"),
        peers: Peers::Only { identities: Arc::new(identities), blocks: Vec::new() },
        ports: Ports::Only(vec![range(6), range(17)]),
        action: RuleAction::Allow,
        precedence: policy::rules::precedence::NETWORK_POLICY,
    };
    Policy {
        ingress: DirectionPolicy {
            default: Default::Deny { by: vec!["NetworkPolicy/fuzz/only".to_owned()] },
            rules: vec![rule],
        },
        egress: DirectionPolicy { default: Default::Allow, rules: Vec::new() },
    }
}

/// An address of the mesh; the texts are constants of this file.
fn address(text: &str) -> Address {
    text.parse::<IpAddr>().map(Address::from).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;

    fn udp(source: [u8; 4], destination: [u8; 4], port: u16) -> Vec<u8> {
        let mut bytes = Vec::new();
        PacketBuilder::ipv4(source, destination, 64).udp(4000, port).write(&mut bytes, b"x").unwrap();
        bytes
    }

    fn decided(bytes: &[u8], outer: Outer) -> Verdict {
        let moment = Moment { hook: Hook::MeshIngress, control: Control::new(BANK, 0, 1), now_ns: 1 << 40 };
        decide(&Frame::of_ip(bytes), &outer, &moment, &mesh(false))
    }

    #[test]
    fn the_mesh_allows_what_it_should_so_that_the_checks_mean_something() {
        let [first, second, stranger] = TUNNELS.map(address);
        let ours = Outer { source: first, vni: 1002 };
        let good = udp([10, 0, 0, 2], [10, 0, 0, 1], 85);
        assert_eq!(decided(&good, ours).reason, Reason::NewAllowed);
        assert_eq!(decided(&good, Outer { source: stranger, vni: 1002 }).reason, Reason::Spoofed);
        let refused = udp([10, 0, 0, 3], [10, 0, 0, 1], 85);
        assert_eq!(decided(&refused, Outer { source: second, vni: 1003 }).reason, Reason::PolicyDenied);
        assert_eq!(decided(&udp([10, 0, 0, 2], [10, 0, 0, 1], 91), ours).reason, Reason::PolicyDenied);
    }

    #[test]
    #[should_panic(expected = "a forged packet passed")]
    fn a_forged_packet_that_passes_is_noticed() {
        let [first, ..] = TUNNELS.map(address);
        let bytes = udp([10, 0, 0, 2], [10, 0, 0, 1], 85);
        let verdict = decided(&bytes, Outer { source: first, vni: 1002 });
        check(Hook::MeshIngress, &bytes, &Outer { source: first, vni: 7 }, verdict);
    }
}
