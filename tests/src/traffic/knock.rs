//! Connection attempts without end: a flood of SYNs from many ports.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use serde::{Deserialize, Serialize};
use socket2::{Domain, Socket, Type};

use super::{Shared, Stop, report_until};

/// Attempts that are kept open, so that an answer still finds its socket.
const OPEN: usize = 128;

/// Knocker.
#[derive(Debug, Args)]
pub struct Knock {
    /// Whom to connect to.
    #[arg(long)]
    to: SocketAddr,
    /// Attempts a second.
    #[arg(long, default_value_t = 1000)]
    rate: u32,
}

/// What a knocker did.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct KnockReport {
    /// Attempts.
    pub sent: u64,
}

impl Knock {
    pub(super) fn run(&self) -> Result<()> {
        let report = Shared::new(KnockReport::default());
        let stop = Stop::on_input_closed();
        let (shared, until) = (report.clone(), stop.clone());
        let (to, interval) = (self.to, Duration::from_secs(1) / self.rate.max(1));
        let work = thread::spawn(move || {
            let (started, mut open) = (Instant::now(), VecDeque::with_capacity(OPEN));
            for number in 0_u32.. {
                if until.is_set() {
                    break;
                }
                thread::sleep((interval * number).saturating_sub(started.elapsed()));
                let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
                socket.set_nonblocking(true)?;
                // It goes on in the kernel.
                let _under_way = socket.connect(&to.into());
                shared.update(|report| report.sent += 1);
                if open.len() == OPEN {
                    open.pop_front();
                }
                open.push_back(socket);
            }
            Ok(())
        });
        report_until(&report, &stop, work)
    }
}
