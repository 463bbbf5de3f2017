//! A TLS connection whose handshake is done.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use pki::{InvalidSvid, Svid};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use super::{Cut, Pass, PeerIdentity, Stream};

/// A connection and who is at its other end.
pub struct Connection {
    stream: TlsStream<Stream>,
    peer: PeerIdentity,
    /// When the connection of a peer that showed no certificate is cut: joining takes moments.
    cut: Option<Pin<Box<Sleep>>>,
    /// Counts it.
    _pass: Pass,
}

impl Connection {
    /// Takes a connection over after its handshake, which verified what is only read here. One without a certificate
    /// is cut after `stranger`.
    ///
    /// # Errors
    /// [`InvalidSvid`] where the certificate cannot be read.
    pub fn try_new(
        stream: TlsStream<Stream>,
        remote: SocketAddr,
        by_proxy: bool,
        stranger: Duration,
        pass: Pass,
    ) -> Result<Self, InvalidSvid> {
        let certificates = stream.get_ref().1.peer_certificates();
        let svid = certificates.and_then(<[_]>::first).map(Svid::from_der).transpose()?;
        let remote = SocketAddr::new(remote.ip().to_canonical(), remote.port());
        let cut = svid.is_none().then(|| Box::pin(tokio::time::sleep(stranger)));
        Ok(Self {
            stream,
            peer: PeerIdentity { svid, remote, by_proxy, cut: Cut::default() },
            cut,
            _pass: pass,
        })
    }
}

impl Connected for Connection {
    type ConnectInfo = PeerIdentity;

    fn connect_info(&self) -> PeerIdentity {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let late = self.cut.as_mut().is_some_and(|cut| cut.as_mut().poll(cx).is_ready());
        if late || self.peer.cut.is_done(cx) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.stream).poll_read(cx, to)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, from)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, from)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
