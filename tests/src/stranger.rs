//! A client of the gateway that is no agent: it may say what it likes, from a machine of the simulated network.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use pki::TrustDomain;
use proto::v1::JoinToken;
use proto::v1::enrollment_client::EnrollmentClient;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::Channel;

use crate::gateway::{Gateway, Token};
use crate::host::Host;

/// A stranger with a token.
#[derive(Debug)]
pub struct Stranger {
    token: JoinToken,
    gateway: SocketAddr,
}

impl Stranger {
    /// One that holds this token.
    pub fn try_new(gateway: &Gateway, token: &Token) -> Result<Self> {
        let token = proto::token::decode(&token.text)?;
        Ok(Self { token, gateway: SocketAddr::new(gateway.host().address(), 7443) })
    }

    /// The token.
    #[must_use]
    pub fn token(&self) -> &JoinToken {
        &self.token
    }

    /// Runs `work` on `host`, on a runtime of its own.
    pub fn on<T: Send, F: Future<Output = Result<T>>>(
        &self,
        host: &Host,
        work: impl FnOnce() -> F + Send,
    ) -> Result<T> {
        host.namespace().inside(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(work())
        })
    }

    fn tls(&self) -> Result<tokio_rustls::rustls::ClientConfig> {
        let pins = self.token.root_pins.iter().map(|pin| pki::KeyHash::try_from_bytes(pin).context("a pin"));
        let pins: Vec<_> = pins.collect::<Result<_>>()?;
        let domain = TrustDomain::try_new(&self.token.trust_domain)?;
        Ok(pki::tls::client_by_pins(&pins, &domain, pki::system_time())?)
    }

    /// A connection that speaks TLS, and HTTP/2 next.
    pub async fn connect(&self) -> Result<TlsStream<tokio::net::TcpStream>> {
        let stream = tokio::net::TcpStream::connect(self.gateway).await?;
        Ok(TlsConnector::from(Arc::new(self.tls()?)).connect(pki::tls::server_name(), stream).await?)
    }

    /// A client of the enrollment service.
    pub async fn enrollment(&self) -> Result<EnrollmentClient<Channel>> {
        let connection =
            vm_agent::transport::Dialer::default().connect(&self.gateway.to_string(), self.tls()?).await;
        let connection = connection.map_err(|error| anyhow!("{error}"))?;
        Ok(EnrollmentClient::new(connection.channel))
    }
}
