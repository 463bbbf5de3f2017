//! Random packets: mostly of a few flows, so that they meet again, often bent in one of the ways packets can be bent.

use datapath::{Address, Direction};
use rand::seq::{IndexedMutRandom, IndexedRandom};
use rand::{Rng, RngExt};

use super::mesh::{OWN, PEERS, PORTS, PROTOCOLS, address};

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const FRAGMENT: u8 = 44;
const ICMPV6: u8 = 58;
const SCTP: u8 = 132;

/// A packet on the mesh device.
#[derive(Clone, Debug)]
pub struct Sent {
    /// The way it goes.
    pub direction: Direction,
    /// The inner source.
    pub source: Address,
    /// The Ethernet frame.
    pub frame: Vec<u8>,
}

/// Whether `BPF_PROG_TEST_RUN` takes a frame: not one that ends within its IP header.
#[must_use]
pub fn is_runnable(frame: &[u8]) -> bool {
    let header = match frame.get(12..14) {
        Some([8, 0]) => 20,
        Some([0x86, 0xdd]) => 40,
        _ => 1,
    };
    frame.len() >= 14 + header
}

/// An Ethernet frame around an IP packet.
#[must_use]
pub fn ethernet(ip: &[u8]) -> Vec<u8> {
    let ethertype: [u8; 2] =
        if ip.first().is_some_and(|byte| byte >> 4 == 6) { [0x86, 0xdd] } else { [8, 0] };
    [&[2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 8][..], &ethertype, ip].concat()
}

/// An IPv4 header without options and what follows it.
#[must_use]
pub fn ipv4(
    source: Address,
    destination: Address,
    protocol: u8,
    fragment: [u8; 4],
    payload: &[u8],
) -> Vec<u8> {
    ipv4_with_options(source, destination, protocol, fragment, &[], payload)
}

/// An IPv4 header with options of so many whole words and what follows it.
fn ipv4_with_options(
    source: Address,
    destination: Address,
    protocol: u8,
    [id_high, id_low, flags, offset]: [u8; 4],
    options: &[u8],
    payload: &[u8],
) -> Vec<u8> {
    let length = u16::try_from(20 + options.len() + payload.len()).unwrap_or(u16::MAX).to_be_bytes();
    let words = u8::try_from(options.len() / 4).unwrap_or(u8::MAX);
    let start = [0x45 + words, 0, length[0], length[1], id_high, id_low, flags, offset, 64, protocol, 0, 0];
    [&start[..], &source.v4_octets(), &destination.v4_octets(), options, payload].concat()
}

/// An IPv6 header and what follows it.
#[must_use]
pub fn ipv6(source: Address, destination: Address, next: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap_or(u16::MAX).to_be_bytes();
    [&[0x60, 0, 0, 0, length[0], length[1], next, 64][..], &source.0, &destination.0, payload].concat()
}

/// A TCP header.
#[must_use]
pub fn tcp(source: u16, destination: u16, flags: u8) -> Vec<u8> {
    let ([a, b], [c, d]) = (source.to_be_bytes(), destination.to_be_bytes());
    vec![a, b, c, d, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]
}

/// A UDP header and eight bytes.
#[must_use]
pub fn udp(source: u16, destination: u16) -> Vec<u8> {
    let ([a, b], [c, d]) = (source.to_be_bytes(), destination.to_be_bytes());
    vec![a, b, c, d, 0, 16, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]
}

/// A random packet; errors quote one of `earlier`.
#[must_use]
pub fn random(rng: &mut impl Rng, earlier: &[Sent]) -> Sent {
    let direction = if rng.random_bool(0.5) { Direction::Ingress } else { Direction::Egress };
    if rng.random_bool(0.06)
        && let Some(quoted) = earlier.choose(rng)
        && let Some(error) = icmp_error(rng, quoted)
    {
        return bent(rng, error);
    }
    let is_v6 = rng.random_bool(0.5);
    let own = address(if is_v6 { OWN[1] } else { OWN[0] });
    let others: Vec<_> =
        PEERS.iter().filter(|text| text.contains(':') == is_v6).map(|text| address(text)).collect();
    let local = if rng.random_bool(0.96) { own } else { others.choose(rng).copied().unwrap_or(own) };
    let remote =
        if rng.random_bool(0.97) { others.choose(rng).copied().unwrap_or(own) } else { special(rng, is_v6) };
    let (source, destination) = match direction {
        Direction::Ingress => (remote, local),
        Direction::Egress => (local, remote),
    };
    let ip = if is_v6 { packet_v6(rng, source, destination) } else { packet_v4(rng, source, destination) };
    bent(rng, Sent { direction, source, frame: ethernet(&ip) })
}

fn special(rng: &mut impl Rng, is_v6: bool) -> Address {
    let choices = if is_v6 {
        ["ff02::1", "::ffff:10.0.0.2", "fe80::1"]
    } else {
        ["224.0.0.5", "255.255.255.255", "0.0.0.0"]
    };
    // `::ffff:` in text is canonical; on the wire of IPv6 it is not.
    choices.choose(rng).map_or(Address::NONE, |text| address(text))
}

fn transport(rng: &mut impl Rng, protocol: u8) -> Vec<u8> {
    let (source, destination) = (*PORTS.choose(rng).unwrap_or(&1), *PORTS.choose(rng).unwrap_or(&1));
    match protocol {
        TCP => tcp(
            source,
            destination,
            *[2, 2, 0x12, 0x10, 0x10, 0x18, 0x11, 4, 0x14, 3, 0].choose(rng).unwrap_or(&2),
        ),
        UDP => udp(source, destination),
        SCTP => [&udp(source, destination)[..], &[0; 8]].concat(),
        ICMP => icmp(rng, &[8, 8, 8, 0, 0, 5, 9, 13, 14, 40]),
        ICMPV6 => icmp(rng, &[128, 128, 128, 129, 129, 133, 135, 136, 137, 143]),
        _ => vec![0; 24],
    }
}

fn icmp(rng: &mut impl Rng, types: &[u8]) -> Vec<u8> {
    let id = *[7, 8].choose(rng).unwrap_or(&7);
    vec![*types.choose(rng).unwrap_or(&8), 0, 0, 0, 0, id, 0, 1, 1, 2, 3, 4]
}

fn packet_v4(rng: &mut impl Rng, source: Address, destination: Address) -> Vec<u8> {
    let protocol = if rng.random_bool(0.5) { TCP } else { *PROTOCOLS.choose(rng).unwrap_or(&6) };
    let id = rng.random_range(0..3);
    let mut payload = transport(rng, protocol);
    let fragment = match rng.random_range(0..20) {
        0 => [0, id, 0x20, 0],
        1 => [0, id, 0, rng.random_range(1..9)],
        2 => [0, id, 0x20, rng.random_range(1..9)],
        _ => [0, id, 0x40, 0],
    };
    if fragment[3] != 0 {
        payload = vec![0x55; 24];
    }
    let words: usize = if rng.random_bool(0.1) { rng.random_range(1..=10) } else { 0 };
    let mut options = vec![1; words * 4];
    if let Some(place) = options.choose_mut(rng) {
        *place = *[0, 1, 7, 131, 137, 148].choose(rng).unwrap_or(&1);
    }
    ipv4_with_options(source, destination, protocol, fragment, &options, &payload)
}

fn packet_v6(rng: &mut impl Rng, source: Address, destination: Address) -> Vec<u8> {
    let mut next = if rng.random_bool(0.5) { TCP } else { *PROTOCOLS.choose(rng).unwrap_or(&6) };
    let mut payload = transport(rng, next);
    if rng.random_bool(0.25) {
        for _ in 0..rng.random_range(1..9) {
            let header = *[0, 60, 60, 43, FRAGMENT, FRAGMENT, 135, 51].choose(rng).unwrap_or(&60);
            payload = extended(rng, header, next, &payload);
            next = header;
            if rng.random_bool(0.6) {
                break;
            }
        }
    }
    ipv6(source, destination, next, &payload)
}

fn extended(rng: &mut impl Rng, header: u8, next: u8, payload: &[u8]) -> Vec<u8> {
    if header == FRAGMENT {
        let (offset, more) = (*[0, 0, 1, 2, 4].choose(rng).unwrap_or(&0_u8), u8::from(rng.random_bool(0.5)));
        return [&[next, 0, 0, offset << 3 | more, 0, 0, 0, rng.random_range(0..3)][..], payload].concat();
    }
    let units = rng.random_range(0..3_u8);
    let segments_left = u8::from(rng.random_bool(0.3));
    let body = vec![0; usize::from(units) * 8];
    [&[next, units, 0, segments_left, 0, 0, 0, 0][..], &body, payload].concat()
}

/// An error about an earlier packet, which goes the other way.
fn icmp_error(rng: &mut impl Rng, quoted: &Sent) -> Option<Sent> {
    let ip = quoted.frame.get(14..)?;
    let is_v6 = ip.first()? >> 4 == 6;
    let (source, destination) = if is_v6 {
        (Address(ip.get(8..24)?.try_into().ok()?), Address(ip.get(24..40)?.try_into().ok()?))
    } else {
        let octets = |at: usize| ip.get(at..at + 4).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
        (Address::from_v4(octets(12)?), Address::from_v4(octets(16)?))
    };
    let reporter = if rng.random_bool(0.7) {
        destination
    } else {
        let others: Vec<_> = PEERS.iter().filter(|text| text.contains(':') == is_v6).collect();
        address(others.choose(rng)?)
    };
    let kept = rng.random_range(0..=ip.len());
    let number = *(if is_v6 { [1, 2, 3, 4] } else { [3, 11, 12, 4] }).choose(rng)?;
    let payload = [&[number, rng.random_range(0..5), 0, 0, 0, 0, 5, 0], ip.get(..kept)?].concat();
    let packet = if is_v6 {
        ipv6(reporter, source, ICMPV6, &payload)
    } else {
        ipv4(reporter, source, ICMP, [0, 0, 0, 0], &payload)
    };
    Some(Sent { direction: quoted.direction.opposite(), source: reporter, frame: ethernet(&packet) })
}

/// Cuts, lengthens or flips something now and then.
fn bent(rng: &mut impl Rng, mut sent: Sent) -> Sent {
    match rng.random_range(0..40) {
        0 => {
            let kept = rng.random_range(15..=sent.frame.len());
            sent.frame.truncate(kept);
        }
        1 => {
            let at = rng.random_range(14..sent.frame.len());
            if let Some(byte) = sent.frame.get_mut(at) {
                *byte ^= 1 << rng.random_range(0..8);
            }
        }
        2 => sent.frame.extend_from_slice(&[0; 6]),
        3 => {
            let ethertype: [u8; 2] =
                *[[8, 6], [0x81, 0], [0x88, 0xa8], [0x08, 0], [0x86, 0xdd]].choose(rng).unwrap_or(&[8, 6]);
            if let Some(place) = sent.frame.get_mut(12..14) {
                place.copy_from_slice(&ethertype);
            }
        }
        _ => {}
    }
    sent
}
