//! A bad line between an agent and the gateway: connections are cut after a while, and what they carry is held up.
//! It listens on the agent's own machine and connects from there, so the gateway sees the host's address.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::probe::inside;
use crate::namespace::Namespace;

/// Where it listens.
pub const LISTEN: &str = "127.0.0.1:17443";

/// How bad the line is.
#[derive(Clone, Debug, Default)]
pub struct Line {
    /// Whether it is bad at all.
    pub bad: Arc<AtomicBool>,
    /// Connections cut.
    pub cuts: Arc<AtomicU64>,
}

/// Starts one on a machine. Ends with the process.
pub fn start(namespace: &Namespace, gateway: SocketAddr, line: &Line, seed: u64) -> Result<()> {
    let listener = inside(namespace, || Ok(TcpListener::bind(LISTEN)?))?;
    let file = File::open(format!("/proc/{}/ns/net", namespace.holder()))?;
    let line = line.clone();
    thread::spawn(move || -> Result<()> {
        setns(file, CloneFlags::CLONE_NEWNET).context("cannot enter the namespace")?;
        let mut random = StdRng::seed_from_u64(seed);
        for agent in listener.incoming().flatten() {
            let Ok(up) = TcpStream::connect_timeout(&gateway, Duration::from_secs(2)) else {
                let _ = agent.shutdown(Shutdown::Both);
                continue;
            };
            let lasting = Duration::from_millis(random.random_range(300..4000));
            let both = [random.random(), random.random()];
            line.carry(&agent, &up, Instant::now() + lasting, both)?;
        }
        Ok(())
    });
    Ok(())
}

impl Line {
    fn carry(&self, agent: &TcpStream, gateway: &TcpStream, until: Instant, seeds: [u64; 2]) -> Result<()> {
        let [up, down] = seeds;
        for (from, to, seed) in [(agent, gateway, up), (gateway, agent, down)] {
            from.set_read_timeout(Some(Duration::from_millis(50)))?;
            to.set_nodelay(true)?;
            let (from, to, line) = (from.try_clone()?, to.try_clone()?, self.clone());
            thread::spawn(move || line.copy(from, to, until, StdRng::seed_from_u64(seed)));
        }
        Ok(())
    }

    fn copy(&self, mut from: TcpStream, mut to: TcpStream, until: Instant, mut random: StdRng) {
        let mut buffer = vec![0; 1 << 16];
        loop {
            let bad = self.bad.load(Ordering::Relaxed);
            if bad && Instant::now() > until {
                self.cuts.fetch_add(1, Ordering::Relaxed);
                break;
            }
            let length = match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => length,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
                Err(_) => break,
            };
            if bad {
                let longest = if random.random_bool(0.05) { 300 } else { 20 };
                thread::sleep(Duration::from_millis(random.random_range(0..longest)));
            }
            if to.write_all(buffer.get(..length).unwrap_or_default()).is_err() {
                break;
            }
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }
}
