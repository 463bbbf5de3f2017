//! TLS 1.3 configurations, one per relation of the mesh. There is none that trusts without a root: a bundle is never
//! empty, and pins are asked for.
//!
//! Sessions are never resumed, so every connection proves its key anew. Names in certificates other than the SPIFFE id
//! mean nothing, so clients may connect by any address; they pass [`server_name`].

mod client;
mod refusal;
mod server;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls_pki_types::ServerName;

pub use client::{client_by_pins, client_mutual};
pub use refusal::{PeerRefusal, refusal};
pub use server::{ClientTrust, ServingCertificate, server, server_trusting};

/// The protocol that is spoken inside.
const ALPN: &[u8] = b"h2";

/// A configuration that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// There is nothing to trust.
    #[error("no root is pinned: whom to trust is unknown")]
    NoPins,
    /// A certificate, a key or a root does not fit.
    #[error("TLS cannot be set up: {0}")]
    Rustls(#[from] rustls::Error),
    /// The roots cannot verify anybody.
    #[error("TLS cannot be set up: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// The name clients send: gateways look at none, and clients verify the SPIFFE id instead.
#[must_use]
pub fn server_name() -> ServerName<'static> {
    ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into())
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
