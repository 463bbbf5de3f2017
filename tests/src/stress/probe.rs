//! The packets: sockets inside the namespaces, used by threads of this process, so that both ends of a flow are seen by
//! one clock.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use nix::sched::{CloneFlags, setns};
use socket2::SockRef;

use super::cast::{Kind, Lane};
use crate::namespace::Namespace;
use crate::wait::monotonic_ns;

const MAGIC: [u8; 8] = *b"ogr-str1";
/// Bytes of a probe.
const LENGTH: usize = 32;
/// No echo is wanted.
const NO_ECHO: u32 = u32::MAX;
/// How often blocked threads look whether they should end.
const LOOK: Duration = Duration::from_millis(100);
/// How long a connection may take to come about before it is tried anew.
const KNOCK: Duration = Duration::from_millis(800);

/// What a thread saw of a packet.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Its flow.
    pub flow: usize,
    /// Its number.
    pub number: u64,
    /// When it was sent.
    pub sent_ns: u64,
    /// When it was received; `None`: it was sent.
    pub received_ns: Option<u64>,
}

/// What all threads share.
#[derive(Clone, Debug)]
pub struct Shared {
    /// Where they tell.
    pub seen: Sender<Seen>,
    /// Set at the end.
    pub stop: Arc<AtomicBool>,
    /// Connections of allowed flows that broke.
    pub broken: Arc<AtomicU64>,
    /// Datagrams that the sender's own kernel refused; these were never sent.
    pub unsent: Arc<AtomicU64>,
}

/// Runs something in a network namespace: sockets made there stay there.
pub fn inside<T: Send + 'static>(
    namespace: &Namespace,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let file = File::open(format!("/proc/{}/ns/net", namespace.holder()))?;
    let entered = thread::spawn(move || {
        setns(file, CloneFlags::CLONE_NEWNET).context("cannot enter the namespace")?;
        work()
    });
    entered.join().unwrap_or_else(|_| Err(anyhow!("a thread in a namespace panicked")))
}

/// A socket of a flow of datagrams.
pub fn sender(namespace: &Namespace, lane: &Lane) -> Result<UdpSocket> {
    let any: SocketAddr = if lane.to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse()?;
    let socket = inside(namespace, move || Ok(UdpSocket::bind(any)?))?;
    SockRef::from(&socket).set_recv_buffer_size(1 << 20)?;
    socket.set_read_timeout(Some(LOOK))?;
    Ok(socket)
}

/// Receives datagrams on these ports, and sends those back that want it.
pub fn receive(namespace: &Namespace, ports: &BTreeSet<u16>, shared: &Shared) -> Result<()> {
    for port in ports.iter().copied() {
        let socket = inside(namespace, move || Ok(UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port))?))?;
        SockRef::from(&socket).set_recv_buffer_size(4 << 20)?;
        socket.set_read_timeout(Some(LOOK))?;
        let shared = shared.clone();
        thread::spawn(move || shared.sink(&socket));
    }
    Ok(())
}

/// Sends on all flows of datagrams, `rate` a second on each, evenly.
pub fn send(lanes: Vec<(usize, Lane, UdpSocket)>, rate: u32, shared: &Shared) {
    for (_, lane, socket) in &lanes {
        let Kind::Datagrams { echo: Some(_) } = lane.kind else { continue };
        if let Ok(socket) = socket.try_clone() {
            let shared = shared.clone();
            thread::spawn(move || shared.sink(&socket));
        }
    }
    let shared = shared.clone();
    thread::spawn(move || {
        let pause = Duration::from_secs(1) / (rate * u32::try_from(lanes.len()).unwrap_or(1)).max(1);
        let mut due = Instant::now();
        for number in 0_u64.. {
            for (flow, lane, socket) in &lanes {
                if shared.stop.load(Ordering::Relaxed) {
                    return;
                }
                thread::sleep(due.saturating_duration_since(Instant::now()));
                // What was missed is not made up for: a burst would fill queues.
                due = due.max(Instant::now().checked_sub(pause).unwrap_or(due)) + pause;
                shared.send(*flow, lane, socket, number);
            }
        }
    });
}

/// Keeps a connection open and sends records over it; opens it anew, and counts, when it breaks.
pub fn stream(namespace: &Namespace, flow: usize, lane: &Lane, shared: &Shared) -> Result<()> {
    let (to, shared) = (lane.to, shared.clone());
    let file = File::open(format!("/proc/{}/ns/net", namespace.holder()))?;
    thread::spawn(move || {
        if setns(file, CloneFlags::CLONE_NEWNET).is_err() {
            return;
        }
        while !shared.stop.load(Ordering::Relaxed) {
            let Ok(stream) = TcpStream::connect_timeout(&to, Duration::from_secs(20)) else { continue };
            if shared.records(flow, stream).is_err() && !shared.stop.load(Ordering::Relaxed) {
                shared.broken.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    Ok(())
}

/// Tries again and again to connect where nobody may.
pub fn knock(namespace: &Namespace, flow: usize, lane: &Lane, shared: &Shared) -> Result<()> {
    let (to, shared) = (lane.to, shared.clone());
    let file = File::open(format!("/proc/{}/ns/net", namespace.holder()))?;
    thread::spawn(move || {
        if setns(file, CloneFlags::CLONE_NEWNET).is_err() {
            return;
        }
        for number in 0.. {
            if shared.stop.load(Ordering::Relaxed) {
                return;
            }
            let sent_ns = monotonic_ns();
            let opened = TcpStream::connect_timeout(&to, KNOCK);
            let received_ns = opened.is_ok().then(monotonic_ns);
            let _ = shared.seen.send(Seen { flow, number, sent_ns, received_ns });
            thread::sleep(LOOK);
        }
    });
    Ok(())
}

/// Accepts connections and reads records.
pub fn accept(namespace: &Namespace, port: u16, shared: &Shared) -> Result<()> {
    let listener = inside(namespace, move || Ok(TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))?))?;
    let shared = shared.clone();
    // Ends with the process.
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let shared = shared.clone();
            thread::spawn(move || shared.read(stream));
        }
    });
    Ok(())
}

impl Shared {
    fn send(&self, flow: usize, lane: &Lane, socket: &UdpSocket, number: u64) {
        let echo = match lane.kind {
            Kind::Datagrams { echo: Some(echo) } => u32::try_from(echo).unwrap_or(NO_ECHO),
            Kind::Datagrams { echo: None } | Kind::Echo | Kind::Stream | Kind::Knocks => NO_ECHO,
        };
        let sent_ns = monotonic_ns();
        match socket.send_to(&probe(flow, echo, number, sent_ns), lane.to) {
            Ok(_) => drop(self.seen.send(Seen { flow, number, sent_ns, received_ns: None })),
            Err(_) => drop(self.unsent.fetch_add(1, Ordering::Relaxed)),
        }
    }

    fn sink(&self, socket: &UdpSocket) {
        let mut buffer = [0; 256];
        while !self.stop.load(Ordering::Relaxed) {
            // Errors are time-outs, or ICMP errors about echos.
            let Ok((length, source)) = socket.recv_from(&mut buffer) else { continue };
            let received_ns = Some(monotonic_ns());
            let Some((flow, echo, number, sent_ns)) = parse(buffer.get(..length).unwrap_or_default()) else {
                continue;
            };
            let _ = self.seen.send(Seen { flow, number, sent_ns, received_ns });
            if let Ok(flow) = usize::try_from(echo)
                && echo != NO_ECHO
            {
                let sent_ns = monotonic_ns();
                if socket.send_to(&probe(flow, NO_ECHO, number, sent_ns), source).is_ok() {
                    let _ = self.seen.send(Seen { flow, number, sent_ns, received_ns: None });
                }
            }
        }
    }

    fn records(&self, flow: usize, mut stream: TcpStream) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        for number in 0.. {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            stream.write_all(&probe(flow, NO_ECHO, number, monotonic_ns()))?;
            thread::sleep(Duration::from_millis(25));
        }
        Ok(())
    }

    fn read(&self, mut stream: TcpStream) {
        let mut record = [0; LENGTH];
        let _ = stream.set_read_timeout(Some(Duration::from_mins(1)));
        while !self.stop.load(Ordering::Relaxed) {
            match stream.read_exact(&mut record) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return,
            }
            let Some((flow, _, number, sent_ns)) = parse(&record) else { return };
            let _ = self.seen.send(Seen { flow, number, sent_ns, received_ns: Some(monotonic_ns()) });
        }
    }
}

fn probe(flow: usize, echo: u32, number: u64, sent_ns: u64) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(u32::try_from(flow).unwrap_or(NO_ECHO).to_be_bytes());
    bytes.extend(echo.to_be_bytes());
    bytes.extend(number.to_be_bytes());
    bytes.extend(sent_ns.to_be_bytes());
    bytes
}

/// Flow, flow of the echo, number and time of a probe.
fn parse(bytes: &[u8]) -> Option<(usize, u32, u64, u64)> {
    let rest = bytes.strip_prefix(&MAGIC)?;
    let (flow, rest) = rest.split_first_chunk()?;
    let (echo, rest) = rest.split_first_chunk()?;
    let (number, rest) = rest.split_first_chunk()?;
    let (sent, _) = rest.split_first_chunk()?;
    let flow = usize::try_from(u32::from_be_bytes(*flow)).ok()?;
    Some((flow, u32::from_be_bytes(*echo), u64::from_be_bytes(*number), u64::from_be_bytes(*sent)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_is_read_as_written_and_nothing_else_is_one() {
        let bytes = probe(3, 4, 5, 6);
        assert_eq!(bytes.len(), LENGTH);
        assert_eq!(parse(&bytes), Some((3, 4, 5, 6)));
        assert_eq!(parse(&bytes[..LENGTH - 1]), None);
        assert_eq!(parse(b"something else, as long as a probe"), None);
    }
}
