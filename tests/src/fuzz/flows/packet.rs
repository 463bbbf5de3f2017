//! Packets of a few flows, so that they meet again.

use datapath::abi::FlowKey;
use datapath::parse::{Fragment, Part};
use datapath::{Address, Direction, Outer, Port};

use super::world::{OWN, REMOTES, TUNNELS, World, address};
use crate::fuzz::choices::Choices;
use crate::prog_test::frames::{ipv4, ipv6, tcp, udp};

/// Ports at the host and at the other end.
const LOCAL_PORTS: [u16; 3] = [80, 81, 4000];
const REMOTE_PORTS: [u16; 3] = [80, 53, 4001];
const PROTOCOLS: [u8; 6] = [6, 6, 17, 132, 1, 47];
const FLAGS: [u8; 8] = [2, 2, 0x12, 0x10, 0x18, 0x11, 4, 3];

/// A packet, and what it is.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) direction: Direction,
    /// Of a later fragment without the ports.
    pub(super) key: FlowKey,
    pub(super) part: Part,
    pub(super) fragment: Fragment,
    pub(super) id: u8,
    /// The flow of the packet that an ICMP error quotes.
    pub(super) quoted: Option<FlowKey>,
    pub(super) outer: Outer,
    pub(super) bytes: Vec<u8>,
}

impl Sent {
    pub(super) const fn source(&self) -> Address {
        match self.direction {
            Direction::Ingress => self.key.remote,
            Direction::Egress => self.key.local,
        }
    }

    pub(super) const fn destination(&self) -> Address {
        match self.direction {
            Direction::Ingress => self.key.local,
            Direction::Egress => self.key.remote,
        }
    }
}

pub(super) fn choose(choices: &mut Choices<'_>, world: &World, earlier: &[Sent]) -> Sent {
    let mut sent = if choices.seldom(8) && !earlier.is_empty() {
        let quoted = &earlier[choices.below(earlier.len())];
        error(choices, quoted)
    } else {
        plain(choices)
    };
    if sent.direction == Direction::Ingress {
        sent.outer = outer(choices, world, &sent);
    }
    sent
}

fn outer(choices: &mut Choices<'_>, world: &World, sent: &Sent) -> Outer {
    let peer = sent.quoted.as_ref().and_then(|quoted| world.peer(quoted.remote));
    let peer = world.peer(sent.key.remote).or(peer);
    let right = peer.map_or(Outer::NONE, |peer| Outer {
        source: peer.set.first().copied().unwrap_or(peer.tunnel),
        vni: peer.identity,
    });
    match choices.byte() % 16 {
        0 => Outer { source: address(choices.one_of(&TUNNELS)), ..right },
        1 => Outer { vni: choices.one_of(&[0, 6, 300, 301, 302, 0x00ff_ffff]), ..right },
        2 => Outer { vni: peer.map_or(0, |peer| peer.previous), ..right },
        3 => Outer::NONE,
        _ => right,
    }
}

fn plain(choices: &mut Choices<'_>) -> Sent {
    let direction = if choices.flag() { Direction::Egress } else { Direction::Ingress };
    let remote = address(choices.one_of(&REMOTES));
    let stranger = choices.seldom(16);
    let local = match (remote.is_v4(), stranger) {
        (true, false) => address(OWN[0]),
        (false, false) => address(OWN[1]),
        (true, true) => address("10.0.0.9"),
        (false, true) => address("fd00::9"),
    };
    let protocol = choices.one_of(&PROTOCOLS);
    let protocol = if protocol == 1 && !remote.is_v4() { 58 } else { protocol };
    let (local_port, remote_port) = (choices.one_of(&LOCAL_PORTS), choices.one_of(&REMOTE_PORTS));
    let (from, to) = match direction {
        Direction::Ingress => (remote_port, local_port),
        Direction::Egress => (local_port, remote_port),
    };
    let (mut part, payload) = transport(choices, protocol, from, to);
    let (fragment, id) = match choices.byte() % 16 {
        0 | 1 => (Fragment::First, choices.byte() % 2),
        2 | 3 => (Fragment::Later, choices.byte() % 2),
        _ => (Fragment::Whole, 0),
    };
    let mut key = FlowKey { local, remote, protocol, ..FlowKey::default() };
    if fragment == Fragment::Later {
        part = Part::Continuing;
    } else if protocol == 1 || protocol == 58 {
        (key.local_port, key.remote_port) = (Port::new(7), Port::new(7));
        // Query and reply are one flow, which is named by the query.
        key.icmp_type = if protocol == 1 { 8 } else { 128 };
    } else if protocol != 47 {
        (key.local_port, key.remote_port) = (Port::new(local_port), Port::new(remote_port));
    }
    let mut sent =
        Sent { direction, key, part, fragment, id, quoted: None, outer: Outer::NONE, bytes: Vec::new() };
    sent.bytes = wrap(&sent, &payload);
    sent
}

/// The transport header and what it is to a flow.
fn transport(choices: &mut Choices<'_>, protocol: u8, from: u16, to: u16) -> (Part, Vec<u8>) {
    match protocol {
        6 => {
            let flags = choices.one_of(&FLAGS);
            let part = match flags {
                2 => Part::Opening,
                0x11 | 4 | 3 => Part::Closing,
                _ => Part::Continuing,
            };
            (part, tcp(from, to, flags))
        }
        17 | 132 => (Part::Datagram, udp(from, to)),
        1 | 58 => {
            let is_query = choices.flag();
            let kind = match (protocol, is_query) {
                (1, true) => 8,
                (1, false) => 0,
                (_, true) => 128,
                (_, false) => 129,
            };
            (if is_query { Part::Opening } else { Part::Continuing }, vec![kind, 0, 0, 0, 0, 7, 0, 1])
        }
        _ => (Part::Datagram, vec![0; 8]),
    }
}

fn wrap(sent: &Sent, payload: &[u8]) -> Vec<u8> {
    let (source, destination, protocol) = (sent.source(), sent.destination(), sent.key.protocol);
    let later = [0x55; 8];
    let (offset, more, payload) = match sent.fragment {
        Fragment::Whole => (0, 0, payload),
        Fragment::First => (0, 1, payload),
        Fragment::Later => (16_u8, 0, &later[..]),
    };
    if source.is_v4() {
        ipv4(source, destination, protocol, [0, sent.id, more << 5, offset], payload)
    } else if sent.fragment == Fragment::Whole {
        ipv6(source, destination, protocol, payload)
    } else {
        let header = [protocol, 0, 0, offset << 3 | more, 0, 0, 0, sent.id];
        ipv6(source, destination, 44, &[&header[..], payload].concat())
    }
}

/// An error about an earlier packet, which goes the other way.
fn error(choices: &mut Choices<'_>, about: &Sent) -> Sent {
    let is_v4 = about.key.remote.is_v4();
    let reporter = if choices.flag() {
        about.destination()
    } else {
        let family: Vec<_> =
            REMOTES.iter().map(|text| address(text)).filter(|address| address.is_v4() == is_v4).collect();
        choices.one_of(&family)
    };
    let (direction, to) = (about.direction.opposite(), about.source());
    let (local, remote) = match direction {
        Direction::Ingress => (to, reporter),
        Direction::Egress => (reporter, to),
    };
    let protocol = if is_v4 { 1 } else { 58 };
    let key = FlowKey { local, remote, protocol, ..FlowKey::default() };
    let readable = about.fragment != Fragment::Later && about.part != Part::Error;
    let mut sent = Sent {
        direction,
        key,
        part: Part::Error,
        fragment: Fragment::Whole,
        id: 0,
        quoted: readable.then_some(about.key),
        outer: Outer::NONE,
        bytes: Vec::new(),
    };
    let kind = if is_v4 { 3 } else { 1 };
    sent.bytes = wrap(&sent, &[&[kind, 1, 0, 0, 0, 0, 0, 0][..], &about.bytes].concat());
    sent
}
