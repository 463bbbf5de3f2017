//! Connections that are opened and kept, with a few bytes or none.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use serde::{Deserialize, Serialize};
use socket2::{Domain, Socket, Type};

use super::{Shared, Stop, report_until};

/// How long one connection may take to open.
const OPENING: Duration = Duration::from_secs(1);
/// Parts that open their connections beside each other.
const BESIDE: usize = 16;

/// Holder.
#[derive(Clone, Debug, Args)]
pub struct Hold {
    /// Whom to connect to.
    #[arg(long)]
    to: SocketAddr,
    /// How many connections.
    #[arg(long, default_value_t = 100)]
    count: usize,
    /// Own addresses to connect from, in turn; any if there is none.
    #[arg(long)]
    from: Vec<IpAddr>,
    /// Open again what was closed.
    #[arg(long)]
    again: bool,
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
    /// Of the parts that open beside each other, those that have tried all.
    pub done: u64,
}

impl HoldReport {
    /// Whether all connections were tried.
    #[must_use]
    pub fn is_done(&self) -> bool {
        u64::try_from(BESIDE).is_ok_and(|parts| self.done == parts)
    }
}

impl Hold {
    pub(super) fn run(&self) -> Result<()> {
        let say = hex::decode(&self.say)?;
        let report = Shared::new(HoldReport::default());
        let stop = Stop::on_input_closed();
        let holders: Vec<_> = (0..BESIDE)
            .map(|_| {
                let (hold, say) = (self.clone(), say.clone());
                let (shared, until) = (report.clone(), stop.clone());
                thread::spawn(move || hold.hold(&say, &shared, &until))
            })
            .collect();
        let work = thread::spawn(move || {
            for holder in holders {
                let _ended = holder.join();
            }
            Ok(())
        });
        report_until(&report, &stop, work)
    }

    /// Opens its part of the connections, and again those that were closed if that is wanted.
    fn hold(&self, say: &[u8], report: &Shared<HoldReport>, stop: &Stop) {
        let part = self.count.div_ceil(BESIDE);
        let (mut held, mut tried) = (Vec::with_capacity(part), 0);
        while !stop.is_set() {
            if held.len() < part && (tried < part || self.again) {
                let from = self.from.get(tried % self.from.len().max(1)).copied();
                let opened = connect(self.to, from, say);
                tried += 1;
                report.update(|report| match opened {
                    Ok(_) => report.opened += 1,
                    Err(_) => report.refused += 1,
                });
                held.extend(opened);
                report.update(|report| report.done += u64::from(tried == part));
                if held.len() < part && tried < part {
                    continue;
                }
            }
            let before = held.len();
            held.retain(is_open);
            report.update(|report| report.closed += u64::try_from(before - held.len()).unwrap_or_default());
            thread::sleep(Duration::from_millis(5));
        }
    }
}

fn connect(to: SocketAddr, from: Option<IpAddr>, say: &[u8]) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    if let Some(from) = from {
        socket.bind(&SocketAddr::new(from, 0).into())?;
    }
    socket.connect_timeout(&to.into(), OPENING)?;
    let mut stream = TcpStream::from(socket);
    stream.write_all(say)?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

fn is_open(mut stream: &TcpStream) -> bool {
    match stream.read(&mut [0; 256]) {
        Ok(length) => length > 0,
        Err(error) => error.kind() == io::ErrorKind::WouldBlock,
    }
}
