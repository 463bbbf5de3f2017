//! Watching packets as a device sees them.

use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::thread;

use anyhow::{Context, Result};
use clap::Args;
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use nix::errno::Errno;
use nix::sys::socket::sockopt::{RcvBuf, ReceiveTimeout};
use nix::sys::socket::{
    AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, setsockopt, socket,
};
use nix::sys::time::{TimeVal, TimeValLike};
use serde::{Deserialize, Serialize};

use super::{Shared, Stop, report_until};

/// Samples a report carries at most.
const SAMPLES: usize = 20;

/// Watcher.
#[derive(Debug, Args)]
pub struct Sniff {
    /// Only this device.
    #[arg(long)]
    device: Option<String>,
    /// Only packets from or to this address, in the outermost IP header.
    #[arg(long)]
    address: Vec<IpAddr>,
    /// Only packets with this UDP or TCP destination port.
    #[arg(long)]
    port: Option<u16>,
}

/// What a watcher saw.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SniffReport {
    /// Whether it watches.
    pub listening: bool,
    /// Packets that match.
    pub packets: u64,
    /// The largest IP packet of them.
    pub largest: u64,
    /// The first of them, for messages.
    pub samples: Vec<String>,
}

impl Sniff {
    pub(super) fn run(&self) -> Result<()> {
        let fd = socket(AddressFamily::Packet, SockType::Raw, SockFlag::empty(), SockProtocol::EthAll)
            .context("a packet socket needs root")?;
        setsockopt(&fd, ReceiveTimeout, &TimeVal::milliseconds(20))?;
        setsockopt(&fd, RcvBuf, &(4 << 20))?;
        let device = self.device.as_deref().map(nix::net::if_::if_nametoindex).transpose()?;
        let (addresses, port) = (self.address.clone(), self.port);
        let report = Shared::new(SniffReport { listening: true, ..SniffReport::default() });
        let stop = Stop::on_input_closed();
        let (shared, until) = (report.clone(), stop.clone());
        let work = thread::spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            loop {
                let (length, link) = match recvfrom::<LinkAddr>(fd.as_raw_fd(), &mut buffer) {
                    Ok(received) => received,
                    Err(Errno::EAGAIN | Errno::EINTR) if until.is_set() => return Ok(()),
                    Err(Errno::EAGAIN | Errno::EINTR) => continue,
                    Err(error) => return Err(error.into()),
                };
                let index = link.map(|link| link.ifindex()).unwrap_or_default();
                if device.is_some_and(|device| usize::try_from(device).ok() != Some(index)) {
                    continue;
                }
                if let Some((line, bytes)) =
                    matching(buffer.get(..length).unwrap_or_default(), &addresses, port)
                {
                    shared.update(|report| report.note(line, bytes));
                }
            }
        });
        report_until(&report, &stop, work)
    }
}

impl SniffReport {
    fn note(&mut self, line: String, bytes: u64) {
        self.packets += 1;
        self.largest = self.largest.max(bytes);
        if self.samples.len() < SAMPLES {
            self.samples.push(line);
        }
    }
}

/// A line about the frame and the length of its IP packet, if it matches.
fn matching(frame: &[u8], addresses: &[IpAddr], port: Option<u16>) -> Option<(String, u64)> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let (source, destination): (IpAddr, IpAddr) = match packet.net.as_ref()? {
        NetSlice::Ipv4(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
        NetSlice::Ipv6(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
        NetSlice::Arp(_) => return None,
    };
    if !addresses.is_empty() && !addresses.contains(&source) && !addresses.contains(&destination) {
        return None;
    }
    let (name, to) = match packet.transport {
        Some(TransportSlice::Udp(udp)) => ("udp", Some(udp.destination_port())),
        Some(TransportSlice::Tcp(tcp)) => ("tcp", Some(tcp.destination_port())),
        Some(TransportSlice::Icmpv4(_) | TransportSlice::Icmpv6(_)) => ("icmp", None),
        Some(TransportSlice::Igmp(_)) | None => ("other", None),
    };
    if port.is_some() && port != to {
        return None;
    }
    let to = to.map(|to| format!(" port {to}")).unwrap_or_default();
    let bytes = frame.len().saturating_sub(14);
    Some((format!("{source} > {destination} {name}{to} {bytes} bytes"), u64::try_from(bytes).ok()?))
}
