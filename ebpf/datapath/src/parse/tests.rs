use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use proptest::prelude::*;

use super::{Fragment, Parsed, Part, parse};
use crate::{
    Direction, Reason,
    model::Frame,
    testing::{
        ACK, FIN_ACK, OWN, OWN_V6, PEER, PEER_V6, RST, SYN, SYN_ACK, address, echo, extended, fragments_v4,
        icmp, tcp, udp,
    },
};

const FRAGMENT: u8 = 44;

fn parsed(packet: &[u8]) -> Result<Parsed, Reason> {
    let mut parsed = Parsed::new(Direction::Ingress);
    parse(&Frame::of_ip(packet), &mut parsed).map(|()| parsed)
}

fn refused(packet: &[u8]) -> Reason {
    parsed(packet).unwrap_err()
}

#[test]
fn addresses_ports_and_protocol_are_those_of_the_headers() {
    for (source, destination) in [(PEER, OWN), (PEER_V6, OWN_V6)] {
        let tcp = parsed(&tcp(source, 4000, destination, 80, SYN)).unwrap();
        assert_eq!((*tcp.source(), *tcp.destination()), (address(source), address(destination)));
        assert_eq!((tcp.ports().0.get(), tcp.ports().1.get(), tcp.key.protocol), (4000, 80, 6));
        let udp = parsed(&udp(source, 53, destination, 5353)).unwrap();
        assert_eq!((udp.key.remote_port.get(), udp.key.local_port.get(), udp.key.protocol), (53, 5353, 17));
        let echo = parsed(&echo(source, destination, false, 7)).unwrap();
        assert_eq!((echo.key.remote_port.get(), echo.key.local_port.get()), (7, 7));
    }
}

#[test]
fn a_packet_is_what_its_flags_and_types_say() {
    let part = |packet: &[u8]| parsed(packet).unwrap().part;
    let with = |flags| part(&tcp(PEER, 1, OWN, 2, flags));
    assert_eq!([with(SYN), with(SYN_ACK), with(ACK)], [Part::Opening, Part::Continuing, Part::Continuing]);
    assert_eq!([with(FIN_ACK), with(RST), with(SYN | RST)], [Part::Closing; 3]);
    assert_eq!(with(SYN | 1), Part::Closing, "a SYN that also ends opens nothing");
    assert_eq!(with(0), Part::Continuing);
    assert_eq!(part(&udp(PEER, 1, OWN, 2)), Part::Datagram);
    assert_eq!(part(&echo(PEER, OWN, false, 1)), Part::Opening);
    assert_eq!(part(&echo(PEER_V6, OWN_V6, true, 1)), Part::Continuing);
    assert_eq!(part(&icmp(PEER, OWN, 11, [0; 6], &[])), Part::Error);
    assert_eq!(part(&icmp(PEER_V6, OWN_V6, 2, [0; 6], &[])), Part::Error);
}

#[test]
fn discovery_and_redirects_are_told_apart() {
    for kind in [5, 9, 10] {
        assert_eq!(refused(&icmp(PEER, OWN, kind, [0; 6], &[])), Reason::NeighbourDiscovery);
    }
    for kind in 133..=137 {
        assert_eq!(refused(&icmp(PEER_V6, OWN_V6, kind, [0; 6], &[])), Reason::NeighbourDiscovery);
    }
}

#[test]
fn icmp_of_the_other_family_has_no_types() {
    let mut packet = echo(PEER, OWN, false, 7);
    packet[9] = 58;
    let other = parsed(&packet).unwrap();
    assert_eq!((other.part, other.icmp_type, other.ports().0.get()), (Part::Datagram, 0, 0));
    let mut packet = icmp(PEER_V6, OWN_V6, 5, [0; 6], &[]);
    packet[6] = 1;
    assert_eq!(parsed(&packet).unwrap().part, Part::Datagram);
}

#[test]
fn a_packet_cut_anywhere_is_refused() {
    let packets = [
        (tcp(PEER, 1, OWN, 2, SYN), 20 + 20),
        (udp(PEER, 1, OWN, 2), 20 + 8),
        (echo(PEER, OWN, false, 1), 20 + 8),
        (tcp(PEER_V6, 1, OWN_V6, 2, SYN), 40 + 20),
        (udp(PEER_V6, 1, OWN_V6, 2), 40 + 8),
        (extended(&tcp(PEER_V6, 1, OWN_V6, 2, SYN), 60, &[0; 8]), 40 + 8 + 20),
    ];
    for (packet, headers) in packets {
        for length in 0..packet.len() {
            assert_eq!(refused(&packet[..length]), Reason::Malformed, "{length} of {packet:02x?}");
            // The same cut by a sender that tells the truth about its length.
            let mut honest = packet[..length].to_vec();
            if !set_length(&mut honest) {
                continue;
            }
            assert_eq!(parsed(&honest).is_ok(), length >= headers, "{length} of {packet:02x?}");
        }
    }
}

/// Corrects the length in the IP header; false if it is not there.
fn set_length(packet: &mut [u8]) -> bool {
    let length = packet.len();
    let is_v4 = packet.first().is_some_and(|byte| byte >> 4 == 4);
    let (header, at) = if is_v4 { (20, 2) } else { (40, 4) };
    if length < header {
        return false;
    }
    let value = u16::try_from(if is_v4 { length } else { length - header }).unwrap();
    packet[at..at + 2].copy_from_slice(&value.to_be_bytes());
    true
}

#[test]
fn padding_behind_the_packet_is_not_read() {
    let mut packet = udp(PEER, 1, OWN, 2);
    packet.truncate(24);
    set_length(&mut packet);
    packet.extend_from_slice(&[0; 20]);
    assert_eq!(refused(&packet), Reason::Malformed, "the rest of the UDP header would be padding");
}

#[test]
fn contradictions_are_malformed() {
    let good = tcp(PEER, 1, OWN, 2, SYN);
    let bent = |at: usize, value: u8| {
        let mut packet = good.clone();
        packet[at] = value;
        refused(&packet)
    };
    assert_eq!(bent(0, 0x44), Reason::Malformed, "a header shorter than it can be");
    assert_eq!(bent(0, 0x4f), Reason::Malformed, "options beyond the end");
    assert_eq!(bent(32, 0x40), Reason::Malformed, "a TCP header shorter than it can be");
    assert_eq!(bent(32, 0xf0), Reason::Malformed, "TCP options beyond the end");
    assert_eq!(bent(8, 0), Reason::HopLimit);
    let frame = Frame { ethertype: 0x86dd, ..Frame::of_ip(&good) };
    assert_eq!(parse(&frame, &mut Parsed::new(Direction::Ingress)), Err(Reason::Malformed), "not IPv6");
}

#[test]
fn source_routes_of_ipv4_are_refused_wherever_they_stand() {
    let with = |options: [u8; 8]| {
        let mut packet = tcp(PEER, 4000, OWN, 80, SYN);
        packet.splice(20..20, options);
        packet[0] = 0x47;
        set_length(&mut packet);
        let frame = Frame::of_ip(&packet);
        parse(&frame, &mut Parsed::new(Direction::Ingress))
    };
    for kind in [131, 137] {
        assert_eq!(with([kind, 7, 4, 192, 0, 2, 1, 0]), Err(Reason::SourceRoute));
        assert_eq!(with([1, kind, 7, 4, 192, 0, 2, 1]), Err(Reason::SourceRoute));
        assert_eq!(with([148, 4, 0, 0, kind, 3, 4, 0]), Err(Reason::SourceRoute), "behind a router alert");
        assert_eq!(with([148, 4, kind, 3, 1, 1, 1, 1]), Ok(()), "bytes of another option");
        assert_eq!(with([0, kind, 3, 4, 0, 0, 0, 0]), Ok(()), "behind the end of the options");
    }
    assert_eq!(with([7, 7, 4, 0, 0, 0, 0, 0]), Ok(()), "record route");
    let mut many = tcp(PEER, 4000, OWN, 80, SYN);
    many.splice(20..20, [1; 12]);
    many[0] = 0x48;
    set_length(&mut many);
    assert_eq!(refused(&many), Reason::SourceRoute, "a ninth option might be one");
    for contradiction in [[7, 0, 0, 0, 0, 0, 0, 0], [7, 1, 0, 0, 0, 0, 0, 0], [7, 9, 0, 0, 0, 0, 0, 0]] {
        assert_eq!(with(contradiction), Err(Reason::Malformed));
    }
}

#[test]
fn options_of_ipv4_are_skipped() {
    let mut packet = tcp(PEER, 4000, OWN, 80, SYN);
    packet.splice(20..20, [1; 8]);
    packet[0] = 0x47;
    set_length(&mut packet);
    assert_eq!(parsed(&packet).unwrap().ports().1.get(), 80);
}

#[test]
fn what_a_tag_hides_is_no_ip_packet() {
    for (ethertype, reason) in
        [(0, Reason::UnknownEtherType), (0x8100, Reason::UnknownEtherType), (0x0806, Reason::Arp)]
    {
        let frame = Frame { ethertype, ..Frame::of_ip(&[0; 60]) };
        assert_eq!(parse(&frame, &mut Parsed::new(Direction::Ingress)), Err(reason));
    }
}

#[test]
fn an_ipv4_address_in_an_ipv6_header_is_malformed() {
    assert_eq!(refused(&udp("::ffff:10.0.0.2", 1, OWN_V6, 2)), Reason::Malformed);
    assert_eq!(refused(&udp(PEER_V6, 1, "::ffff:10.0.0.1", 2)), Reason::Malformed);
}

#[test]
fn extension_headers_are_followed_or_the_packet_is_refused() {
    let packet = tcp(PEER_V6, 4000, OWN_V6, 80, SYN);
    let with = |number, header: &[u8]| {
        parsed(&extended(&packet, number, header)).map(|parsed| parsed.ports().1.get())
    };
    assert_eq!(with(0, &[0; 8]), Ok(80));
    assert_eq!(with(60, &[0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), Ok(80));
    assert_eq!(with(43, &[0; 8]), Ok(80), "a routing header that has arrived");
    assert_eq!(with(43, &[0, 0, 0, 1, 0, 0, 0, 0]), Err(Reason::UnknownExtension), "one that has not");
    for number in [135, 139, 140, 253, 254] {
        assert_eq!(with(number, &[0; 8]), Err(Reason::UnknownExtension));
    }
    assert_eq!(with(60, &[0, 255, 0, 0, 0, 0, 0, 0]), Err(Reason::Malformed), "longer than the packet");
    let chain = |count| (0..count).fold(packet.clone(), |packet, _| extended(&packet, 60, &[0; 8]));
    assert_eq!(parsed(&chain(6)).unwrap().ports().1.get(), 80);
    assert_eq!(refused(&chain(7)), Reason::UnknownExtension);
    // A protocol that only carries what looks like TCP has no ports.
    let carried = parsed(&extended(&packet, 51, &[0; 8])).unwrap();
    assert_eq!((carried.key.protocol, carried.ports().1.get()), (51, 0));
}

#[test]
fn fragments_of_ipv4_are_first_or_later() {
    let whole = tcp(PEER, 4000, OWN, 80, ACK);
    let [first, later] = fragments_v4(&whole, 24, 9);
    let first = parsed(&first).unwrap();
    assert_eq!(
        (first.fragment, first.fragment_id, first.ports().1.get()),
        (Fragment::First, [0, 9, 0, 0], 80)
    );
    let later = parsed(&later).unwrap();
    assert_eq!(
        (later.fragment, later.fragment_id, later.part),
        (Fragment::Later, [0, 9, 0, 0], Part::Continuing)
    );
    assert_eq!(later.ports().1.get(), 0);
    let [tiny, overlapping] = fragments_v4(&whole, 8, 9);
    assert_eq!(refused(&tiny), Reason::Malformed, "the flags would be in a later fragment");
    assert_eq!(refused(&overlapping), Reason::Malformed, "it would rewrite the flags");
}

#[test]
fn fragments_of_ipv6_are_atomic_first_or_later() {
    let packet = udp(PEER_V6, 53, OWN_V6, 5353);
    let with = |offset: u8, more: u8| extended(&packet, FRAGMENT, &[0, 0, 0, offset << 3 | more, 1, 2, 3, 4]);
    assert_eq!(parsed(&with(0, 0)).unwrap().fragment, Fragment::Whole);
    let first = parsed(&with(0, 1)).unwrap();
    assert_eq!(
        (first.fragment, first.fragment_id, first.ports().1.get()),
        (Fragment::First, [1, 2, 3, 4], 5353)
    );
    let later = parsed(&with(1, 0)).unwrap();
    assert_eq!((later.fragment, later.key.protocol, later.ports().1.get()), (Fragment::Later, 17, 0));
    let segment = tcp(PEER_V6, 4000, OWN_V6, 80, ACK);
    let piece = |offset: u8| extended(&segment, FRAGMENT, &[0, 0, 0, offset << 3, 1, 2, 3, 4]);
    assert_eq!(refused(&piece(1)), Reason::Malformed, "it would rewrite the flags");
    assert_eq!(refused(&piece(2)), Reason::Malformed);
    assert_eq!(parsed(&piece(3)).unwrap().fragment, Fragment::Later);
    let twice = extended(&with(0, 1), FRAGMENT, &[0, 0, 0, 1, 1, 2, 3, 5]);
    assert_eq!(refused(&twice), Reason::UnknownExtension);
    let options = extended(&extended(&packet, 60, &[0; 8]), FRAGMENT, &[0, 0, 0, 1, 1, 2, 3, 4]);
    assert_eq!(refused(&options), Reason::UnknownExtension, "later fragments could not be told from theirs");
}

/// Source, destination, ports.
type Independent = (Vec<u8>, Vec<u8>, Option<(u16, u16)>);

/// What the independent parser reads.
fn independent(packet: &[u8]) -> Option<Independent> {
    let sliced = SlicedPacket::from_ip(packet).ok()?;
    let (source, destination) = match sliced.net? {
        NetSlice::Ipv4(v4) => (v4.header().source().to_vec(), v4.header().destination().to_vec()),
        NetSlice::Ipv6(v6) => (v6.header().source().to_vec(), v6.header().destination().to_vec()),
        NetSlice::Arp(_) => return None,
    };
    let ports = match sliced.transport {
        Some(TransportSlice::Tcp(tcp)) => Some((tcp.source_port(), tcp.destination_port())),
        Some(TransportSlice::Udp(udp)) => Some((udp.source_port(), udp.destination_port())),
        Some(TransportSlice::Icmpv4(_) | TransportSlice::Icmpv6(_) | TransportSlice::Igmp(_)) | None => None,
    };
    Some((source, destination, ports))
}

fn text(bytes: &[u8]) -> Vec<u8> {
    if let [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, v4 @ ..] = bytes { v4.to_vec() } else { bytes.to_vec() }
}

fn packets() -> impl Strategy<Value = Vec<u8>> {
    let valid = prop_oneof![
        Just(tcp(PEER, 4000, OWN, 80, SYN)),
        Just(tcp(PEER_V6, 4000, OWN_V6, 80, ACK)),
        Just(udp(PEER, 53, OWN, 5353)),
        Just(extended(&udp(PEER_V6, 53, OWN_V6, 5353), 60, &[0; 8])),
        Just(extended(&tcp(PEER_V6, 53, OWN_V6, 5353, SYN), FRAGMENT, &[0, 0, 0, 0, 1, 2, 3, 4])),
        Just(fragments_v4(&tcp(PEER, 4000, OWN, 80, SYN), 24, 7)[0].clone()),
    ];
    let bends = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    let bent = (valid, bends, 0..100_usize).prop_map(|(mut packet, bends, cut)| {
        for (at, value) in bends {
            let at = at.index(packet.len());
            packet[at] = value;
        }
        packet.truncate(packet.len().saturating_sub(cut.saturating_sub(80)));
        packet
    });
    prop_oneof![3 => bent, 1 => proptest::collection::vec(any::<u8>(), 0..120)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    /// What this parser accepts, an independent one reads the same. It may be stricter, never more lenient.
    #[test]
    fn accepted_packets_are_read_as_an_independent_parser_does(packet in packets()) {
        let Ok(ours) = parsed(&packet) else { return Ok(()) };
        prop_assume!(packet.first().is_some_and(|byte| matches!(byte >> 4, 4 | 6)));
        let Some((source, destination, ports)) = independent(&packet) else {
            // The other checks lengths of UDP and extension headers that decide nothing here.
            return Ok(());
        };
        prop_assert_eq!(text(&ours.source().0), source);
        prop_assert_eq!(text(&ours.destination().0), destination);
        if let Some((from, to)) = ports {
            prop_assert_eq!((ours.ports().0.get(), ours.ports().1.get()), (from, to));
        } else if matches!(ours.key.protocol, 6 | 17) {
            prop_assert_ne!(ours.fragment, Fragment::Whole, "ports where the other sees none");
        }
    }

    /// No bytes make the parser read beyond the packet or loop.
    #[test]
    fn any_bytes_are_parsed_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200), ethertype: u16) {
        let frame = Frame { ethertype, ..Frame::of_ip(&bytes) };
        let mut parsed = Parsed::new(Direction::Egress);
        if parse(&frame, &mut parsed).is_ok() {
            prop_assert!(parsed.transport <= parsed.end);
            prop_assert!(usize::try_from(parsed.end).unwrap() <= bytes.len());
        }
    }
}
