//! Connections to gateways: name, TCP, a tunnel where a proxy stands between, TLS, HTTP/2; every step that fails is
//! named with the address it was tried on.

use std::error::Error as _;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ::config::HostPort;
use http::Uri;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};
use tower::Service as _;

/// How long each step may take, per address.
const STEP: Duration = Duration::from_secs(5);
/// How often an idle connection is probed; a dead one is noticed after as much again.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// How long the answer may take. A gateway that is frozen, or whose machine is gone, is left for another one then.
const ANSWER: Duration = Duration::from_secs(5);
/// Received before the reader has taken it; a snapshot then needs no round trips.
const WINDOW: u32 = 4 << 20;

/// A connection that was not made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The name has no address.
    #[error("{gateway}: the name cannot be resolved: {reason}")]
    Resolve {
        /// The gateway.
        gateway: String,
        /// Why.
        reason: String,
    },
    /// No address answered.
    #[error("{gateway}: {attempts}")]
    Attempts {
        /// The gateway.
        gateway: String,
        /// What was tried, with what came of it.
        attempts: String,
    },
}

/// An open connection.
#[derive(Clone, Debug)]
pub struct Connection {
    /// For the generated clients.
    pub channel: Channel,
    /// The address that answered.
    pub address: SocketAddr,
}

/// How gateways are reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dialer {
    proxy: Option<HostPort>,
}

impl Dialer {
    /// Directly, or by an HTTP proxy.
    #[must_use]
    pub const fn new(proxy: Option<HostPort>) -> Self {
        Self { proxy }
    }

    /// Connects to a gateway (`host:port`), trying each of its addresses, or of the proxy's.
    ///
    /// # Errors
    /// [`ConnectError`] with every attempt.
    pub async fn connect(
        &self,
        gateway: &str,
        tls: rustls::ClientConfig,
    ) -> Result<Connection, ConnectError> {
        let tls = TlsConnector::from(Arc::new(tls));
        let mut attempts = Vec::new();
        for address in self.resolve(gateway).await? {
            let opened = match self.open(address, gateway, &tls).await {
                Ok(stream) => channel(stream).await,
                Err(reason) => Err(reason),
            };
            match (opened, &self.proxy) {
                (Ok(channel), _) => return Ok(Connection { channel, address }),
                (Err(reason), Some(_)) => attempts.push(format!("by the proxy {address}: {reason}")),
                // A gateway that is named by its address is not named twice.
                (Err(reason), None) if address.to_string() == gateway => attempts.push(reason),
                (Err(reason), None) => attempts.push(format!("{address}: {reason}")),
            }
        }
        Err(ConnectError::Attempts { gateway: gateway.to_owned(), attempts: attempts.join(", ") })
    }

    /// The addresses that a connection to a gateway goes to: its own, or the proxy's.
    ///
    /// # Errors
    /// [`ConnectError::Resolve`].
    pub async fn resolve(&self, gateway: &str) -> Result<Vec<SocketAddr>, ConnectError> {
        match &self.proxy {
            Some(proxy) => resolve(proxy.as_str(), &format!("{gateway}: the proxy {proxy}")).await,
            None => resolve(gateway, gateway).await,
        }
    }

    /// Whether a gateway, or the proxy, takes a new connection.
    ///
    /// # Errors
    /// Why none of its addresses does.
    pub async fn probe(&self, gateway: &str) -> Result<(), String> {
        let mut reasons = Vec::new();
        for address in self.resolve(gateway).await.map_err(|error| error.to_string())? {
            match TcpStream::connect(address).await {
                Ok(_open) => return Ok(()),
                Err(error) => reasons.push(format!("{address}: {error}")),
            }
        }
        Err(reasons.join(", "))
    }

    async fn open(
        &self,
        address: SocketAddr,
        gateway: &str,
        tls: &TlsConnector,
    ) -> Result<TlsStream<TcpStream>, String> {
        let tcp = timeout(STEP, TcpStream::connect(address)).await.map_err(|_elapsed| late("TCP"))?;
        let tcp = tcp.map_err(|error| format!("TCP: {error}"))?;
        tcp.set_nodelay(true).map_err(|error| format!("TCP: {error}"))?;
        let tcp = if self.proxy.is_some() { tunnel(tcp, gateway).await? } else { tcp };
        let stream =
            timeout(STEP, tls.connect(pki::tls::server_name(), tcp)).await.map_err(|_elapsed| late("TLS"))?;
        stream.map_err(|error| match pki::tls::refusal(&error) {
            Some(refusal) => refusal.to_string(),
            None => format!("TLS: {error}"),
        })
    }
}

/// The addresses of a name; `what` stands in the error.
async fn resolve(name: &str, what: &str) -> Result<Vec<SocketAddr>, ConnectError> {
    let failed = |reason: String| ConnectError::Resolve { gateway: what.to_owned(), reason };
    let found = timeout(STEP, tokio::net::lookup_host(name)).await;
    let found = found.map_err(|_elapsed| failed(format!("no answer in {} s", STEP.as_secs())))?;
    let addresses: Vec<_> = found.map_err(|error| failed(error.to_string()))?.collect();
    if addresses.is_empty() { Err(failed("it has no address".to_owned())) } else { Ok(addresses) }
}

fn late(what: &str) -> String {
    format!("{what}: no answer in {} s", STEP.as_secs())
}

/// Asks the proxy at the other end to connect to a gateway.
async fn tunnel(proxy: TcpStream, gateway: &str) -> Result<TcpStream, String> {
    let to = gateway.parse::<Uri>().map_err(|error| format!("CONNECT: {error}"))?;
    let mut proxy = Some(TokioIo::new(proxy));
    let connected = tower::service_fn(move |_uri: Uri| {
        let proxy = proxy.take().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected));
        async move { proxy }
    });
    // The connection to the proxy exists already, and how it is named matters to nobody.
    let asked = Tunnel::new(Uri::from_static("http://proxy"), connected).call(to);
    let answer = timeout(STEP, asked).await.map_err(|_elapsed| late("CONNECT"))?;
    answer.map(TokioIo::into_inner).map_err(|error| format!("CONNECT: {}", chain(&error)))
}

async fn channel(stream: TlsStream<TcpStream>) -> Result<Channel, String> {
    let mut stream = Some(TokioIo::new(stream));
    // One connection: whoever uses it decides when and where to connect again.
    let connector = tower::service_fn(move |_uri| {
        let stream = stream.take().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected));
        async move { stream }
    });
    let endpoint = Endpoint::from_static("http://gateway.outrigger")
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(ANSWER)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW);
    timeout(STEP, endpoint.connect_with_connector(connector))
        .await
        .map_err(|_elapsed| format!("HTTP/2: no answer in {} s", STEP.as_secs()))?
        .map_err(|error| format!("HTTP/2: {}", chain(&error)))
}

/// What a gateway answered, for a person: its own words, or what happened to the connection.
#[must_use]
pub fn describe(status: &tonic::Status) -> String {
    match status.source() {
        Some(source) => format!("the connection broke: {}", chain(source)),
        None if status.message().is_empty() => format!("the gateway answered {:?}", status.code()),
        None => status.message().to_owned(),
    }
}

/// An error with its causes; a refusal of TLS in its own words.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    if let Some(refusal) = pki::tls::refusal(error) {
        return refusal.to_string();
    }
    console::causes(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tls() -> rustls::ClientConfig {
        let domain = pki::TrustDomain::try_new("outrigger.local").unwrap();
        let pin = pki::KeyPair::generate().unwrap().hash();
        pki::tls::client_by_pins(&[pin], &domain, pki::system_time()).unwrap()
    }

    #[tokio::test]
    async fn what_was_tried_is_told_with_the_address() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let error = Dialer::default().connect(&address, tls()).await.unwrap_err().to_string();
        assert!(error.contains(&address) && error.contains("refused"), "{error}");
    }

    #[tokio::test]
    async fn a_server_that_speaks_no_tls_is_told_apart() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            use tokio::io::AsyncWriteExt as _;
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        });
        let error = Dialer::default().connect(&address, tls()).await.unwrap_err().to_string();
        assert!(error.contains("TLS: "), "{error}");
    }

    /// What a proxy with this answer is asked, and what an agent then says.
    async fn ask(answer: &'static [u8]) -> (String, String) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = listener.local_addr().unwrap();
        let asked = tokio::spawn(async move {
            use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 1024];
            let length = stream.read(&mut request).await.unwrap();
            stream.write_all(answer).await.unwrap();
            String::from_utf8_lossy(&request[..length]).into_owned()
        });
        let dialer = Dialer::new(Some(proxy.to_string().parse().unwrap()));
        let error = dialer.connect("gateway.example:7443", tls()).await.unwrap_err().to_string();
        assert!(error.contains(&format!("by the proxy {proxy}")), "{error}");
        (asked.await.unwrap(), error)
    }

    #[tokio::test]
    async fn a_proxy_is_asked_for_the_gateway_by_name() {
        let (request, error) = ask(b"HTTP/1.1 200 OK\r\n\r\nno TLS").await;
        assert!(request.starts_with("CONNECT gateway.example:7443 HTTP/1.1\r\n"), "{request}");
        assert!(error.contains("TLS: "), "{error}");
        for refusal in [&b"HTTP/1.1 403 Forbidden\r\n\r\n"[..], b"HTTP/1.1 407 Who\r\n\r\n", b""] {
            let (_, error) = ask(refusal).await;
            assert!(error.contains("CONNECT: "), "{error}");
        }
    }

    #[test]
    fn the_gateways_own_words_come_first() {
        assert_eq!(describe(&tonic::Status::permission_denied("the token was used")), "the token was used");
        assert!(describe(&tonic::Status::unavailable("")).contains("Unavailable"));
    }
}
