//! ICMP echo, both families.

use std::io::{ErrorKind, Read};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use etherparse::{IcmpEchoHeader, Icmpv4Header, Icmpv4Type, Icmpv6Type};
use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};

/// Echo requests.
#[derive(Debug, Args)]
pub struct Ping {
    /// The address.
    to: IpAddr,
    /// How many.
    #[arg(long, default_value_t = 3)]
    count: u16,
    /// Bytes after the ICMP header.
    #[arg(long, default_value_t = 56)]
    size: usize,
    /// How long to wait for each reply.
    #[arg(long, default_value_t = 500)]
    timeout_ms: u64,
}

/// How it went.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PingReport {
    /// Requests sent.
    pub sent: u32,
    /// Replies with the same payload.
    pub received: u32,
    /// Errors of the kernel.
    pub errors: Vec<String>,
}

impl Ping {
    pub(super) fn run(&self) -> Result<()> {
        let (domain, protocol) = match self.to {
            IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
            IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
        };
        let socket = Socket::new(domain, Type::RAW, Some(protocol)).context("a raw socket needs root")?;
        socket.set_read_timeout(Some(Duration::from_millis(20)))?;
        socket.connect(&SocketAddr::new(self.to, 0).into())?;
        let id = u16::try_from(std::process::id() & 0xffff)?;
        let payload: Vec<u8> = (0..=u8::MAX).cycle().take(self.size).collect();
        let mut report = PingReport::default();
        for sequence in 1..=self.count {
            let request = self.request(IcmpEchoHeader { id, seq: sequence }, &payload)?;
            match socket.send(&request) {
                Ok(_) => report.sent += 1,
                Err(error) => report.errors.push(error.to_string()),
            }
            if self.replied(&socket, id, sequence, &payload) {
                report.received += 1;
            }
        }
        println!("{}", serde_json::to_string(&report)?);
        Ok(())
    }

    fn request(&self, echo: IcmpEchoHeader, payload: &[u8]) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        match self.to {
            IpAddr::V4(_) => {
                Icmpv4Header::with_checksum(Icmpv4Type::EchoRequest(echo), payload).write(&mut bytes)?;
            }
            // The kernel fills the checksum in.
            IpAddr::V6(_) => {
                etherparse::Icmpv6Header::new(Icmpv6Type::EchoRequest(echo)).write(&mut bytes)?;
            }
        }
        bytes.extend_from_slice(payload);
        Ok(bytes)
    }

    fn replied(&self, mut socket: &Socket, id: u16, sequence: u16, payload: &[u8]) -> bool {
        let reply_type = match self.to {
            IpAddr::V4(_) => 0,
            IpAddr::V6(_) => 129,
        };
        let mut buffer = vec![0; 1 << 16];
        let until = Instant::now() + Duration::from_millis(self.timeout_ms);
        while Instant::now() < until {
            let length = match socket.read(&mut buffer) {
                Ok(length) => length,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
                // An ICMP error; the loop goes on until the time is over.
                Err(_) => continue,
            };
            let packet = buffer.get(..length).unwrap_or_default();
            // A raw IPv4 socket delivers the IP header too.
            let skip = match self.to {
                IpAddr::V4(_) => usize::from(packet.first().copied().unwrap_or_default() & 0x0f) * 4,
                IpAddr::V6(_) => 0,
            };
            let Some((header, rest)) = packet.get(skip..).and_then(|icmp| icmp.split_first_chunk::<8>())
            else {
                continue;
            };
            let [kind, _, _, _, id_high, id_low, sequence_high, sequence_low] = *header;
            let same = u16::from_be_bytes([id_high, id_low]) == id
                && u16::from_be_bytes([sequence_high, sequence_low]) == sequence;
            if kind == reply_type && same && rest == payload {
                return true;
            }
        }
        false
    }
}
