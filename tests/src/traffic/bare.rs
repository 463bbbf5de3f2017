//! Crafted Ethernet frames on a device: datagrams behind any tags.

use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use etherparse::PacketBuilder;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, sendto, socket};

use super::between;
use super::inject::{Hexadecimal, hexadecimal};
use super::udp::{SMALLEST, SendReport, datagram};

/// Sender.
#[derive(Debug, Args)]
pub struct Bare {
    /// The device.
    #[arg(long, default_value = "eth0")]
    device: String,
    /// The card it is for, as six pairs of digits.
    #[arg(long)]
    to_card: String,
    /// Source.
    #[arg(long)]
    source: IpAddr,
    /// Destination.
    #[arg(long)]
    destination: IpAddr,
    /// Destination port.
    #[arg(long, default_value_t = 9000)]
    port: u16,
    /// The number of the flow.
    #[arg(long, default_value_t = 1)]
    flow: u32,
    /// How many.
    #[arg(long, default_value_t = 100)]
    count: u64,
    /// A tag before the packet, as type and control in hexadecimal (`8100:0005`); the outermost first.
    #[arg(long, value_parser = tag)]
    tag: Vec<[u8; 4]>,
    /// This IP packet, in hexadecimal, instead of a datagram.
    #[arg(long, value_parser = hexadecimal)]
    packet: Option<Hexadecimal>,
}

/// Reads a tag.
pub(super) fn tag(text: &str) -> Result<[u8; 4]> {
    let (kind, control) = text.split_once(':').context("no colon")?;
    let ([a, b], [c, d]) =
        (u16::from_str_radix(kind, 16)?.to_be_bytes(), u16::from_str_radix(control, 16)?.to_be_bytes());
    Ok([a, b, c, d])
}

impl Bare {
    pub(super) fn run(&self) -> Result<()> {
        let fd = socket(AddressFamily::Packet, SockType::Raw, SockFlag::empty(), None)
            .context("a packet socket needs root")?;
        let mut addresses = nix::ifaddrs::getifaddrs()?.filter(|found| found.interface_name == self.device);
        let device = addresses.find_map(|found| found.address?.as_link_addr().copied());
        let device = device.with_context(|| format!("no device {}", self.device))?;
        let mut report = SendReport::default();
        for number in 0..self.count {
            match sendto(fd.as_raw_fd(), &self.frame(number)?, &device, MsgFlags::empty()) {
                Ok(_) => report.sent += 1,
                Err(error) => *report.errors.entry(error.to_string()).or_default() += 1,
            }
            thread::sleep(Duration::from_micros(500));
        }
        println!("{}", serde_json::to_string(&report)?);
        Ok(())
    }

    fn frame(&self, number: u64) -> Result<Vec<u8>> {
        let card: Vec<u8> =
            self.to_card.split(':').map(|pair| u8::from_str_radix(pair, 16)).collect::<Result<_, _>>()?;
        let card = <[u8; 6]>::try_from(card).ok().context("a card's address has six bytes")?;
        if let Some(Hexadecimal(packet)) = &self.packet {
            let mut frame = crate::prog_test::frames::ethernet(packet);
            frame.splice(0..6, card);
            return Ok(frame);
        }
        let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 3], card);
        let ip = between(ethernet, self.source, self.destination)?;
        let mut frame = Vec::new();
        ip.udp(40_000, self.port).write(&mut frame, &datagram(self.flow, number, SMALLEST))?;
        // Behind the two addresses.
        frame.splice(12..12, self.tag.concat());
        Ok(frame)
    }
}
