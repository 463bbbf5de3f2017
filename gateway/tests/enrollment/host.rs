//! A host's side, as an agent has it.

use std::sync::Arc;

use hyper_util::rt::TokioIo;
use pki::{CertificateDer, KeyPair, TrustBundle};
use proto::v1;
use proto::v1::admin_client::AdminClient;
use proto::v1::enrollment_client::EnrollmentClient;
use rustls::ClientConfig;
use rustls::time_provider::TimeProvider;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use crate::gateway::Gateway;

/// A clock that stands still.
#[derive(Debug)]
struct At(pki::UnixTime);

impl TimeProvider for At {
    fn current_time(&self) -> Option<pki::UnixTime> {
        Some(self.0)
    }
}

/// A host that joined.
pub(crate) struct Member {
    pub(crate) key: KeyPair,
    pub(crate) welcome: v1::JoinResponse,
}

/// The administration over the socket.
pub(crate) async fn admin(gateway: &Gateway) -> AdminClient<Channel> {
    AdminClient::new(channel(UnixStream::connect(&gateway.socket).await.unwrap()).await)
}

/// A token for the group of the tests.
pub(crate) async fn token(gateway: &Gateway) -> v1::JoinToken {
    let request = v1::CreateTokenRequest { group: "shop/db".to_owned(), ..v1::CreateTokenRequest::default() };
    let created = admin(gateway).await.create_token(request).await.unwrap().into_inner();
    proto::token::decode(&created.token).unwrap()
}

/// A join request as an agent makes it.
pub(crate) fn request(token: &v1::JoinToken, key: &KeyPair, name: &str) -> v1::JoinRequest {
    v1::JoinRequest {
        token_id: token.id.clone(),
        credential: Some(v1::join_request::Credential::TokenSecret(token.secret.clone())),
        csr: key.request().unwrap(),
        name: name.to_owned(),
        hostname: "host".to_owned(),
        machine: vec![7; 32],
        report: Some(v1::HostReport {
            underlay_addresses: vec![vec![192, 0, 2, 1]],
            ..v1::HostReport::default()
        }),
        agent_version: "0.1.0".to_owned(),
    }
}

/// A client that trusts whom the token pins.
pub(crate) async fn stranger(gateway: &Gateway, token: &v1::JoinToken) -> EnrollmentClient<Channel> {
    EnrollmentClient::new(tls(gateway, pinning(gateway, token)).await.unwrap())
}

/// What trusts whom the token pins.
pub(crate) fn pinning(gateway: &Gateway, token: &v1::JoinToken) -> ClientConfig {
    let pins: Vec<_> = token.root_pins.iter().map(|pin| pki::KeyHash::try_from_bytes(pin).unwrap()).collect();
    let trust_domain = token.trust_domain.parse().unwrap();
    // The gateway's own certificate is as old as the test.
    let time = Arc::new(At(issued_at(gateway)));
    pki::tls::client_by_pins(&pins, &trust_domain, time).unwrap()
}

/// Joins.
pub(crate) async fn join(gateway: &Gateway, token: &v1::JoinToken, name: &str) -> Result<Member, Status> {
    let key = KeyPair::generate().unwrap();
    let request = request(token, &key, name);
    let welcome = stranger(gateway, token).await.join(request).await?.into_inner();
    Ok(Member { key, welcome })
}

impl Member {
    /// A connection that shows the member's certificate.
    pub(crate) async fn connect(&self, gateway: &Gateway) -> EnrollmentClient<Channel> {
        EnrollmentClient::new(tls(gateway, self.config(gateway)).await.unwrap())
    }

    pub(crate) fn config(&self, gateway: &Gateway) -> ClientConfig {
        let chain = der(&self.welcome.certificate_chain);
        mutual(gateway, &self.welcome.trust_bundle, chain, &self.key)
    }

    /// Renews, and has the new certificate from then on.
    pub(crate) async fn renew(&mut self, gateway: &Gateway) -> Result<(), Status> {
        let csr = self.key.request().unwrap();
        let renewed = self.connect(gateway).await.renew(v1::RenewRequest { csr }).await?.into_inner();
        self.welcome.certificate_chain = renewed.certificate_chain;
        Ok(())
    }
}

/// Mutual TLS with any certificate.
pub(crate) fn mutual(
    gateway: &Gateway,
    bundle: &[Vec<u8>],
    chain: Vec<CertificateDer<'static>>,
    key: &KeyPair,
) -> ClientConfig {
    let bundle = TrustBundle::try_new(der(bundle)).unwrap();
    let time = Arc::new(At(issued_at(gateway)));
    let never = gateway::store::unix_time(0);
    pki::tls::client_mutual(&bundle, &gateway.trust_domain, chain, key, never, time).unwrap()
}

pub(crate) fn der(certificates: &[Vec<u8>]) -> Vec<CertificateDer<'static>> {
    certificates.iter().cloned().map(CertificateDer::from).collect()
}

/// Connects with TLS; refusals by the gateway show with the first call.
pub(crate) async fn tls(gateway: &Gateway, config: ClientConfig) -> std::io::Result<Channel> {
    let tcp = TcpStream::connect(gateway.address).await?;
    let stream = TlsConnector::from(Arc::new(config)).connect(pki::tls::server_name(), tcp).await?;
    Ok(channel(stream).await)
}

/// A time at which the gateway's own certificate is valid, however far its clock was turned.
fn issued_at(gateway: &Gateway) -> pki::UnixTime {
    gateway.begun
}

async fn channel<S>(stream: S) -> Channel
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let mut stream = Some(TokioIo::new(stream));
    let connector = tower::service_fn(move |_uri| {
        let stream = stream.take().ok_or_else(|| std::io::Error::from(std::io::ErrorKind::NotConnected));
        async move { stream }
    });
    Endpoint::from_static("http://gateway.test").connect_with_connector(connector).await.unwrap()
}
