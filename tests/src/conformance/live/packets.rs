//! The packets: TCP and UDP by sockets, SCTP and ICMP as crafted packets. Each flow has a number of its own, so that what
//! arrives tells which it was.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use socket2::{Domain, Protocol, Socket, Type};

use crate::conformance::table::Probe;
use crate::namespace::Namespace;

/// Numbers of flows are their source ports too.
const NUMBERS: std::ops::Range<u16> = 10_000..60_000;
const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: i32 = 132;

/// A flow to open.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flow {
    pub(super) probe: Probe,
    from: IpAddr,
    to: IpAddr,
    number: u16,
}

/// What arrived: from whom, by which protocol, under which number.
type Arrival = (IpAddr, u8, u16);

/// What all receivers share.
#[derive(Debug, Default)]
pub(super) struct Ground {
    arrived: Arc<Mutex<BTreeSet<Arrival>>>,
    last: u16,
}

impl Ground {
    /// A flow with a number that is new in its round.
    pub(super) fn flow(&mut self, probe: Probe, from: IpAddr, to: IpAddr) -> Flow {
        let next = self.last.saturating_add(1);
        self.last = if NUMBERS.contains(&next) { next } else { NUMBERS.start };
        let flow = Flow { probe, from, to, number: self.last };
        self.lock(|arrived| arrived.remove(&flow.arrival()));
        flow
    }

    /// Whether it got through.
    pub(super) fn arrived(&self, flow: &Flow) -> bool {
        self.lock(|arrived| arrived.contains(&flow.arrival()))
    }

    fn lock<T>(&self, work: impl FnOnce(&mut BTreeSet<Arrival>) -> T) -> T {
        work(&mut self.arrived.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Receives whatever comes to a machine. The threads end with the process.
    pub(super) fn serve(&self, namespace: &Namespace, ports: &BTreeSet<u16>) -> Result<()> {
        for port in ports.iter().copied() {
            let listener = namespace.inside(|| Ok(TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))?))?;
            let socket = namespace.inside(|| Ok(UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port))?))?;
            let (of_tcp, of_udp) = (Arc::clone(&self.arrived), Arc::clone(&self.arrived));
            thread::spawn(move || {
                while let Ok((_connection, peer)) = listener.accept() {
                    note(&of_tcp, peer, TCP, peer.port());
                }
            });
            thread::spawn(move || {
                let mut buffer = [0; 64];
                while let Ok((_length, peer)) = socket.recv_from(&mut buffer) {
                    note(&of_udp, peer, UDP, peer.port());
                }
            });
        }
        for (domain, protocol) in [
            (Domain::IPV4, Protocol::from(SCTP)),
            (Domain::IPV6, Protocol::from(SCTP)),
            (Domain::IPV4, Protocol::ICMPV4),
            (Domain::IPV6, Protocol::ICMPV6),
        ] {
            let socket = namespace.inside(|| Ok(Socket::new(domain, Type::RAW, Some(protocol))?))?;
            let arrived = Arc::clone(&self.arrived);
            thread::spawn(move || raw(socket, domain == Domain::IPV4, protocol, &arrived));
        }
        Ok(())
    }
}

impl Flow {
    fn arrival(&self) -> Arrival {
        (self.from, self.probe.kind.protocol, self.number)
    }
}

fn note(arrived: &Mutex<BTreeSet<Arrival>>, peer: SocketAddr, protocol: u8, number: u16) {
    let arrival = (peer.ip().to_canonical(), protocol, number);
    arrived.lock().unwrap_or_else(PoisonError::into_inner).insert(arrival);
}

/// The number is the source port of SCTP, and what stands after the first word of ICMP.
fn raw(mut socket: Socket, is_v4: bool, protocol: Protocol, arrived: &Mutex<BTreeSet<Arrival>>) {
    let is_sctp = protocol == Protocol::from(SCTP);
    let mut buffer = [0; 256];
    loop {
        // A raw socket of IPv4 gives the header too, where the source is read; one of IPv6 tells the source itself.
        let (length, source) = if is_v4 {
            let Ok(length) = socket.read(&mut buffer) else { return };
            let bytes = buffer.get(12..16).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
            (length, bytes.map(IpAddr::from))
        } else {
            match receive(&socket, &mut buffer) {
                Ok((length, source)) => (length, source),
                Err(_closed) => return,
            }
        };
        let skip = if is_v4 { usize::from(buffer[0] & 0x0f) * 4 } else { 0 };
        let Some(packet) = buffer.get(skip..length) else { continue };
        let at = if is_sctp { 0..2 } else { 4..6 };
        let number = packet.get(at).and_then(|bytes| <[u8; 2]>::try_from(bytes).ok()).map(u16::from_be_bytes);
        // A reply to an echo has its number too.
        let is_reply = !is_sctp && matches!(packet.first(), Some(0 | 129));
        if let (Some(source), Some(number), false) = (source, number, is_reply) {
            let protocol = if is_sctp {
                132
            } else if is_v4 {
                1
            } else {
                58
            };
            note(arrived, SocketAddr::new(source, 0), protocol, number);
        }
    }
}

fn receive(socket: &Socket, buffer: &mut [u8]) -> std::io::Result<(usize, Option<IpAddr>)> {
    let udp: UdpSocket = socket.try_clone()?.into();
    udp.recv_from(buffer).map(|(length, source)| (length, Some(source.ip())))
}

/// Sends what opens the flows; the sockets are to be kept until it is known what came of them.
pub(super) fn open(flows: &[&Flow]) -> Result<Vec<Socket>> {
    flows.iter().map(|flow| flow.open().with_context(|| flow.probe.to_string())).collect()
}

impl Flow {
    fn open(&self) -> Result<Socket> {
        let domain = if self.to.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
        let (kind, port) = (self.probe.kind, self.probe.kind.port);
        let source = SocketAddr::new(self.from, self.number);
        let to = SocketAddr::new(self.to, port);
        let socket = match kind.protocol {
            TCP => Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?,
            UDP => Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?,
            other => Socket::new(domain, Type::RAW, Some(Protocol::from(i32::from(other))))?,
        };
        // What a policy on the way out refuses may be an error here, and is judged by what arrives.
        let _refused = match kind.protocol {
            TCP => {
                socket.set_reuse_address(true)?;
                socket.set_linger(Some(Duration::ZERO))?;
                socket.set_nonblocking(true)?;
                socket.bind(&source.into())?;
                socket.connect(&to.into())
            }
            UDP => {
                socket.bind(&source.into())?;
                socket.send_to(b"conformance", &to.into()).map(drop)
            }
            132 => {
                socket.bind(&SocketAddr::new(self.from, 0).into())?;
                socket.send_to(&self.init(), &SocketAddr::new(self.to, 0).into()).map(drop)
            }
            _ => {
                socket.bind(&SocketAddr::new(self.from, 0).into())?;
                socket.send_to(&self.message(), &SocketAddr::new(self.to, 0).into()).map(drop)
            }
        };
        Ok(socket)
    }

    /// The INIT of an association. Nobody on the way looks at the checksum.
    fn init(&self) -> Vec<u8> {
        let mut bytes = self.number.to_be_bytes().to_vec();
        bytes.extend(self.probe.kind.port.to_be_bytes());
        bytes.extend([0; 8]);
        bytes.extend([1, 0, 0, 20]);
        bytes.extend(1_u32.to_be_bytes());
        bytes.extend(0x0001_0000_u32.to_be_bytes());
        bytes.extend([0, 1, 0, 1]);
        bytes.extend(1_u32.to_be_bytes());
        bytes
    }

    /// An ICMP message. The kernel fills in the checksum of `ICMPv6`.
    fn message(&self) -> Vec<u8> {
        let kind = u8::try_from(self.probe.kind.port).unwrap_or(u8::MAX);
        let [high, low] = self.number.to_be_bytes();
        let mut bytes = vec![kind, 0, 0, 0, high, low, 0, 1];
        bytes.extend([0; 16]);
        if self.to.is_ipv4() {
            let sum: u32 = bytes
                .chunks(2)
                .map(|pair| pair.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte)))
                .sum();
            let folded = (sum & 0xffff) + (sum >> 16);
            let [_, _, high, low] = (!folded).to_be_bytes();
            bytes.splice(2..4, [high, low]);
        }
        bytes
    }
}
