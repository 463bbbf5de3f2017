//! What the programs decide about single packets.

use anyhow::{Result, ensure};
use datapath::{Address, Outer, Reason};
use e2e::prog_test::frames::{ethernet, ipv4, ipv6, tcp, udp};
use e2e::prog_test::mesh::address;
use e2e::prog_test::twin::{API, DB, OPS, Peer, Twin, WEB, network_policy};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use serde_json::json;

const SYN: u8 = 2;
const ACK: u8 = 16;
const HOP_BY_HOP: u8 = 0;
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const ICMPV6: u8 = 58;
const OPTIONS: u8 = 60;
const MOBILITY: u8 = 135;

/// `api` may reach TCP and UDP 80 to 90, `ops` everything, `web` nothing.
fn twin() -> Result<Twin> {
    let ports = json!([{"port": 80, "endPort": 90}, {"protocol": "UDP", "port": 80, "endPort": 90}]);
    let from = |app: &str| json!([{"podSelector": {"matchLabels": {"app": app}}}]);
    let ingress = json!([{"from": from("api"), "ports": ports}, {"from": from("ops")}]);
    Twin::with(&[network_policy("db", &json!({"podSelector": {}, "ingress": ingress}))])
}

/// An IP packet from a peer to the host.
fn to_db(from: Peer, is_v6: bool, protocol: u8, payload: &[u8]) -> Vec<u8> {
    ip(from.address(is_v6), DB.address(is_v6), protocol, payload)
}

fn ip(source: Address, destination: Address, protocol: u8, payload: &[u8]) -> Vec<u8> {
    if source.is_v4() {
        ipv4(source, destination, protocol, [0; 4], payload)
    } else {
        ipv6(source, destination, protocol, payload)
    }
}

fn icmp(kind: u8, rest: [u8; 6], payload: &[u8]) -> Vec<u8> {
    [&[kind, 0][..], &rest, payload].concat()
}

/// The ICMP of a family: its protocol, and the types of echo request and reply and of unreachable.
const fn family(is_v6: bool) -> (u8, u8, u8, u8) {
    if is_v6 { (ICMPV6, 128, 129, 1) } else { (ICMP, 8, 0, 3) }
}

fn is(seen: Reason, expected: Reason, what: &str) -> Result<()> {
    ensure!(seen == expected, "{what}: {} instead of {}", seen.name(), expected.name());
    Ok(())
}

/// An extension header of `units` further words of eight bytes, all of them what a TCP header to port 80 looks like.
fn extension(next: u8, units: u8) -> Vec<u8> {
    let bait = tcp(4000, 80, SYN);
    let body = bait.iter().cycle().take(6 + usize::from(units) * 8);
    [next, units].iter().chain(body).copied().collect()
}

#[test]
fn threat_23_extension_header_lengths() -> Result<()> {
    let mut twin = twin()?;
    for kind in [HOP_BY_HOP, OPTIONS] {
        // Computed in eight bits, 31 and 255 would lead back to the header itself, 32 to eight bytes behind it.
        for units in [0, 1, 15, 30, 31, 32, 33, 63, 64, 127, 128, 254, 255] {
            for (port, expected) in [(22, Reason::PolicyDenied), (80, Reason::NewAllowed)] {
                let chain = [extension(TCP, units), tcp(4000 + u16::from(units), port, SYN)].concat();
                let seen = twin.ingress(API, &to_db(API, true, kind, &chain))?;
                is(seen, expected, &format!("port {port} behind {units} words of header {kind}"))?;
            }
        }
        twin.forget()?;
    }
    Ok(())
}

#[test]
fn threat_23_random_chains_are_read_as_they_were_written() -> Result<()> {
    let mut twin = twin()?;
    let mut rng = StdRng::seed_from_u64(23);
    for number in 0..1500_u16 {
        let port = *[22, 79, 80, 90, 91].choose(&mut rng).unwrap_or(&22);
        let (mut next, mut payload) = (TCP, tcp(2000 + number, port, SYN));
        let headers = rng.random_range(0..9_u8);
        // More than six are refused.
        let mut readable = headers <= 6;
        for _ in 0..headers {
            let kind =
                *[HOP_BY_HOP, OPTIONS, ROUTING, MOBILITY, AUTHENTICATION].choose(&mut rng).unwrap_or(&0);
            let mut header = extension(next, rng.random_range(0..6));
            if kind == ROUTING {
                header[3] = u8::from(rng.random_bool(0.3));
            }
            readable &= kind == HOP_BY_HOP || kind == OPTIONS || (kind == ROUTING && header[3] == 0);
            payload = [header, payload].concat();
            next = kind;
        }
        let seen = twin.ingress(API, &to_db(API, true, next, &payload))?;
        let allowed = readable && (80..=90).contains(&port);
        ensure!(seen.passes() == allowed, "packet {number}, port {port}: {}", seen.name());
    }
    Ok(())
}

#[test]
fn threat_24_only_any_rules_match_what_is_no_transport() -> Result<()> {
    let mut twin = twin()?;
    let bait = [tcp(4000, 80, SYN), udp(4000, 80)].concat();
    // IPIP, IGMP, 6in4, GRE, ESP, AH, EIGRP, OSPF, SCTP, UDP-Lite, 253, and ICMP of the other family.
    let carriers = [2, 4, 41, 47, 50, AUTHENTICATION, 88, 89, 132, 136];
    for is_v6 in [false, true] {
        let other = if is_v6 { ICMP } else { ICMPV6 };
        for protocol in carriers.into_iter().chain([other]) {
            // An authentication header that says that TCP follows.
            let payload = [&[TCP, 4, 0, 0, 0, 0, 0, 1][..], &[0; 16], &bait].concat();
            for payload in [&bait, &payload] {
                let what = format!("protocol {protocol}, IPv6 {is_v6}");
                is(twin.ingress(API, &to_db(API, is_v6, protocol, payload))?, Reason::PolicyDenied, &what)?;
                is(twin.ingress(WEB, &to_db(WEB, is_v6, protocol, payload))?, Reason::PolicyDenied, &what)?;
                let seen = twin.ingress(OPS, &to_db(OPS, is_v6, protocol, payload))?;
                ensure!(seen.passes(), "{what}, for a rule about everything: {}", seen.name());
            }
        }
        twin.forget()?;
    }
    for protocol in [MOBILITY, 139, 140, 253, 254] {
        let payload = [&[TCP, 0, 0, 0, 0, 0, 0, 0][..], &bait].concat();
        let seen = twin.ingress(OPS, &to_db(OPS, true, protocol, &payload))?;
        is(seen, Reason::UnknownExtension, &format!("extension {protocol}"))?;
    }
    Ok(())
}

#[test]
fn threat_24_the_type_of_icmp_is_read_behind_all_headers() -> Result<()> {
    let mut twin = twin()?;
    for (kind, expected) in [
        (128, Reason::NewAllowed),
        (133, Reason::NeighbourDiscovery),
        (134, Reason::NeighbourDiscovery),
        (135, Reason::NeighbourDiscovery),
        (136, Reason::NeighbourDiscovery),
        (137, Reason::NeighbourDiscovery),
        (1, Reason::IcmpUnrelated),
        (129, Reason::NoFlow),
    ] {
        let message = icmp(kind, [0, 0, 0, kind, 0, 1], &[0; 64]);
        // Where the type would be read without regard to the header stands an echo request.
        for units in [0, 3] {
            let mut header = extension(ICMPV6, units);
            header[2..].fill(128);
            let payload = [header, message.clone()].concat();
            let seen = twin.ingress(OPS, &to_db(OPS, true, OPTIONS, &payload))?;
            is(seen, expected, &format!("type {kind} behind options"))?;
            twin.forget()?;
        }
        is(twin.ingress(OPS, &to_db(OPS, true, ICMPV6, &message))?, expected, &format!("type {kind}"))?;
        twin.forget()?;
    }
    Ok(())
}

/// An IPv4 address as an IPv6 header would carry it.
fn mapped_packet(source: Address, destination: Address) -> Vec<u8> {
    ipv6(source, destination, TCP, &tcp(4000, 80, SYN))
}

#[test]
fn threat_25_mapped_addresses_are_no_second_name() -> Result<()> {
    let mut twin = twin()?;
    let (mapped, own) = (API.address(false), DB.address(true));
    for (source, destination) in
        [(mapped, DB.address(false)), (mapped, own), (API.address(true), DB.address(false))]
    {
        let packet = mapped_packet(source, destination);
        is(twin.ingress(API, &packet)?, Reason::Malformed, "in")?;
        let packet = mapped_packet(destination, source);
        is(twin.egress(&packet)?, Reason::Malformed, "out")?;
    }
    // An address that only looks like one is nobody's.
    let compatible = address("::10.0.0.2");
    is(twin.ingress(API, &mapped_packet(compatible, own))?, Reason::UnknownSource, "compatible")?;
    // On other devices both forms are the mesh address.
    let stranger = address("2001:db8::7");
    ensure!(!twin.guard(&ethernet(&mapped_packet(stranger, DB.address(false))))?, "mapped, to the host");
    ensure!(!twin.guard(&ethernet(&mapped_packet(mapped, address("2001:db8::8"))))?, "mapped, from the mesh");
    Ok(())
}

#[test]
fn threat_25_control_messages_and_policies_know_one_form() -> Result<()> {
    let mapped = [&[0; 10][..], &[0xff, 0xff, 10, 0, 0, 2]].concat();
    let read = proto::convert::address_from_wire(&mapped)?;
    ensure!(read.is_ipv4(), "{read} stays a second name of 10.0.0.2");
    let block = |cidr: &str| {
        let from = json!([{"ipBlock": {"cidr": cidr}}]);
        let spec = json!({"podSelector": {}, "ingress": [{"from": from}]});
        policy::networkpolicy::parse(&network_policy("p", &spec))
    };
    ensure!(block("::ffff:10.0.0.0/104").is_err(), "a mapped block is accepted");
    // The block of all IPv6 addresses is none of IPv4.
    let mut twin = Twin::with(&[network_policy(
        "db",
        &json!({"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "::/0"}}]}]}),
    )])?;
    is(twin.ingress(API, &to_db(API, true, UDP, &udp(1, 80)))?, Reason::NewAllowed, "IPv6")?;
    is(twin.ingress(API, &to_db(API, false, UDP, &udp(1, 80)))?, Reason::PolicyDenied, "IPv4")
}

/// A fragment of a packet of a peer: its offset in bytes, whether more follow, and its piece.
fn fragment(
    from: Peer,
    is_v6: bool,
    id: u8,
    (offset, more): (u16, bool),
    protocol: u8,
    piece: &[u8],
) -> Vec<u8> {
    let flags = u16::from(more);
    if is_v6 {
        let [high, low] = (offset | flags).to_be_bytes();
        let header = [protocol, 0, high, low, 0, 0, 0, id];
        return to_db(from, true, FRAGMENT, &[&header[..], piece].concat());
    }
    let [high, low] = ((offset / 8) | (flags << 13)).to_be_bytes();
    ipv4(from.address(false), DB.address(false), protocol, [0, id, high, low], piece)
}

#[test]
fn threat_26_fragments_follow_their_first_or_are_dropped() -> Result<()> {
    let mut twin = twin()?;
    for is_v6 in [false, true] {
        let rest = [0x55; 32];
        let datagram = |port| [udp(4000, port), vec![0; 16]].concat();
        let mut case = |from, id, place, protocol, piece: &[u8], expected, what: &str| {
            let packet = fragment(from, is_v6, id, place, protocol, piece);
            is(twin.ingress(from, &packet)?, expected, &format!("{what}, IPv6 {is_v6}"))
        };
        case(OPS, 1, (32, false), UDP, &rest, Reason::FragmentOrphan, "no first one")?;
        case(API, 2, (0, true), UDP, &datagram(22), Reason::PolicyDenied, "a denied first one")?;
        case(API, 2, (32, false), UDP, &rest, Reason::FragmentOrphan, "behind a denied first one")?;
        case(API, 3, (0, true), UDP, &datagram(80), Reason::NewAllowed, "an allowed first one")?;
        case(API, 3, (32, false), UDP, &rest, Reason::Established, "behind an allowed first one")?;
        case(API, 4, (32, false), UDP, &rest, Reason::FragmentOrphan, "of another datagram")?;
        case(WEB, 3, (32, false), UDP, &rest, Reason::FragmentOrphan, "of another sender")?;
        case(API, 3, (32, false), TCP, &rest, Reason::FragmentOrphan, "of another protocol")?;
        let segment = tcp(4000, 80, SYN);
        case(API, 5, (0, true), TCP, &segment[..8], Reason::Malformed, "a tiny first one: only ports")?;
        case(API, 5, (0, true), TCP, &segment[..16], Reason::Malformed, "a tiny first one: no end")?;
        case(API, 6, (0, true), TCP, &segment, Reason::NewAllowed, "a whole header")?;
        case(API, 6, (8, false), TCP, &segment, Reason::Malformed, "one that rewrites the flags")?;
        case(API, 6, (16, false), TCP, &segment, Reason::Malformed, "one that rewrites the header's end")?;
        case(API, 6, (24, false), TCP, &rest, Reason::Established, "one behind the header")?;
        case(API, 7, (0, true), UDP, &udp(4000, 80)[..4], Reason::Malformed, "half a header")?;
        twin.forget()?;
    }
    // A fragment that is whole is judged as one, and its later ones do not exist.
    for (port, expected) in [(22, Reason::PolicyDenied), (80, Reason::NewAllowed)] {
        let packet = fragment(API, true, 9, (0, false), UDP, &udp(4000, port));
        is(twin.ingress(API, &packet)?, expected, "atomic")?;
    }
    let later = fragment(API, true, 9, (8, false), UDP, &[0; 8]);
    is(twin.ingress(API, &later)?, Reason::FragmentOrphan, "behind an atomic one")
}

#[test]
fn threat_26_fragments_beyond_the_maps_room_are_dropped() -> Result<()> {
    let mut twin = twin()?;
    let first = |id: u16| {
        let [high, low] = id.to_be_bytes();
        let payload = [udp(4000, 80), vec![0; 16]].concat();
        ipv4(API.address(false), DB.address(false), UDP, [high, low, 0x20, 0], &payload)
    };
    let later = |id: u16| {
        let [high, low] = id.to_be_bytes();
        ipv4(API.address(false), DB.address(false), UDP, [high, low, 0, 4], &[0x55; 32])
    };
    // As many as the host build has room for, and twice as many again; the kernel's map is larger.
    let room = u16::try_from(datapath::model::Capacity::default().fragments)?;
    for id in 0..room {
        ensure!(twin.ingress(API, &first(id))?.passes(), "first fragment {id}");
    }
    ensure!(twin.ingress(API, &later(0))?.passes(), "a later fragment of one that is remembered");
    let seen = twin.in_model(API, &(room..3 * room).map(first).collect::<Vec<_>>())?;
    ensure!(seen.iter().all(|reason| reason.passes()), "an old datagram keeps a new one out");
    let seen = twin.in_model(API, &(1..room).map(later).collect::<Vec<_>>())?;
    ensure!(seen.iter().all(|reason| *reason == Reason::FragmentOrphan), "a forgotten datagram passes");
    Ok(())
}

#[test]
fn threat_27_icmp_is_no_way_around_policy() -> Result<()> {
    let mut twin = twin()?;
    for is_v6 in [false, true] {
        let (protocol, request, reply, unreachable) = family(is_v6);
        let message = |kind| icmp(kind, [0, 0, 0, 7, 0, 1], b"data");
        for from in [API, WEB] {
            let seen = twin.ingress(from, &to_db(from, is_v6, protocol, &message(request)))?;
            is(seen, Reason::PolicyDenied, "a request of one who may not")?;
        }
        let seen = twin.ingress(OPS, &to_db(OPS, is_v6, protocol, &message(reply)))?;
        is(seen, Reason::NoFlow, "a reply that nobody asked for")?;
        let seen = twin.ingress(OPS, &to_db(OPS, is_v6, protocol, &message(request)))?;
        is(seen, Reason::NewAllowed, "a request of one who may")?;

        // Errors are about a live flow, and come from where its other end is.
        let sent = ip(DB.address(is_v6), API.address(is_v6), UDP, &udp(80, 4000));
        let error = |about: &[u8]| icmp(unreachable, [0; 6], about);
        let of_api = |about: &[u8]| to_db(API, is_v6, protocol, &error(about));
        is(twin.ingress(API, &of_api(&sent))?, Reason::IcmpUnrelated, "about nothing")?;
        let opened = twin.ingress(API, &to_db(API, is_v6, UDP, &udp(4000, 80)))?;
        is(opened, Reason::NewAllowed, "the flow")?;
        is(twin.ingress(API, &of_api(&sent))?, Reason::Related, "about the flow")?;
        let other = ip(DB.address(is_v6), API.address(is_v6), UDP, &udp(81, 4000));
        is(twin.ingress(API, &of_api(&other))?, Reason::IcmpUnrelated, "about another port")?;
        let other = ip(DB.address(is_v6), WEB.address(is_v6), UDP, &udp(80, 4000));
        is(twin.ingress(API, &of_api(&other))?, Reason::IcmpUnrelated, "about another peer")?;
        let reversed = to_db(API, is_v6, UDP, &udp(4000, 80));
        is(twin.ingress(API, &of_api(&reversed))?, Reason::IcmpUnrelated, "about what it sent itself")?;
        let of_web = to_db(WEB, is_v6, protocol, &error(&sent));
        is(twin.ingress(WEB, &of_web)?, Reason::Spoofed, "of one whom it does not concern")?;
        let foreign = Outer { vni: WEB.outer().vni, ..API.outer() };
        let seen = twin.ingress_frame(&ethernet(&of_api(&sent)), &foreign)?;
        is(seen, Reason::Spoofed, "with another's identity")?;
        twin.forget()?;
    }
    for kind in [5, 9, 10] {
        let seen = twin.ingress(OPS, &to_db(OPS, false, ICMP, &icmp(kind, [0; 6], &[0; 20])))?;
        is(seen, Reason::NeighbourDiscovery, "a redirect or a router's advertisement")?;
    }
    Ok(())
}

#[test]
fn threat_28_packets_cut_at_every_byte() -> Result<()> {
    let mut twin = twin()?;
    for is_v6 in [false, true] {
        let (protocol, request, _, unreachable) = family(is_v6);
        let quoted = ip(DB.address(is_v6), OPS.address(is_v6), UDP, &udp(80, 4000));
        let error = icmp(unreachable, [0; 6], &quoted);
        // What is cut, and how many bytes of it have to be there for a verdict that lets it pass.
        let whole = [
            (TCP, tcp(4000, 80, SYN), Some(20)),
            (UDP, [udp(4000, 80), vec![7; 40]].concat(), Some(8)),
            (132, [udp(4000, 80), vec![7; 40]].concat(), Some(12)),
            (protocol, icmp(request, [0, 0, 0, 1, 0, 1], &[7; 60]), Some(8)),
            (protocol, error, None),
            (47, vec![7; 40], Some(0)),
        ];
        let header = if is_v6 { 40 } else { 20 };
        for (number, transport, needed) in whole {
            let packet = to_db(OPS, is_v6, number, &transport);
            for length in 0..=packet.len() {
                let what = format!("{length} bytes of protocol {number}, IPv6 {is_v6}");
                let cut = &packet[..length];
                let seen = twin.ingress(OPS, cut)?;
                ensure!(length == packet.len() || seen == Reason::Malformed, "{what}: {}", seen.name());
                if length < header {
                    continue;
                }
                // By a sender that tells the truth about the length, alone and with padding behind it.
                let honest = to_db(OPS, is_v6, number, &transport[..length - header]);
                let padded = [&honest[..], &transport].concat();
                for packet in [&honest, &padded] {
                    let seen = twin.ingress(OPS, packet)?;
                    let enough = needed.is_some_and(|needed| length - header >= needed);
                    ensure!(seen.passes() == enough, "{what}, honest: {}", seen.name());
                }
            }
            twin.forget()?;
        }
    }
    Ok(())
}

#[test]
fn threat_28_short_fragments_of_icmp() -> Result<()> {
    let mut twin = twin()?;
    for is_v6 in [false, true] {
        let (protocol, request, ..) = family(is_v6);
        let message = icmp(request, [0, 0, 0, 1, 0, 1], &[7; 24]);
        for length in 0..=message.len() {
            let packet = fragment(OPS, is_v6, 1, (0, true), protocol, &message[..length]);
            let seen = twin.ingress(OPS, &packet)?;
            ensure!(seen.passes() == (length >= 8), "{length} bytes, IPv6 {is_v6}: {}", seen.name());
            // One that begins within the header would rewrite the type.
            if length < 8 {
                let later = fragment(OPS, is_v6, 2, (8, false), protocol, &message[..length]);
                is(twin.ingress(OPS, &later)?, Reason::FragmentOrphan, "a later one alone")?;
            }
        }
        twin.forget()?;
    }
    Ok(())
}

/// A frame with tags (type and control) before the packet.
fn tagged(tags: &[(u16, u16)], ip: &[u8]) -> Vec<u8> {
    let frame = ethernet(ip);
    let (addresses, rest) = frame.split_at(12);
    let tags = tags.iter().flat_map(|(kind, control)| [kind.to_be_bytes(), control.to_be_bytes()]).flatten();
    addresses.iter().copied().chain(tags).chain(rest.iter().copied()).collect()
}

#[test]
fn threat_29_tags_and_tunnels_hide_nothing() -> Result<()> {
    let mut twin = twin()?;
    let stacks: [&[(u16, u16)]; 6] = [
        &[(0x8100, 0)],
        &[(0x8100, 5)],
        &[(0x88a8, 5)],
        &[(0x88a8, 5), (0x8100, 6)],
        &[(0x8100, 0), (0x8100, 0)],
        &[(0x9100, 5)],
    ];
    for is_v6 in [false, true] {
        let plain = to_db(API, is_v6, TCP, &tcp(4000, 80, ACK));
        for tags in stacks {
            for from in [API, OPS, WEB] {
                let seen = twin.ingress_frame(&tagged(tags, &plain), &from.outer())?;
                is(seen, Reason::UnknownEtherType, &format!("{tags:04x?}"))?;
            }
        }
        // The other family inside: no rule about ports looks into it.
        let inner = to_db(OPS, !is_v6, TCP, &tcp(4000, 80, SYN));
        let protocol = if is_v6 { 4 } else { 41 };
        is(twin.ingress(API, &to_db(API, is_v6, protocol, &inner))?, Reason::PolicyDenied, "hidden")?;
        // Priority tags within one another, which the kernel would strip one by one.
        let bare = ip(
            address(if is_v6 { "2001:db8::7" } else { "198.51.100.7" }),
            DB.address(is_v6),
            UDP,
            &udp(1, 2),
        );
        for tags in [&[(0x8100, 0), (0x8100, 0)][..], &[(0x88a8, 0), (0x8100, 0)]] {
            ensure!(!twin.guard(&tagged(tags, &bare))?, "the guard lets {tags:04x?} in");
        }
        ensure!(!twin.guard(&ethernet(&bare))?, "the guard lets a bare packet in");
    }
    Ok(())
}
