//! Forged VXLAN packets: any VNI, any flags, any inner packet and, from a raw socket, any outer source; and storms of
//! random ones.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use etherparse::PacketBuilder;
use socket2::{Domain, Protocol, Socket, Type};

use super::between;
use super::udp::{SMALLEST, SendReport, datagram};

/// Forger.
#[derive(Debug, Args)]
pub struct Vxlan {
    /// The tunnel endpoint.
    #[arg(long)]
    to: SocketAddr,
    /// The VNI.
    #[arg(long)]
    vni: u32,
    /// Inner source.
    #[arg(long)]
    source: IpAddr,
    /// Inner destination.
    #[arg(long)]
    destination: IpAddr,
    /// Inner destination port.
    #[arg(long, default_value_t = 9000)]
    port: u16,
    /// Inner source port.
    #[arg(long, default_value_t = 40000)]
    source_port: u16,
    /// What is inside.
    #[arg(long, value_enum, default_value = "udp")]
    inner: Inner,
    /// The number of the flow, in a UDP payload.
    #[arg(long, default_value_t = 1)]
    flow: u32,
    /// How many.
    #[arg(long, default_value_t = 100)]
    count: u64,
    /// Packets a second.
    #[arg(long, default_value_t = 2000)]
    rate: u32,
    /// Another outer source than this machine's.
    #[arg(long)]
    outer_source: Option<IpAddr>,
    /// The flags of the VXLAN header; 8 says that there is a VNI.
    #[arg(long, default_value_t = 8)]
    flags: u8,
    /// This inner IP packet, in hexadecimal, instead of a built one.
    #[arg(long, value_parser = hexadecimal)]
    packet: Option<Hexadecimal>,
    /// A tag before the packet, as type and control in hexadecimal (`8100:0005`); the outermost first.
    #[arg(long, value_parser = super::bare::tag)]
    tag: Vec<[u8; 4]>,
}

/// Bytes, as an argument.
#[derive(Clone, Debug)]
pub struct Hexadecimal(pub(super) Vec<u8>);

pub(super) fn hexadecimal(text: &str) -> Result<Hexadecimal> {
    Ok(Hexadecimal(hex::decode(text)?))
}

/// What a forged packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Inner {
    /// A numbered datagram.
    Udp,
    /// A TCP SYN.
    Syn,
    /// A TCP segment of no connection.
    Ack,
    /// An ICMP echo request.
    Echo,
    /// A datagram without a byte.
    Empty,
}

impl Vxlan {
    pub(super) fn run(&self) -> Result<()> {
        let outlet = self.outlet()?;
        let mut report = SendReport::default();
        for number in 0..self.count {
            let payload = vxlan(self.flags, self.vni, &self.frame(number)?)?;
            match outlet.send(self.to, &payload) {
                Ok(()) => report.sent += 1,
                Err(error) => *report.errors.entry(error.to_string()).or_default() += 1,
            }
            thread::sleep(Duration::from_secs(1) / self.rate.max(1));
        }
        println!("{}", serde_json::to_string(&report)?);
        Ok(())
    }

    fn outlet(&self) -> Result<Outlet> {
        let Some(source) = self.outer_source else {
            let any = if self.to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            return Ok(Outlet::Own(UdpSocket::bind(any)?));
        };
        let domain = if self.to.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
        let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW)))?;
        if self.to.is_ipv4() {
            socket.set_header_included_v4(true)?;
        } else {
            socket.set_header_included_v6(true)?;
        }
        Ok(Outlet::Forged(socket, source))
    }

    /// The inner Ethernet frame.
    fn frame(&self, number: u64) -> Result<Vec<u8>> {
        if let Some(Hexadecimal(packet)) = &self.packet {
            return Ok(crate::prog_test::frames::ethernet(packet));
        }
        let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        let ip = between(ethernet, self.source, self.destination)?;
        let mut frame = Vec::new();
        let sequence = u16::try_from(number & 0xffff)?;
        match self.inner {
            Inner::Udp => ip
                .udp(self.source_port, self.port)
                .write(&mut frame, &datagram(self.flow, number, SMALLEST))?,
            Inner::Syn => {
                ip.tcp(self.source_port.wrapping_add(sequence), self.port, 1, 64240)
                    .syn()
                    .write(&mut frame, &[])?;
            }
            Inner::Ack => ip.tcp(self.source_port, self.port, 1, 64240).ack(1).write(&mut frame, b"data")?,
            Inner::Echo if self.source.is_ipv4() => {
                ip.icmpv4_echo_request(1, sequence).write(&mut frame, b"forged")?;
            }
            Inner::Echo => ip.icmpv6_echo_request(1, sequence).write(&mut frame, b"forged")?,
            Inner::Empty => ip.udp(self.source_port, self.port).write(&mut frame, &[])?,
        }
        // Behind the two addresses.
        frame.splice(12..12, self.tag.concat());
        Ok(frame)
    }
}

/// The VXLAN header and the frame behind it.
pub(super) fn vxlan(flags: u8, vni: u32, frame: &[u8]) -> Result<Vec<u8>> {
    let mut packet = vec![flags, 0, 0, 0];
    let shifted = vni.checked_mul(256).context("the VNI has more than 24 bits")?;
    packet.extend(shifted.to_be_bytes());
    packet.extend_from_slice(frame);
    Ok(packet)
}

enum Outlet {
    /// A UDP socket of this machine.
    Own(UdpSocket),
    /// A raw socket, with the source to claim.
    Forged(Socket, IpAddr),
}

impl Outlet {
    fn send(&self, to: SocketAddr, payload: &[u8]) -> Result<()> {
        match self {
            Self::Own(socket) => {
                socket.send_to(payload, to)?;
            }
            Self::Forged(socket, source) => {
                let mut packet = Vec::new();
                match (source, to.ip()) {
                    (IpAddr::V4(source), IpAddr::V4(ip)) => {
                        PacketBuilder::ipv4(source.octets(), ip.octets(), 64)
                            .udp(50000, to.port())
                            .write(&mut packet, payload)?;
                    }
                    (IpAddr::V6(source), IpAddr::V6(ip)) => {
                        PacketBuilder::ipv6(source.octets(), ip.octets(), 64)
                            .udp(50000, to.port())
                            .write(&mut packet, payload)?;
                    }
                    (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
                        bail!("outer source and destination are of different families")
                    }
                }
                // A raw socket takes no port with the destination.
                socket.send_to(&packet, &SocketAddr::new(to.ip(), 0).into())?;
            }
        }
        Ok(())
    }
}
