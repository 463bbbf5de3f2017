//! Accepts TCP connections and does their handshakes, beside each other and within limits. Nothing a client does, and
//! no lack of file descriptors, ends the loop.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use rustls::ServerConfig;
use rustls::server::Acceptor;
use telemetry::shutdown::Shutdown;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_rustls::{LazyConfigAcceptor, StartHandshake, TlsAcceptor};
use tokio_stream::wrappers::ReceiverStream;

use super::gate::{ConnectionMetrics, Gate, Pass};
use super::{Connection, Stream};

/// Pause after an accept error (such as no file descriptors left), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long one handshake keeps others from theirs: more than the work takes, and less than a peer may take to answer.
const TURN: Duration = Duration::from_millis(500);

/// What strangers may use.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Who says nothing for so long, or takes longer for a handshake, is cut.
    pub handshake: Duration,
    /// Handshakes at a time; who has not said all of its hello has begun none.
    pub handshakes: usize,
    /// The connection of a peer without a certificate is cut then.
    pub stranger: Duration,
    /// Connections at a time, open or opening.
    pub connections: usize,
    /// The same from one source, an IPv4 address or an IPv6 /64; loopback has no limit of its own. 0: none has.
    pub per_source: usize,
    /// Proxies and load balancers that clients come through: their addresses are nobody's source.
    pub proxies: Vec<IpNet>,
}

/// Where connections come from.
pub(super) trait Listen: Send + 'static {
    /// The next connection.
    fn accept(&mut self) -> impl Future<Output = io::Result<(Stream, SocketAddr)>> + Send;
}

/// What every handshake needs.
#[derive(Clone)]
struct Handshakes {
    acceptor: TlsAcceptor,
    limits: Limits,
    permits: Arc<Semaphore>,
    metrics: ConnectionMetrics,
    connections: mpsc::Sender<io::Result<Connection>>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            handshakes: 256,
            stranger: Duration::from_mins(1),
            connections: 16_384,
            per_source: 64,
            proxies: Vec::new(),
        }
    }
}

impl Limits {
    /// Whether an address is that of a proxy.
    pub(super) fn is_proxy(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.proxies.iter().any(|prefix| prefix.contains(&address))
    }
}

impl Listen for TcpListener {
    async fn accept(&mut self) -> io::Result<(Stream, SocketAddr)> {
        let (stream, remote) = Self::accept(self).await?;
        // Whoever is gone already is seen later.
        let _gone = stream.set_nodelay(true);
        Ok((Stream::Own(stream), remote))
    }
}

/// A listener, and the connections that other replicas hand on.
#[derive(Debug)]
pub struct Incoming {
    /// The listener.
    pub own: TcpListener,
    /// The connections of others, with the addresses they come from; nobody sends where there is one replica.
    pub handed: mpsc::Receiver<(Stream, SocketAddr)>,
}

impl Listen for Incoming {
    async fn accept(&mut self) -> io::Result<(Stream, SocketAddr)> {
        tokio::select! {
            accepted = Listen::accept(&mut self.own) => accepted,
            Some(handed) = self.handed.recv() => Ok(handed),
        }
    }
}

/// The connections of a listener as a stream, and the loop that feeds it until shutdown, for the caller to run.
pub fn incoming(
    listener: Incoming,
    config: Arc<ServerConfig>,
    limits: Limits,
    metrics: ConnectionMetrics,
    shutdown: Shutdown,
) -> (ReceiverStream<io::Result<Connection>>, impl Future<Output = ()> + Send) {
    let (connections, receiver) = mpsc::channel(16);
    let permits = Arc::new(Semaphore::new(limits.handshakes));
    let handshakes =
        Handshakes { acceptor: TlsAcceptor::from(config), limits, permits, metrics, connections };
    (ReceiverStream::new(receiver), accept_all(listener, handshakes, shutdown))
}

async fn accept_all(mut listener: impl Listen, handshakes: Handshakes, shutdown: Shutdown) {
    let gate = Gate::new(&handshakes.limits, handshakes.metrics.clone());
    loop {
        let accepted = tokio::select! {
            () = shutdown.wait() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, remote)) => {
                // Who is not let in is closed at once.
                if let Some((pass, evicted)) = gate.admit(remote.ip()) {
                    tokio::spawn(handshakes.clone().open(stream, remote, pass, evicted));
                }
            }
            Err(error) => {
                tracing::warn!(%error, "connection not accepted");
                handshakes.metrics.refused("accept");
                gate.make_room();
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

impl Handshakes {
    /// Does one handshake and hands the connection over.
    async fn open(self, stream: Stream, remote: SocketAddr, pass: Pass, evicted: oneshot::Receiver<()>) {
        let limit = self.limits.handshake;
        let hello = tokio::select! {
            hello = tokio::time::timeout(limit, hello(stream)) => hello,
            _ = evicted => return,
        };
        let hello = match hello {
            Ok(Ok(Some(hello))) => hello,
            Ok(Err(error)) => return self.refused(remote, &error),
            Ok(Ok(None)) | Err(_) => {
                self.metrics.refused("silent");
                return;
            }
        };
        pass.begins();
        match tokio::time::timeout(limit, self.shake(hello, remote, pass)).await {
            Ok(Ok(connection)) => {
                // Fails only when the server is gone.
                let _gone = self.connections.send(Ok(connection)).await;
            }
            Ok(Err(error)) => self.refused(remote, &error),
            Err(_elapsed) => {
                self.metrics.refused("handshake");
                tracing::info!(%remote, "TLS handshake took too long");
            }
        }
    }

    fn refused(&self, remote: SocketAddr, error: &io::Error) {
        self.metrics.refused("handshake");
        let reason = pki::tls::refusal(error).map_or(error.to_string(), |refusal| refusal.to_string());
        tracing::info!(%remote, reason, "TLS handshake refused");
    }

    /// Answers a hello. The turn ends when the answer is out at the latest: to wait for a peer costs nothing.
    async fn shake(&self, hello: Hello, remote: SocketAddr, pass: Pass) -> io::Result<Connection> {
        // The semaphore is never closed.
        let turn = self.permits.acquire().await.map_err(io::Error::other)?;
        let mut shaking = pin!(hello.into_stream(self.acceptor.config().clone()));
        let done = tokio::time::timeout(TURN, &mut shaking).await;
        drop(turn);
        let stream = match done {
            Ok(stream) => stream?,
            Err(_elapsed) => shaking.await?,
        };
        let by_proxy = self.limits.is_proxy(remote.ip());
        Connection::try_new(stream, remote, by_proxy, self.limits.stranger, pass).map_err(io::Error::other)
    }
}

/// A peer that said hello.
type Hello = StartHandshake<Stream>;

/// Waits until the peer has said all of its hello. Only then has it begun a handshake: who says half of it may be
/// silent as well. `None` of one that says nothing and goes, as whoever only looks whether the port is open does.
async fn hello(stream: Stream) -> io::Result<Option<Hello>> {
    if stream.speaks().await {
        LazyConfigAcceptor::new(Acceptor::default(), stream).await.map(Some)
    } else {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use pki::tls::ServingCertificate;
    use pki::{Authority, CheckedCsr, KeyPair, SpiffeId, TrustDomain};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;
    use tokio_stream::StreamExt as _;

    use super::*;
    use crate::clock::Clock;

    /// A listener that fails first.
    struct Failing(VecDeque<io::Error>, TcpListener);

    impl Listen for Failing {
        async fn accept(&mut self) -> io::Result<(Stream, SocketAddr)> {
            match self.0.pop_front() {
                Some(error) => Err(error),
                None => Listen::accept(&mut self.1).await,
            }
        }
    }

    fn tls(clock: &Clock) -> (ServerConfig, rustls::ClientConfig) {
        let domain = TrustDomain::try_new("outrigger.local").unwrap();
        let authority = Authority::create(&domain, clock.now()).unwrap();
        let key = KeyPair::generate().unwrap();
        let csr = CheckedCsr::from_der(&key.request().unwrap()).unwrap();
        let id = SpiffeId::gateway(&domain, "g").unwrap();
        let mut chain = authority.issue(&csr, &id, clock.now(), Duration::from_hours(1)).unwrap().chain;
        chain.push(authority.certificate().clone());
        let serving = Arc::new(ServingCertificate::try_new(chain, &key).unwrap());
        let server =
            pki::tls::server(&authority.bundle().unwrap(), &domain, serving, clock.source()).unwrap();
        let client = pki::tls::client_by_pins(&[authority.pin()], &domain, clock.source()).unwrap();
        (server, client)
    }

    #[tokio::test]
    async fn no_error_of_accept_and_no_nonsense_ends_the_loop() {
        let (server, client) = tls(&Clock::system());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        // EMFILE, ENFILE, ENOMEM, ECONNABORTED, EPERM.
        let errors = [24, 23, 12, 103, 1].map(io::Error::from_raw_os_error);
        let (sender, receiver) = mpsc::channel(16);
        let (limits, metrics) = (Limits::default(), ConnectionMetrics::default());
        let permits = Arc::new(Semaphore::new(limits.handshakes));
        let acceptor = TlsAcceptor::from(Arc::new(server));
        let handshakes =
            Handshakes { acceptor, limits, permits, metrics: metrics.clone(), connections: sender };
        let shutdown = Shutdown::default();
        let accepting = accept_all(Failing(errors.into(), listener), handshakes, shutdown.clone());
        let accepting = tokio::spawn(accepting);
        let hello_cut_off = [22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3];
        let zeros = vec![0; 70_000];
        let alert = [21, 3, 3, 0, 2, 2, 40];
        for nonsense in [b"GET / HTTP/1.1\r\n\r\n".as_slice(), &zeros, &hello_cut_off, &alert, &[255; 5]] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let _closed = stream.write_all(nonsense).await;
            stream.shutdown().await.ok();
            let _reset = stream.read_to_end(&mut Vec::new()).await;
        }
        let tcp = TcpStream::connect(address).await.unwrap();
        let connecting =
            tokio_rustls::TlsConnector::from(Arc::new(client)).connect(pki::tls::server_name(), tcp);
        let mut connections = ReceiverStream::new(receiver);
        let (opened, handed_over) = tokio::join!(connecting, connections.next());
        opened.unwrap();
        assert!(handed_over.is_some_and(|connection| connection.is_ok()));
        assert_eq!((metrics.count("accept"), metrics.count("handshake")), (5, 5));
        shutdown.trigger();
        accepting.await.unwrap();
    }
}
