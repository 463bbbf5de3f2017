//! Accepts TCP connections and does their handshakes, beside each other and within limits. Nothing a client does, and
//! no lack of file descriptors, ends the loop.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use telemetry::shutdown::Shutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;

use super::Connection;

/// Pause after an accept error (such as no file descriptors left), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What strangers may use.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A handshake that takes longer is cut.
    pub handshake: Duration,
    /// Handshakes at a time; more wait in the kernel's queue.
    pub half_open: usize,
    /// The connection of a peer without a certificate is cut then.
    pub stranger: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { handshake: Duration::from_secs(10), half_open: 256, stranger: Duration::from_mins(1) }
    }
}

/// The connections of a listener as a stream, and the loop that feeds it until shutdown, for the caller to run.
pub fn incoming(
    listener: TcpListener,
    config: Arc<ServerConfig>,
    limits: Limits,
    shutdown: Shutdown,
) -> (ReceiverStream<io::Result<Connection>>, impl Future<Output = ()> + Send) {
    let (sender, receiver) = mpsc::channel(16);
    let accepting = accept_all(listener, TlsAcceptor::from(config), limits, shutdown, sender);
    (ReceiverStream::new(receiver), accepting)
}

async fn accept_all(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    limits: Limits,
    shutdown: Shutdown,
    connections: mpsc::Sender<io::Result<Connection>>,
) {
    let permits = Arc::new(Semaphore::new(limits.half_open));
    loop {
        // The semaphore is never closed.
        let Ok(permit) = permits.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            () = shutdown.wait() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, remote) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "connection not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (acceptor, connections) = (acceptor.clone(), connections.clone());
        tokio::spawn(async move {
            let shaking = shake(&acceptor, stream, remote, limits.stranger);
            let shaken = tokio::time::timeout(limits.handshake, shaking).await;
            drop(permit);
            match shaken {
                Ok(Ok(connection)) => {
                    // Fails only when the server is gone.
                    let _gone = connections.send(Ok(connection)).await;
                }
                Ok(Err(error)) => {
                    let reason =
                        pki::tls::refusal(&error).map_or(error.to_string(), |refusal| refusal.to_string());
                    tracing::info!(%remote, reason, "TLS handshake refused");
                }
                Err(_elapsed) => tracing::info!(%remote, "TLS handshake took too long"),
            }
        });
    }
}

async fn shake(
    acceptor: &TlsAcceptor,
    stream: TcpStream,
    remote: SocketAddr,
    stranger: Duration,
) -> io::Result<Connection> {
    stream.set_nodelay(true)?;
    let stream = acceptor.accept(stream).await?;
    Connection::try_new(stream, remote, stranger).map_err(io::Error::other)
}
