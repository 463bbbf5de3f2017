//! The leader's side: takes connections that other replicas hand on.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pki::{Principal, Svid};
use rustls::ServerConfig;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;

use super::keys::RENEW;
use super::{HEAD, Head, KeysError, PATIENCE, TermKeys};
use crate::election::Term;
use crate::tls::Stream;

/// Handshakes of replicas at a time: strangers may knock here too.
const HANDSHAKES: usize = 64;
/// Pause after an accept error.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Takes connections until it is dropped, and passes them on with the addresses they come from. Who says that the term is
/// over ends it.
///
/// # Errors
/// [`KeysError`] where the keys cannot be used.
pub fn take_over(
    listener: TcpListener,
    keys: TermKeys,
    connections: mpsc::Sender<(Stream, SocketAddr)>,
    term: Term,
) -> Result<impl Future<Output = ()> + Send, KeysError> {
    let serving = keys.serving()?;
    let config = Arc::new(keys.server(Arc::clone(&serving))?);
    let permits = Arc::new(Semaphore::new(HANDSHAKES));
    Ok(async move {
        let mut renew = tokio::time::interval(RENEW);
        renew.tick().await;
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _due = renew.tick() => {
                    if let Err(error) = keys.renew(&serving) {
                        tracing::error!(%error, "certificate between replicas not renewed");
                    }
                    continue;
                }
            };
            let stream = match accepted {
                Ok((stream, _replica)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "connection of a replica not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else { continue };
            let (config, connections, term) = (Arc::clone(&config), connections.clone(), term.clone());
            tokio::spawn(async move {
                let taken = tokio::time::timeout(PATIENCE, take(config, stream)).await;
                drop(permit);
                match taken {
                    Ok(Ok((stream, Head::Host(from)))) => {
                        // Fails only when the server is gone.
                        let _gone = connections.send((stream, from)).await;
                    }
                    Ok(Ok((_, Head::Ended))) => term.end("another gateway has the lease, and says so"),
                    Ok(Err(error)) => tracing::info!(%error, "connection of a replica refused"),
                    Err(_late) => tracing::info!("connection of a replica refused: it took too long"),
                }
            });
        }
    })
}

async fn take(config: Arc<ServerConfig>, stream: TcpStream) -> io::Result<(Stream, Head)> {
    stream.set_nodelay(true)?;
    let mut stream = TlsAcceptor::from(config).accept(stream).await?;
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let svid = certificate.map(Svid::from_der).transpose().map_err(io::Error::other)?;
    // Without a certificate hosts are let in to join; here they have nothing to do.
    if !svid.is_some_and(|svid| matches!(svid.id().principal(), Principal::Gateway { .. })) {
        return Err(io::Error::other("it has no certificate of a replica"));
    }
    let mut head = [0; HEAD];
    stream.read_exact(&mut head).await?;
    let head =
        Head::decode(&head).ok_or_else(|| io::Error::other("it says what this version does not know"))?;
    Ok((Stream::Handed(Box::new(stream)), head))
}
