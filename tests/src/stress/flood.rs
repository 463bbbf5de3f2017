//! Floods of new flows toward the hosts: some that nobody answers, more than the table of unconfirmed flows holds, and some
//! that are answered, which fill the table that the live flows are in.

use std::collections::VecDeque;
use std::fs::File;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::probe::inside;
use super::trouble::{Counts, Log, wait};
use crate::namespace::Namespace;

/// Pause before each burst.
const PAUSE: Duration = Duration::from_secs(4);
/// Sockets that are open at a time.
const SOCKETS: usize = 64;
/// Datagrams of a burst, each a flow of its own, and how many of them come a millisecond.
const BURST: u32 = 20_000;
const PER_MS: u32 = 8;
/// Ports that answer.
const ANSWERING: Range<u16> = 15_000..15_016;

/// A flood from one machine.
#[derive(Debug)]
pub struct Flood<'a> {
    /// The machine.
    pub from: &'a Namespace,
    /// Where to.
    pub hosts: Vec<IpAddr>,
    /// What is random.
    pub seed: u64,
    /// What is counted, and noted.
    pub counts: &'a Counts,
    /// When what was done.
    pub log: &'a Log,
}

/// Lets a machine answer what the flood asks. Ends with the process.
pub fn answer(namespace: &Namespace) -> Result<()> {
    for port in ANSWERING {
        let socket = inside(namespace, move || Ok(UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port))?))?;
        thread::spawn(move || {
            let mut buffer = [0; 64];
            loop {
                // Errors are ICMP errors about answers: who asked is gone.
                let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
                let _gone = socket.send_to(buffer.get(..length).unwrap_or_default(), from);
            }
        });
    }
    Ok(())
}

impl Flood<'_> {
    /// Bursts of both kinds in turn, until `stop`. Takes the thread into the machine's namespace.
    pub fn run(&self, stop: &AtomicBool) -> Result<()> {
        let namespace = File::open(format!("/proc/{}/ns/net", self.from.holder()))?;
        setns(namespace, CloneFlags::CLONE_NEWNET).context("cannot enter the namespace")?;
        let mut random = StdRng::seed_from_u64(self.seed);
        let mut sockets =
            (0..SOCKETS).map(|_| Ok(UdpSocket::bind("0.0.0.0:0")?)).collect::<Result<VecDeque<_>>>()?;
        let mut answered = false;
        while wait(PAUSE, stop) {
            if self.counts.peace.load(Ordering::Relaxed) {
                continue;
            }
            self.log.note(if answered { "flood, answered" } else { "flood" });
            let mut due = Instant::now();
            for number in 0..BURST {
                if stop.load(Ordering::Relaxed) {
                    return Ok(());
                }
                if number % PER_MS == 0 {
                    due += Duration::from_millis(1);
                    thread::sleep(due.saturating_duration_since(Instant::now()));
                }
                if answered {
                    self.ask(&mut sockets, number)?;
                } else {
                    self.send(&sockets, &mut random);
                }
            }
            self.log.note("the flood is over");
            answered = !answered;
        }
        Ok(())
    }

    /// A datagram to any port: nobody answers.
    fn send(&self, sockets: &VecDeque<UdpSocket>, random: &mut StdRng) {
        let host = self.hosts.get(random.random_range(0..self.hosts.len().max(1)));
        let socket = sockets.get(random.random_range(0..SOCKETS));
        count(socket, host, random.random_range(20_000..60_000), &self.counts.flood);
    }

    /// A datagram to the next port that answers, all to the first host, from a new socket for each round of them.
    fn ask(&self, sockets: &mut VecDeque<UdpSocket>, number: u32) -> Result<()> {
        let step = u16::try_from(number % u32::try_from(ANSWERING.len())?)?;
        if step == 0 {
            sockets.push_back(UdpSocket::bind("0.0.0.0:0")?);
            sockets.drain(..sockets.len().saturating_sub(SOCKETS));
        }
        count(sockets.back(), self.hosts.first(), ANSWERING.start + step, &self.counts.answered);
        Ok(())
    }
}

fn count(socket: Option<&UdpSocket>, host: Option<&IpAddr>, port: u16, counter: &AtomicU64) {
    if let Some((socket, host)) = socket.zip(host)
        && socket.send_to(b"flood", SocketAddr::new(*host, port)).is_ok()
    {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}
