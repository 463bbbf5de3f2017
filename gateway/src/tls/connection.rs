//! A TLS connection whose handshake is done.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use pki::{InvalidSvid, Svid};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use super::PeerIdentity;

/// A connection and who is at its other end.
pub struct Connection {
    stream: TlsStream<TcpStream>,
    peer: PeerIdentity,
}

impl Connection {
    /// Takes a connection over after its handshake, which verified what is only read here.
    ///
    /// # Errors
    /// [`InvalidSvid`] where the certificate cannot be read.
    pub fn try_new(stream: TlsStream<TcpStream>, remote: SocketAddr) -> Result<Self, InvalidSvid> {
        let certificates = stream.get_ref().1.peer_certificates();
        let svid = certificates.and_then(<[_]>::first).map(Svid::from_der).transpose()?;
        let remote = SocketAddr::new(remote.ip().to_canonical(), remote.port());
        Ok(Self { stream, peer: PeerIdentity { svid, remote } })
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
