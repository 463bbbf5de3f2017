//! A packet that opens a flow, made of nothing but headers.

use datapath::{Address, Packet};
use zerocopy::FromBytes;

/// An IPv4 or IPv6 packet with a TCP SYN, an ICMP echo request, or the ports of another protocol.
#[derive(Clone, Debug)]
pub(super) struct FirstPacket {
    ethertype: u16,
    ifindex: u32,
    bytes: Vec<u8>,
}

const ETHERTYPE_V4: u16 = 0x0800;
const ETHERTYPE_V6: u16 = 0x86dd;
const TCP: u8 = 6;
const ICMP: u8 = 1;
const ICMP_V6: u8 = 58;
const HOP_LIMIT: u8 = 64;
const ECHO_REQUEST: u16 = 8;
const ECHO_REQUEST_V6: u16 = 128;

/// What a question about a protocol means that names no port: of ICMP an echo request.
#[must_use]
pub const fn default_port(protocol: u8) -> u16 {
    match protocol {
        ICMP => ECHO_REQUEST,
        ICMP_V6 => ECHO_REQUEST_V6,
        _ => 0,
    }
}

impl FirstPacket {
    pub(super) fn new(
        source: Address,
        destination: Address,
        protocol: u8,
        source_port: u16,
        destination_port: u16,
    ) -> Self {
        let payload = payload(protocol, source_port, destination_port);
        if destination.is_v4() {
            Self { ethertype: ETHERTYPE_V4, ifindex: 0, bytes: v4(source, destination, protocol, &payload) }
        } else {
            Self { ethertype: ETHERTYPE_V6, ifindex: 0, bytes: v6(source, destination, protocol, &payload) }
        }
    }
}

impl FirstPacket {
    /// The same at a device.
    pub(super) fn at(self, ifindex: u32) -> Self {
        Self { ifindex, ..self }
    }
}

fn payload(protocol: u8, source_port: u16, destination_port: u16) -> Vec<u8> {
    const SYN: u8 = 2;
    const TCP_WORDS: u8 = 5 << 4;
    let [source_high, source_low] = source_port.to_be_bytes();
    let [destination_high, destination_low] = destination_port.to_be_bytes();
    let ports = [source_high, source_low, destination_high, destination_low];
    match protocol {
        ICMP | ICMP_V6 => vec![destination_low, 0, 0, 0, source_high, source_low, 0, 1],
        TCP => [&ports[..], &[0; 8], &[TCP_WORDS, SYN, 0xff, 0xff, 0, 0, 0, 0]].concat(),
        _ => [&ports[..], &[0; 8]].concat(),
    }
}

fn v4(source: Address, destination: Address, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let total = u16::try_from(20 + payload.len()).unwrap_or(u16::MAX).to_be_bytes();
    let header = [&[0x45, 0], &total[..], &[0, 0, 0x40, 0, HOP_LIMIT, protocol, 0, 0]].concat();
    [&header[..], &source.v4_octets(), &destination.v4_octets(), payload].concat()
}

fn v6(source: Address, destination: Address, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap_or(u16::MAX).to_be_bytes();
    let header = [&[0x60, 0, 0, 0], &length[..], &[protocol, HOP_LIMIT]].concat();
    [&header[..], &source.0, &destination.0, payload].concat()
}

impl Packet for FirstPacket {
    fn ethertype(&self) -> u16 {
        self.ethertype
    }

    fn length(&self) -> u32 {
        u32::try_from(self.bytes.len()).unwrap_or(u32::MAX)
    }

    fn ifindex(&self) -> u32 {
        self.ifindex
    }

    fn load<T: FromBytes>(&self, offset: u32) -> Option<T> {
        let offset = usize::try_from(offset).ok()?;
        T::read_from_prefix(self.bytes.get(offset..)?).ok().map(|(value, _)| value)
    }
}
