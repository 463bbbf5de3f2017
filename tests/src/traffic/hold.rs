//! Connections that are opened and kept, with a few bytes or none.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use serde::{Deserialize, Serialize};

use super::{Shared, Stop, report_until};

/// How long one connection may take to open.
const OPENING: Duration = Duration::from_secs(1);
/// Connections opened beside each other.
const BESIDE: usize = 16;

/// Holder.
#[derive(Debug, Args)]
pub struct Hold {
    /// Whom to connect to.
    #[arg(long)]
    to: SocketAddr,
    /// How many connections.
    #[arg(long, default_value_t = 100)]
    count: usize,
    /// What is said on each, in hexadecimal.
    #[arg(long, default_value = "")]
    say: String,
}

/// What a holder has.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct HoldReport {
    /// Connections that were opened.
    pub opened: u64,
    /// Connections that were not.
    pub refused: u64,
    /// Of the opened ones, those that the other end closed.
    pub closed: u64,
    /// Whether all were tried.
    pub done: bool,
}

impl Hold {
    pub(super) fn run(&self) -> Result<()> {
        let say = hex::decode(&self.say)?;
        let report = Shared::new(HoldReport::default());
        let stop = Stop::on_input_closed();
        let (to, each) = (self.to, self.count.div_ceil(BESIDE));
        let openers: Vec<_> = (0..BESIDE)
            .map(|_| {
                let (shared, until, say) = (report.clone(), stop.clone(), say.clone());
                thread::spawn(move || open(to, each, &say, &shared, &until))
            })
            .collect();
        let (shared, until) = (report.clone(), stop.clone());
        let work = thread::spawn(move || {
            let mut held: Vec<TcpStream> =
                openers.into_iter().filter_map(|opener| opener.join().ok()).flatten().collect();
            shared.update(|report| report.done = true);
            while !until.is_set() {
                let before = held.len();
                held.retain(is_open);
                let closed = u64::try_from(before - held.len())?;
                shared.update(|report| report.closed += closed);
                thread::sleep(Duration::from_millis(50));
            }
            Ok(())
        });
        report_until(&report, &stop, work)
    }
}

fn open(
    to: SocketAddr,
    count: usize,
    say: &[u8],
    report: &Shared<HoldReport>,
    stop: &Stop,
) -> Vec<TcpStream> {
    let mut held = Vec::with_capacity(count);
    for _ in 0..count {
        if stop.is_set() {
            break;
        }
        let opened = TcpStream::connect_timeout(&to, OPENING).and_then(|mut stream| {
            stream.write_all(say)?;
            stream.set_nonblocking(true)?;
            Ok(stream)
        });
        report.update(|report| match opened {
            Ok(_) => report.opened += 1,
            Err(_) => report.refused += 1,
        });
        held.extend(opened);
    }
    held
}

fn is_open(mut stream: &TcpStream) -> bool {
    match stream.read(&mut [0; 256]) {
        Ok(length) => length > 0,
        Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
    }
}
