//! A replica that does not hold the lease: it hands connections on to the one that does.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::Client;
use pki::TrustDomain;
use prometheus_client::metrics::counter::Counter;
use rustls::ClientConfig;
use tokio::io::{AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::keys::RENEW;
use super::{Head, PATIENCE, TermKeys};
use crate::clock::Clock;
use crate::election::Leader;

/// Pause after an accept error, such as no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a host may say nothing.
const SILENCE: Duration = Duration::from_secs(10);
/// Between two attempts to tell a replica that its term is over, and how many.
const TELL_PAUSE: Duration = Duration::from_secs(1);
const TELLS: usize = 30;

/// How a leader is spoken to.
#[derive(Clone, Debug)]
pub struct Known {
    run: u32,
    config: Arc<ClientConfig>,
    since: Instant,
}

/// What hands connections on.
#[derive(Clone)]
pub struct Forwarder {
    /// How the keys are read.
    pub client: Client,
    /// Where they are.
    pub namespace: String,
    /// The mesh's.
    pub trust_domain: TrustDomain,
    /// What time it is.
    pub clock: Clock,
    /// Who holds the lease.
    pub leader: watch::Receiver<Leader>,
    /// Connections at a time.
    pub connections: usize,
    /// How it speaks to the leader of a term, for a while.
    pub keys: Arc<Mutex<Option<Known>>>,
    /// Connections that were handed on.
    pub handed_on: Counter,
    /// Connections that were closed because nobody took them.
    pub lost: Counter,
}

impl fmt::Debug for Forwarder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Forwarder").field("leader", &*self.leader.borrow()).finish_non_exhaustive()
    }
}

impl Forwarder {
    /// Accepts connections and hands them on, until it is dropped; then they end.
    pub async fn run(self, listener: &TcpListener) {
        let permits = Arc::new(Semaphore::new(self.connections));
        let mut under_way = JoinSet::new();
        let mut leader = self.leader.clone();
        let mut term = leader.borrow_and_update().run;
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, from)) => {
                        let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else { continue };
                        let this = self.clone();
                        under_way.spawn(async move {
                            this.hand_on(stream, from).await;
                            drop(permit);
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "connection not accepted");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(_ended) = under_way.join_next() => {}
                Ok(()) = leader.changed() => {
                    let now = leader.borrow_and_update().run;
                    if now != term {
                        // Whoever served them does not any more, even where it does not know yet.
                        under_way.shutdown().await;
                        term = now;
                    }
                }
            }
        }
    }

    async fn hand_on(&self, mut host: TcpStream, from: SocketAddr) {
        let said = tokio::time::timeout(SILENCE, host.peek(&mut [0])).await;
        if !matches!(said, Ok(Ok(1..))) {
            return;
        }
        let opened = tokio::time::timeout(PATIENCE, self.open(Head::Host(from))).await;
        let late = |_late| Err(io::Error::other("no gateway has taken it in time"));
        match opened.unwrap_or_else(late) {
            Ok(mut leader) => {
                self.handed_on.inc();
                let _nodelay = host.set_nodelay(true);
                // Who closes first ends it for both.
                let _ended = copy_bidirectional(&mut host, &mut leader).await;
            }
            Err(error) => {
                self.lost.inc();
                tracing::info!(%from, %error, "connection not handed on");
            }
        }
    }

    /// A connection to the leader, once it serves.
    async fn open(&self, head: Head) -> io::Result<TlsStream<TcpStream>> {
        let mut leader = self.leader.clone();
        let serves = leader.wait_for(|leader| leader.address.is_some()).await.map(|leader| leader.clone());
        let Leader { run, address, .. } = serves.map_err(io::Error::other)?;
        let address = address.ok_or_else(|| io::Error::other("nobody serves"))?;
        let opened = open(self.config(run).await?, address, head).await;
        if opened.is_err() {
            *self.keys.lock().await = None;
        }
        opened
    }

    /// How the leader of a term is spoken to. Thousands of hosts come at once: the Secret is read for the first.
    async fn config(&self, run: u32) -> io::Result<Arc<ClientConfig>> {
        let mut known = self.keys.lock().await;
        if let Some(known) = known.as_ref().filter(|known| known.run == run && known.since.elapsed() < RENEW)
        {
            return Ok(Arc::clone(&known.config));
        }
        let keys =
            TermKeys::read(&self.client, &self.namespace, &self.trust_domain, self.clock.clone()).await;
        let keys = keys.map_err(io::Error::other)?.ok_or_else(|| io::Error::other("there are no keys"))?;
        let config = Arc::new(keys.client().map_err(io::Error::other)?);
        *known = Some(Known { run, config: Arc::clone(&config), since: Instant::now() });
        Ok(config)
    }
}

/// Tells the replica that held the lease before that its term is over, in case it cannot reach the cluster and so does
/// not know. `keys` are those of that term. Gives up when nobody is there.
pub async fn tell_ended(keys: TermKeys, address: SocketAddr) {
    for _attempt in 0..TELLS {
        let Ok(config) = keys.client() else { return };
        match tokio::time::timeout(PATIENCE, open(Arc::new(config), address, Head::Ended)).await {
            Ok(Ok(mut stream)) => {
                let _closed = stream.shutdown().await;
                tracing::info!(%address, "the gateway that held the lease before knows that it is over");
                return;
            }
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => return,
            Ok(Err(_)) | Err(_) => tokio::time::sleep(TELL_PAUSE).await,
        }
    }
}

pub(super) async fn open(
    config: Arc<ClientConfig>,
    address: SocketAddr,
    head: Head,
) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut stream = TlsConnector::from(config).connect(pki::tls::server_name(), stream).await?;
    stream.write_all(&head.encode()).await?;
    stream.flush().await?;
    Ok(stream)
}
