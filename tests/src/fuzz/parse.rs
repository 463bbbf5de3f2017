//! The parser against a second reading of every header, which is the independent parser's.

mod reference;

use datapath::model::Frame;
use datapath::parse::{self, Parsed, Part};
use datapath::{Direction, Reason};
use etherparse::{NetSlice, SlicedPacket, TransportSlice};

/// Whatever the bytes, they are refused for a reason of the parser's own, or read as by the second reading: addresses,
/// protocol, ports, fragment and what an ICMP error quotes; and what stands behind a packet's end changes nothing.
///
/// # Panics
///
/// If that is not so.
pub fn parse(data: &[u8]) {
    let Some((first, bytes)) = data.split_first() else { return };
    let direction = if first & 1 == 0 { Direction::Ingress } else { Direction::Egress };
    let ethertype = match first >> 1 & 3 {
        0 => 0x0800,
        1 => 0x86dd,
        2 => Frame::of_ip(bytes).ethertype,
        _ => 0x8100,
    };
    let frame = Frame { ethertype, ..Frame::of_ip(bytes) };
    let mut parsed = Parsed::new(direction);
    let outcome = parse::parse(&frame, &mut parsed);
    let expected = reference::packet(ethertype, bytes);
    match (outcome, expected) {
        (Ok(()), Some(expected)) => {
            assert_eq!(reference::Reading::of(&parsed), expected, "{bytes:02x?}");
            whole_packet(bytes, &parsed);
            let end = usize::try_from(parsed.end).unwrap();
            let cut = Frame { bytes: &bytes[..end], ..frame };
            let mut again = Parsed::new(direction);
            assert_eq!(parse::parse(&cut, &mut again), Ok(()), "without what is behind its end");
            assert_eq!(again, parsed);
            if parsed.part == Part::Error {
                quoted(&frame, &cut, &parsed);
            }
        }
        (Err(Reason::SourceRoute), None) => {
            assert!(ethertype == 0x0800 && reference::may_be_routed(bytes), "{bytes:02x?}");
        }
        (Err(reason), None) => assert!(
            matches!(
                reason,
                Reason::Malformed
                    | Reason::UnknownEtherType
                    | Reason::UnknownExtension
                    | Reason::HopLimit
                    | Reason::NeighbourDiscovery
            ),
            "{reason:?}"
        ),
        (outcome, expected) => {
            panic!("{outcome:?} {parsed:?}, the second reading is {expected:?}: {bytes:02x?}")
        }
    }
}

/// What an ICMP error quotes, with and without what stands behind the error's end.
fn quoted(frame: &Frame<'_>, cut: &Frame<'_>, error: &Parsed) {
    let read = |frame: &Frame<'_>| {
        let mut quoted = Parsed::new(error.direction.opposite());
        parse::parse_quoted(frame, error, &mut quoted).map(|()| quoted)
    };
    let outcome = read(frame);
    let start = usize::try_from(error.transport).unwrap() + 8;
    let ethertype = if error.source().is_v4() { 0x0800 } else { 0x86dd };
    let expected = cut.bytes.get(start..).and_then(|bytes| reference::quoted(ethertype, bytes, start));
    assert_eq!(outcome.ok().as_ref().map(reference::Reading::of), expected, "{:02x?}", cut.bytes);
    assert_eq!(outcome, read(cut), "what is behind the end of an error is quoted");
}

/// Where the independent parser reads the packet as a whole, both see the same.
fn whole_packet(bytes: &[u8], parsed: &Parsed) {
    let Ok(sliced) = SlicedPacket::from_ip(bytes) else { return };
    let is_hidden = match &sliced.net {
        // What an authentication header carries is not followed here.
        Some(NetSlice::Ipv4(v4)) => v4.extensions().auth.is_some(),
        Some(NetSlice::Ipv6(_) | NetSlice::Arp(_)) | None => parsed.key.protocol == 51,
    };
    let ports = (parsed.ports().0.get(), parsed.ports().1.get());
    match sliced.transport {
        Some(TransportSlice::Tcp(tcp)) if !is_hidden => {
            assert_eq!((tcp.source_port(), tcp.destination_port()), ports);
        }
        Some(TransportSlice::Udp(udp)) if !is_hidden => {
            assert_eq!((udp.source_port(), udp.destination_port()), ports);
        }
        Some(_) | None => {}
    }
}
