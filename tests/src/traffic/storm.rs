//! A storm of forged VXLAN packets: random inner sources and VNIs, those that exist and others, as fast as they go out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use anyhow::{Context, Result};
use clap::Args;
use datapath::Address;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use super::inject::vxlan;
use super::udp::SendReport;
use crate::prog_test::frames;

/// Storm.
#[derive(Debug, Args)]
pub struct Storm {
    /// The tunnel endpoint.
    #[arg(long)]
    to: SocketAddr,
    /// Inner destinations, of both families.
    #[arg(long, required = true)]
    destination: Vec<IpAddr>,
    /// Inner sources to claim, beside random ones.
    #[arg(long)]
    source: Vec<IpAddr>,
    /// VNIs to claim, beside random ones.
    #[arg(long)]
    vni: Vec<u32>,
    /// How many packets.
    #[arg(long)]
    count: u64,
    /// Where the random numbers start.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl Storm {
    pub(super) fn run(&self) -> Result<()> {
        let any = if self.to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any)?;
        let (mut random, mut report) = (StdRng::seed_from_u64(self.seed), SendReport::default());
        while report.sent < self.count {
            let packet = self.packet(&mut random)?;
            match socket.send_to(&packet, self.to) {
                Ok(_) => report.sent += 1,
                Err(error) => *report.errors.entry(error.to_string()).or_default() += 1,
            }
        }
        println!("{}", serde_json::to_string(&report)?);
        Ok(())
    }

    fn packet(&self, random: &mut StdRng) -> Result<Vec<u8>> {
        let to = *self.destination.choose(random).context("no destination")?;
        let known: Vec<_> = self.source.iter().filter(|source| source.is_ipv4() == to.is_ipv4()).collect();
        let source = match known.choose(random) {
            Some(source) if random.random_bool(0.8) => **source,
            _ if to.is_ipv4() => Ipv4Addr::from(random.random::<u32>()).into(),
            _ => Ipv6Addr::from(random.random::<u128>()).into(),
        };
        let vni = match self.vni.choose(random) {
            Some(vni) if random.random_bool(0.8) => *vni,
            _ => random.random_range(0..1 << 24),
        };
        let (source, to) = (Address::from(source), Address::from(to));
        let ports = (random.random_range(1024..u16::MAX), *[9000, 9001].choose(random).unwrap_or(&9000));
        let (protocol, payload) = if random.random_bool(0.5) {
            (17, frames::udp(ports.0, ports.1))
        } else {
            (6, frames::tcp(ports.0, ports.1, *[2, 0x10, 0x12].choose(random).unwrap_or(&2)))
        };
        let packet = if to.is_v4() {
            frames::ipv4(source, to, protocol, [0; 4], &payload)
        } else {
            frames::ipv6(source, to, protocol, &payload)
        };
        vxlan(8, vni, &frames::ethernet(&packet))
    }
}
