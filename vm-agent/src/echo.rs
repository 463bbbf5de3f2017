//! ICMP echo: one of a chosen size, unfragmented, and what others need who ask.

use std::io::{self, Read as _};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

/// How long an answer may take, and how often one is asked for.
const WAIT: Duration = Duration::from_millis(800);
const ATTEMPTS: u16 = 3;
/// Headers of ICMP and of IP.
const ICMP_HEADER: usize = 8;
const IP_HEADER: (u32, u32) = (20, 40);

/// Sends echo requests whose IP packet has `size` bytes until one is answered whole. Blocks.
///
/// # Errors
/// What the system says, or that nothing came back.
pub(crate) fn echo(source: Option<IpAddr>, target: IpAddr, size: u32) -> io::Result<Duration> {
    let v4 = target.is_ipv4();
    let (domain, protocol) =
        if v4 { (Domain::IPV4, Protocol::ICMPV4) } else { (Domain::IPV6, Protocol::ICMPV6) };
    // The kernel sets the don't-fragment bit on packets that fit the device, and adds ICMPv6's checksum.
    let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
    if let Some(source) = source {
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    socket.connect(&SocketAddr::new(target, 0).into())?;
    let header = if v4 { IP_HEADER.0 } else { IP_HEADER.1 };
    let length = usize::try_from(size.saturating_sub(header)).unwrap_or(0).max(ICMP_HEADER);
    let id = u16::try_from(std::process::id() & 0xffff).unwrap_or_default();
    for sequence in 1..=ATTEMPTS {
        let request = request(v4, id, sequence, length);
        let began = Instant::now();
        socket.send(&request)?;
        if answered(&socket, v4, &request, began)? {
            return Ok(began.elapsed());
        }
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer to {ATTEMPTS} packets of {size} bytes")))
}

/// Reads until the answer comes or the time is over.
fn answered(socket: &Socket, v4: bool, request: &[u8], began: Instant) -> io::Result<bool> {
    let mut buffer = vec![0; 65_536];
    let mut reader = socket;
    loop {
        let Some(left) = WAIT.checked_sub(began.elapsed()).filter(|left| !left.is_zero()) else {
            return Ok(false);
        };
        socket.set_read_timeout(Some(left))?;
        match reader.read(&mut buffer) {
            Ok(count) => {
                let packet = buffer.get(..count).unwrap_or_default();
                let message = if v4 { after_ip_header(packet) } else { packet };
                if is_reply(v4, message, request) {
                    return Ok(true);
                }
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                return Ok(false);
            }
            Err(error) => return Err(error),
        }
    }
}

/// A message of `length` bytes with its checksum; of `ICMPv6` the kernel adds it.
pub(crate) fn request(v4: bool, id: u16, sequence: u16, length: usize) -> Vec<u8> {
    let kind = if v4 { 8 } else { 128 };
    let mut message = vec![kind, 0, 0, 0];
    message.extend(id.to_be_bytes());
    message.extend(sequence.to_be_bytes());
    // Every byte differs from its neighbours, so that a cut or shifted answer is noticed.
    message.extend((0..=u8::MAX).cycle().take(length.saturating_sub(message.len())));
    if v4 {
        let sum = checksum(&message).to_be_bytes();
        if let Some(place) = message.get_mut(2..4) {
            place.copy_from_slice(&sum);
        }
    }
    message
}

/// The same message, as a reply: type and checksum differ.
pub(crate) fn is_reply(v4: bool, message: &[u8], request: &[u8]) -> bool {
    let kind = if v4 { 0 } else { 129 };
    message.first() == Some(&kind) && message.get(4..) == request.get(4..)
}

/// Raw IPv4 sockets deliver the header too.
pub(crate) fn after_ip_header(packet: &[u8]) -> &[u8] {
    let length = packet.first().map_or(0, |first| usize::from(first & 0x0f) * 4);
    packet.get(length..).unwrap_or_default()
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| match pair {
        [high, low] => u32::from(u16::from_be_bytes([*high, *low])),
        [high] => u32::from(u16::from_be_bytes([*high, 0])),
        _ => 0,
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_answers_full_size() {
        for address in ["127.0.0.1", "::1"] {
            let address = address.parse().unwrap();
            echo(Some(address), address, 1430).unwrap();
        }
    }

    #[test]
    fn a_request_verifies_and_only_its_reply_matches() {
        let request = request(true, 7, 1, 100);
        assert_eq!((request.len(), checksum(&request)), (100, 0));
        let mut reply = request.clone();
        reply[0] = 0;
        assert!(is_reply(true, &reply, &request));
        assert!(!is_reply(true, &reply[..99], &request));
        assert!(!is_reply(true, &request, &request), "our own request, seen on loopback");
    }
}
