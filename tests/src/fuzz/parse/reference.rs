//! The second reading: slow, header by header, by the independent parser's slices.

use std::net::IpAddr;

use datapath::Address;
use datapath::parse::{Fragment, Parsed, Part};
use etherparse::{
    Icmpv4Slice, Icmpv6Slice, IpNumber, Ipv4HeaderSlice, Ipv6FragmentHeaderSlice, Ipv6HeaderSlice,
    Ipv6RawExtHeaderSlice, TcpHeaderSlice, UdpHeaderSlice,
};

/// What matters of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reading {
    source: Address,
    destination: Address,
    protocol: u8,
    ports: (u16, u16),
    fragment: Fragment,
    id: [u8; 4],
    transport: usize,
    end: usize,
    part: Part,
    icmp: (u8, u8),
    /// The type by which policy and flows know the message: a reply is of its query's.
    query: u8,
}

impl Reading {
    pub(super) fn of(parsed: &Parsed) -> Self {
        let (source, destination) = parsed.ports();
        Self {
            source: *parsed.source(),
            destination: *parsed.destination(),
            protocol: parsed.key.protocol,
            ports: (source.get(), destination.get()),
            fragment: parsed.fragment,
            id: parsed.fragment_id,
            transport: usize::try_from(parsed.transport).unwrap(),
            end: usize::try_from(parsed.end).unwrap(),
            part: parsed.part,
            icmp: (parsed.icmp_type, parsed.icmp_code),
            query: parsed.key.icmp_type,
        }
    }

    fn new(source: IpAddr, destination: IpAddr) -> Self {
        Self {
            source: source.into(),
            destination: destination.into(),
            protocol: 0,
            ports: (0, 0),
            fragment: Fragment::Whole,
            id: [0; 4],
            transport: 0,
            end: 0,
            part: Part::Datagram,
            icmp: (0, 0),
            query: 0,
        }
    }
}

/// A packet that is there as a whole.
pub(super) fn packet(ethertype: u16, bytes: &[u8]) -> Option<Reading> {
    let mut reading = headers(ethertype, bytes, false)?;
    transport(&mut reading, bytes, ethertype, false)?;
    Some(reading)
}

/// What an ICMP error quotes from `start` on, which may end anywhere behind the ports.
pub(super) fn quoted(ethertype: u16, bytes: &[u8], start: usize) -> Option<Reading> {
    let mut reading = headers(ethertype, bytes, true)?;
    if reading.fragment == Fragment::Later {
        return None;
    }
    transport(&mut reading, bytes, ethertype, true)?;
    reading.transport += start;
    reading.end += start;
    (reading.part != Part::Error).then_some(reading)
}

fn headers(ethertype: u16, bytes: &[u8], is_quoted: bool) -> Option<Reading> {
    match ethertype {
        0x0800 => ipv4(bytes, is_quoted),
        0x86dd => ipv6(bytes, is_quoted),
        _ => None,
    }
}

/// Bytes that must not lie in a later fragment.
const fn header_length(protocol: u8) -> usize {
    match protocol {
        6 => 20,
        132 => 12,
        17 | 1 | 58 => 8,
        _ => 0,
    }
}

fn ipv4(bytes: &[u8], is_quoted: bool) -> Option<Reading> {
    // The slice wants the options to be there, a quotation may end before them.
    let fixed = bytes.get(..20)?;
    let padded = [fixed, &[0; 40]].concat();
    let header = Ipv4HeaderSlice::from_slice(if is_quoted { &padded } else { bytes }).ok()?;
    if header.ttl() == 0 {
        return None;
    }
    let mut reading = Reading::new(header.source_addr().into(), header.destination_addr().into());
    reading.protocol = header.protocol().0;
    reading.transport = usize::from(header.ihl()) * 4;
    reading.end = if is_quoted { bytes.len() } else { usize::from(header.total_len()) };
    let offset = usize::from(header.fragments_offset().value()) * 8;
    if offset != 0 {
        reading.fragment = Fragment::Later;
    } else if header.more_fragments() {
        reading.fragment = Fragment::First;
    }
    if reading.fragment != Fragment::Whole {
        let [high, low] = header.identification().to_be_bytes();
        reading.id = [high, low, 0, 0];
    }
    let rewrites = offset != 0 && offset < header_length(reading.protocol);
    let fits = (reading.transport..=bytes.len()).contains(&reading.end);
    // Routers have already done what the options of a quotation say.
    let is_harmless = is_quoted || Options::of(header.options()).are_harmless();
    (fits && !rewrites && is_harmless).then_some(reading)
}

/// The options of a header (RFC 791, 3.1), by number.
struct Options {
    numbers: Vec<u8>,
    is_whole: bool,
}

impl Options {
    /// Up to and with the first that cannot be told from the next.
    fn of(mut area: &[u8]) -> Self {
        let mut numbers = Vec::new();
        while let Some((number, behind)) = area.split_first() {
            numbers.push(*number);
            let body = match (*number, behind.first()) {
                // The end of the list; what follows is padding.
                (0, _) => break,
                (1, _) => Some(0),
                // The length counts the number and itself.
                (_, length) => {
                    length.and_then(|length| usize::from(*length).checked_sub(2)).map(|rest| rest + 1)
                }
            };
            let Some(next) = body.and_then(|body| behind.get(body..)) else {
                return Self { numbers, is_whole: false };
            };
            area = next;
        }
        Self { numbers, is_whole: true }
    }

    /// Whether one is loose or strict source and record route, or there are more than are looked at.
    fn may_route(&self) -> bool {
        // Copied on fragmentation, of class control, numbers 3 and 9.
        let is_route =
            |number: &u8| number & 0b1110_0000 == 0b1000_0000 && matches!(number & 0b1_1111, 3 | 9);
        self.numbers.len() > 8 || self.numbers.iter().any(is_route)
    }

    fn are_harmless(&self) -> bool {
        self.is_whole && !self.may_route()
    }
}

/// Whether the options of an IPv4 packet may take it elsewhere than to its destination.
pub(super) fn may_be_routed(bytes: &[u8]) -> bool {
    Ipv4HeaderSlice::from_slice(bytes).is_ok_and(|header| Options::of(header.options()).may_route())
}

fn ipv6(bytes: &[u8], is_quoted: bool) -> Option<Reading> {
    let header = Ipv6HeaderSlice::from_slice(bytes).ok()?;
    let mut reading = Reading::new(header.source_addr().into(), header.destination_addr().into());
    if header.hop_limit() == 0 || reading.source.is_v4() || reading.destination.is_v4() {
        return None;
    }
    reading.end = if is_quoted { bytes.len() } else { 40 + usize::from(header.payload_length()) };
    if reading.end > bytes.len() {
        return None;
    }
    let mut rest = &bytes[40..reading.end];
    let mut next = header.next_header();
    let mut count = 0;
    loop {
        match next {
            IpNumber::IPV6_HEADER_HOP_BY_HOP
            | IpNumber::IPV6_DESTINATION_OPTIONS
            | IpNumber::IPV6_ROUTE_HEADER => {
                let is_route = next == IpNumber::IPV6_ROUTE_HEADER;
                let slice = Ipv6RawExtHeaderSlice::from_slice(rest).ok()?;
                if is_route && slice.slice()[3] != 0 {
                    return None;
                }
                next = slice.next_header();
                rest = &rest[slice.slice().len()..];
            }
            IpNumber::IPV6_FRAGMENTATION_HEADER => {
                let slice = Ipv6FragmentHeaderSlice::from_slice(rest).ok()?;
                if reading.fragment != Fragment::Whole {
                    return None;
                }
                fragment(&slice, &mut reading)?;
                next = slice.next_header();
                rest = &rest[8..];
            }
            _ if is_refused_extension(next.0) => return None,
            _ => break,
        }
        count += 1;
        let follows = is_refused_extension(next.0) || matches!(next.0, 0 | 43 | 44 | 60);
        if follows && (count == 6 || reading.fragment != Fragment::Whole) {
            return None;
        }
    }
    reading.protocol = next.0;
    reading.transport = reading.end - rest.len();
    Some(reading)
}

/// Extension headers that nobody needs here: mobility, HIP, shim6, experiments.
const fn is_refused_extension(next: u8) -> bool {
    matches!(next, 135 | 139 | 140 | 253 | 254)
}

fn fragment(slice: &Ipv6FragmentHeaderSlice<'_>, reading: &mut Reading) -> Option<()> {
    if !slice.is_fragmenting_payload() {
        return Some(());
    }
    let offset = usize::from(slice.fragment_offset().value()) * 8;
    reading.id = slice.identification().to_be_bytes();
    reading.fragment = if offset == 0 { Fragment::First } else { Fragment::Later };
    (offset == 0 || offset >= header_length(slice.next_header().0)).then_some(())
}

fn transport(reading: &mut Reading, bytes: &[u8], ethertype: u16, is_quoted: bool) -> Option<()> {
    if reading.fragment == Fragment::Later {
        reading.part = Part::Continuing;
        return Some(());
    }
    let payload = bytes.get(reading.transport..reading.end);
    match (reading.protocol, ethertype) {
        (6 | 17 | 132, _) if is_quoted => ports(reading, payload?, 4),
        (6, _) => tcp(reading, payload?),
        (17, _) => {
            UdpHeaderSlice::from_slice(payload?).ok()?;
            ports(reading, payload?, 8)
        }
        (132, _) => ports(reading, payload?, 12),
        (1, 0x0800) => icmp_v4(reading, payload?),
        (58, 0x86dd) => icmp_v6(reading, payload?),
        _ => Some(()),
    }
}

fn ports(reading: &mut Reading, payload: &[u8], needed: usize) -> Option<()> {
    let [a, b, c, d, ..] = payload.get(..needed)? else { return None };
    reading.ports = (u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d]));
    Some(())
}

fn tcp(reading: &mut Reading, payload: &[u8]) -> Option<()> {
    let header = TcpHeaderSlice::from_slice(payload).ok()?;
    reading.ports = (header.source_port(), header.destination_port());
    reading.part = match (header.syn(), header.ack(), header.fin() || header.rst()) {
        (_, _, true) => Part::Closing,
        (true, false, false) => Part::Opening,
        _ => Part::Continuing,
    };
    Some(())
}

fn icmp_v4(reading: &mut Reading, payload: &[u8]) -> Option<()> {
    let message = Icmpv4Slice::from_slice(payload.get(..payload.len().min(8))?);
    // The slice wants a timestamp whole.
    let bytes = payload.get(..8)?;
    let (kind, code) = message.map_or((bytes[0], bytes[1]), |slice| (slice.type_u8(), slice.code_u8()));
    reading.icmp = (kind, code);
    match kind {
        3 | 4 | 11 | 12 => reading.part = Part::Error,
        5 | 9 | 10 => return None,
        8 | 13 | 15 | 17 | 42 => identified(reading, bytes, kind, Part::Opening),
        0 => identified(reading, bytes, 8, Part::Continuing),
        14 => identified(reading, bytes, 13, Part::Continuing),
        16 => identified(reading, bytes, 15, Part::Continuing),
        18 => identified(reading, bytes, 17, Part::Continuing),
        43 => identified(reading, bytes, 42, Part::Continuing),
        _ => reading.query = kind,
    }
    Some(())
}

fn icmp_v6(reading: &mut Reading, payload: &[u8]) -> Option<()> {
    let slice = Icmpv6Slice::from_slice(payload).ok()?;
    reading.icmp = (slice.type_u8(), slice.code_u8());
    match slice.type_u8() {
        0..128 => reading.part = Part::Error,
        133..=137 | 141 | 142 | 148 | 149 => return None,
        kind @ (128 | 160) => identified(reading, payload, kind, Part::Opening),
        129 => identified(reading, payload, 128, Part::Continuing),
        161 => identified(reading, payload, 160, Part::Continuing),
        kind => reading.query = kind,
    }
    Some(())
}

fn identified(reading: &mut Reading, message: &[u8], query: u8, part: Part) {
    reading.query = query;
    let identifier = u16::from_be_bytes([message[4], message[5]]);
    reading.ports = (identifier, identifier);
    reading.part = part;
}
