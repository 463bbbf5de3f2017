//! A host with two peers, for the tests of this crate.

use std::net::IpAddr;

use etherparse::PacketBuilder;

use crate::{
    Action, Address, FlowTable, Moment, Outer, Reason, Verdict,
    abi::{
        Bank, ClassEntry, ClassKey, Control, EndpointEntry, EndpointKey, Flow, FlowKey, Hook, PolicyEntry,
        PolicyKey, Rank, Settings, TunnelEntry, TunnelKey, endpoint_flag,
    },
    decide,
    model::{Capacity, Frame, Model},
};

pub(crate) const OWN: &str = "10.0.0.1";
pub(crate) const OWN_V6: &str = "fd00::1";
pub(crate) const PEER: &str = "10.0.0.2";
pub(crate) const PEER_V6: &str = "fd00::2";
/// A pod behind two transit nodes.
pub(crate) const POD: &str = "10.0.1.5";
/// The mesh address of one of them.
pub(crate) const TRANSIT: &str = "10.0.0.3";
pub(crate) const NOBODY: &str = "10.0.9.9";

pub(crate) const OWN_IDENTITY: u32 = 300;
pub(crate) const PEER_IDENTITY: u32 = 301;
pub(crate) const POD_IDENTITY: u32 = 302;
pub(crate) const TRANSIT_IDENTITY: u32 = 6;

pub(crate) const PEER_TUNNEL: &str = "192.0.2.2";
pub(crate) const TRANSIT_TUNNEL: &str = "192.0.2.3";
pub(crate) const OTHER_TRANSIT_TUNNEL: &str = "2001:db8::4";
const TRANSIT_SET: u32 = 1;

pub(crate) const SYN: u8 = 0x02;
pub(crate) const ACK: u8 = 0x10;
pub(crate) const FIN_ACK: u8 = 0x11;
pub(crate) const SYN_ACK: u8 = 0x12;
pub(crate) const RST: u8 = 0x04;

const SECOND_NS: u64 = 1_000_000_000;

pub(crate) fn address(text: &str) -> Address {
    text.parse::<IpAddr>().unwrap().into()
}

pub(crate) fn outer(tunnel: &str, vni: u32) -> Outer {
    Outer { source: address(tunnel), vni }
}

/// What the peer's packets carry.
pub(crate) fn from_peer() -> Outer {
    outer(PEER_TUNNEL, PEER_IDENTITY)
}

pub(crate) fn from_pod() -> Outer {
    outer(TRANSIT_TUNNEL, POD_IDENTITY)
}

/// This host: everything allowed in, nothing out, until a test says otherwise.
pub(crate) struct World {
    pub(crate) model: Model,
    pub(crate) control: Control,
    pub(crate) now_ns: u64,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(Capacity::default())
    }

    pub(crate) fn with(capacity: Capacity) -> Self {
        let mut world = Self {
            model: Model::new(capacity),
            control: Control::new(Bank::A, 0, 1),
            now_ns: 1000 * SECOND_NS,
        };
        for bank in [Bank::A, Bank::B] {
            world.fill(bank);
        }
        world
    }

    fn fill(&mut self, bank: Bank) {
        self.model.settings[usize::from(bank.number())] = Some(Settings {
            identity: OWN_IDENTITY,
            mark: OWN_IDENTITY,
            flags: 0,
            ingress_default: Action::Allow.number(),
            egress_default: Action::Deny.number(),
            ingress_rule: 1,
            egress_rule: 2,
            address_v4: address(OWN),
            address_v6: address(OWN_V6),
            mtu: 1450,
            ..Settings::default()
        });
        let set = |address| TunnelKey { bank: bank.number(), reserved: [0; 3], set: TRANSIT_SET, address };
        for tunnel in [TRANSIT_TUNNEL, OTHER_TRANSIT_TUNNEL] {
            self.model.tunnels.insert(set(address(tunnel)), TunnelEntry::default());
        }
        let own = EndpointEntry {
            identity: OWN_IDENTITY,
            previous: 0,
            mark: OWN_IDENTITY,
            tunnel_set: 0,
            tunnel: Address::NONE,
            flags: endpoint_flag::OWN,
            reserved: 0,
        };
        let peer = EndpointEntry { identity: PEER_IDENTITY, tunnel: address(PEER_TUNNEL), flags: 0, ..own };
        let tunnel = address(TRANSIT_TUNNEL);
        let pod = EndpointEntry { identity: POD_IDENTITY, tunnel, tunnel_set: TRANSIT_SET, flags: 0, ..own };
        let transit =
            EndpointEntry { identity: TRANSIT_IDENTITY, tunnel, flags: endpoint_flag::ROUTER, ..own };
        for (text, entry) in
            [(OWN, own), (OWN_V6, own), (PEER, peer), (PEER_V6, peer), (POD, pod), (TRANSIT, transit)]
        {
            self.model.endpoints.insert(endpoint_key(bank, text), entry);
        }
    }

    /// The settings of the active bank.
    pub(crate) fn settings(&mut self) -> &mut Settings {
        self.model.settings[usize::from(self.control.bank().number())].as_mut().unwrap()
    }

    /// An entry of the active bank.
    pub(crate) fn endpoint(&mut self, text: &str) -> &mut EndpointEntry {
        self.model.endpoints.get_mut(&endpoint_key(self.control.bank(), text)).unwrap()
    }

    pub(crate) fn remove_endpoint(&mut self, text: &str) {
        self.model.endpoints.remove(&endpoint_key(self.control.bank(), text)).unwrap();
    }

    /// A rule about an identity, which gets a class of its own.
    pub(crate) fn rule(&mut self, hook: Hook, identity: u32, protocol: u8, port: u16, action: Action) {
        let bank = self.control.bank().number();
        self.model
            .classes
            .insert(ClassKey { bank, reserved: [0; 3], identity }, ClassEntry { class: identity });
        let key = PolicyKey {
            prefix_len: PolicyKey::BASE_BITS + 16,
            bank,
            direction: hook.direction().number(),
            protocol,
            reserved: 0,
            class: identity,
            port: crate::Port::new(port),
            padding: [0; 2],
        };
        self.model.policy.insert(key, entry(1000 + u32::from(port), action));
    }

    /// Switches to the other bank, whose tables are those of [`World::new`].
    pub(crate) fn publish(&mut self) {
        self.control = self.control.next();
    }

    pub(crate) fn wait(&mut self, seconds: u64) {
        self.now_ns += seconds * SECOND_NS;
    }

    pub(crate) fn moment(&self, hook: Hook) -> Moment {
        Moment { hook, control: self.control, now_ns: self.now_ns }
    }

    pub(crate) fn ingress(&self, packet: &[u8], outer: Outer) -> Verdict {
        decide(&Frame::of_ip(packet), &outer, &self.moment(Hook::MeshIngress), &self.model)
    }

    pub(crate) fn egress(&self, packet: &[u8]) -> Verdict {
        decide(&Frame::of_ip(packet), &Outer::NONE, &self.moment(Hook::MeshEgress), &self.model)
    }

    /// The reasons of ingress packets from the peer.
    pub(crate) fn in_from_peer(&self, packet: &[u8]) -> Reason {
        self.ingress(packet, from_peer()).reason
    }

    /// A connection that the peer opened to port 80 of this host, from port 4000.
    pub(crate) fn connect(&self) {
        assert_eq!(self.in_from_peer(&tcp(PEER, 4000, OWN, 80, SYN)), Reason::NewAllowed);
        assert_eq!(self.egress(&tcp(OWN, 80, PEER, 4000, SYN_ACK)).reason, Reason::Established);
        assert_eq!(self.in_from_peer(&tcp(PEER, 4000, OWN, 80, ACK)), Reason::Established);
    }

    /// The only flow there is.
    pub(crate) fn only_flow(&self) -> (FlowTable, FlowKey, Flow) {
        let mut flows = Vec::new();
        for table in [FlowTable::Confirmed, FlowTable::HalfOpen] {
            flows.extend(self.model.flows(table).into_iter().map(|(key, flow)| (table, key, flow)));
        }
        assert_eq!(flows.len(), 1, "{flows:?}");
        flows[0]
    }

    pub(crate) fn flow_count(&self) -> usize {
        self.model.flows(FlowTable::Confirmed).len() + self.model.flows(FlowTable::HalfOpen).len()
    }
}

/// An entry where one rule decides.
pub(crate) fn entry(rule: u32, action: Action) -> PolicyEntry {
    PolicyEntry::of(Rank::new(1, action), rule)
}

fn endpoint_key(bank: Bank, text: &str) -> EndpointKey {
    EndpointKey { bank: bank.number(), reserved: [0; 3], address: address(text) }
}

fn ip(source: &str, destination: &str) -> etherparse::PacketBuilderStep<etherparse::IpHeaders> {
    match (source.parse().unwrap(), destination.parse().unwrap()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            PacketBuilder::ipv4(source.octets(), destination.octets(), 64)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            PacketBuilder::ipv6(source.octets(), destination.octets(), 64)
        }
        mixed => panic!("{mixed:?}"),
    }
}

pub(crate) fn tcp(source: &str, from: u16, destination: &str, to: u16, flags: u8) -> Vec<u8> {
    let mut header = etherparse::TcpHeader::new(from, to, 1, 1000);
    header.fin = flags & 0x01 != 0;
    header.syn = flags & 0x02 != 0;
    header.rst = flags & 0x04 != 0;
    header.ack = flags & 0x10 != 0;
    let mut packet = Vec::new();
    ip(source, destination).tcp_header(header).write(&mut packet, b"data").unwrap();
    packet
}

pub(crate) fn udp(source: &str, from: u16, destination: &str, to: u16) -> Vec<u8> {
    let mut packet = Vec::new();
    ip(source, destination).udp(from, to).write(&mut packet, b"data").unwrap();
    packet
}

/// An ICMP message of the address family, from its type on.
pub(crate) fn icmp(source: &str, destination: &str, kind: u8, rest: [u8; 6], payload: &[u8]) -> Vec<u8> {
    let message = [&[kind, 0][..], &rest, payload].concat();
    let number = if source.contains(':') { 58 } else { 1 };
    let mut packet = Vec::new();
    ip(source, destination).write(&mut packet, number.into(), &message).unwrap();
    packet
}

/// An echo request (or reply) with an identifier.
pub(crate) fn echo(source: &str, destination: &str, is_reply: bool, id: u8) -> Vec<u8> {
    let kind = match (source.contains(':'), is_reply) {
        (false, false) => 8,
        (false, true) => 0,
        (true, false) => 128,
        (true, true) => 129,
    };
    icmp(source, destination, kind, [0, 0, 0, id, 0, 1], b"data")
}

/// Destination unreachable about a packet, of which so many bytes are quoted.
pub(crate) fn unreachable(source: &str, destination: &str, about: &[u8], quoted: usize) -> Vec<u8> {
    let kind = if source.contains(':') { 1 } else { 3 };
    icmp(source, destination, kind, [0; 6], &about[..quoted.min(about.len())])
}

/// Cuts the transport part of an IPv4 packet at an offset (a multiple of 8) into two fragments.
pub(crate) fn fragments_v4(packet: &[u8], at: usize, id: u16) -> [Vec<u8>; 2] {
    let (header, payload) = packet.split_at(20);
    let part = |piece: &[u8], field: u16| {
        let mut part = [header, piece].concat();
        let length = u16::try_from(part.len()).unwrap();
        part[2..4].copy_from_slice(&length.to_be_bytes());
        part[4..6].copy_from_slice(&id.to_be_bytes());
        part[6..8].copy_from_slice(&field.to_be_bytes());
        part
    };
    let (first, later) = payload.split_at(at);
    [part(first, 0x2000), part(later, u16::try_from(at / 8).unwrap())]
}

/// Puts an extension header behind an IPv6 header.
pub(crate) fn extended(packet: &[u8], number: u8, header: &[u8]) -> Vec<u8> {
    let (fixed, rest) = packet.split_at(40);
    let mut packet = [fixed, header, rest].concat();
    packet[40] = fixed[6];
    packet[6] = number;
    let length = u16::try_from(packet.len() - 40).unwrap();
    packet[4..6].copy_from_slice(&length.to_be_bytes());
    packet
}
