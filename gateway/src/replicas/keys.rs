//! The keys of a term: a root that the leader makes and puts into a Secret. Whoever may read that is a gateway, to the
//! leader and to nobody else.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, PostParams};
use kube::{Client, ResourceExt as _};
use pki::tls::{ServingCertificate, TlsError};
use pki::{
    Authority, CheckedCsr, InvalidAuthority, InvalidBundle, InvalidCsr, InvalidKey, InvalidSpiffeId,
    IssueError, KeyPair, SpiffeId, TrustDomain, UnixTime,
};
use rustls::{ClientConfig, ServerConfig};

use super::ALPN;
use crate::clock::Clock;
use crate::ledger::MANAGED_BY;

/// The Secret.
const SECRET: &str = "outrigger-replicas";
const CERTIFICATE: &str = "certificate";
const KEY: &str = "key";
/// How long a certificate between replicas is valid; each connection has its own.
const LIFETIME: Duration = Duration::from_hours(24);
/// How often the leader's is made anew.
pub(super) const RENEW: Duration = Duration::from_hours(8);

/// The keys of a term.
pub struct TermKeys {
    authority: Authority,
    domain: TrustDomain,
    clock: Clock,
}

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The cluster.
    #[error("{0} Secret {SECRET}: {1}")]
    Cluster(&'static str, String),
    /// What the Secret has.
    #[error("Secret {SECRET}: {0}")]
    Content(String),
    /// Making a root.
    #[error(transparent)]
    Authority(#[from] InvalidAuthority),
    /// Making a key.
    #[error(transparent)]
    Key(#[from] InvalidKey),
    /// Making a request.
    #[error(transparent)]
    Request(#[from] InvalidCsr),
    /// Making a certificate.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// The root.
    #[error(transparent)]
    Bundle(#[from] InvalidBundle),
    /// The name of a replica.
    #[error(transparent)]
    Name(#[from] InvalidSpiffeId),
    /// TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl fmt::Debug for TermKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TermKeys").field("domain", &self.domain).finish_non_exhaustive()
    }
}

impl TermKeys {
    /// Makes new ones.
    ///
    /// # Errors
    /// [`KeysError`].
    pub fn create(domain: &TrustDomain, clock: Clock) -> Result<Self, KeysError> {
        let authority = Authority::create(domain, clock.now())?;
        Ok(Self { authority, domain: domain.clone(), clock })
    }

    /// Reads those of the Secret; `None`: there are none.
    ///
    /// # Errors
    /// [`KeysError`].
    pub async fn read(
        client: &Client,
        namespace: &str,
        domain: &TrustDomain,
        clock: Clock,
    ) -> Result<Option<Self>, KeysError> {
        let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
        let Some(secret) = api.get_opt(SECRET).await.map_err(|error| failed("get", &error))? else {
            return Ok(None);
        };
        let text = |key: &str| {
            let bytes = secret.data.as_ref().and_then(|data| data.get(key));
            let text = bytes.and_then(|bytes| String::from_utf8(bytes.0.clone()).ok());
            text.map(zeroize::Zeroizing::new).ok_or_else(|| KeysError::Content(format!("it has no `{key}`")))
        };
        let authority = Authority::from_pem(domain, &text(CERTIFICATE)?, &text(KEY)?);
        let authority = authority.map_err(|error| KeysError::Content(error.to_string()))?;
        Ok(Some(Self { authority, domain: domain.clone(), clock }))
    }

    /// Puts them into the Secret, in place of those of an earlier term.
    ///
    /// # Errors
    /// [`KeysError`].
    pub async fn write(&self, client: &Client, namespace: &str) -> Result<(), KeysError> {
        let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
        let found = api.get_opt(SECRET).await.map_err(|error| failed("get", &error))?;
        let is_new = found.is_none();
        let mut secret = found.unwrap_or_else(|| {
            let mut secret = Secret::default();
            secret.metadata.name = Some(SECRET.to_owned());
            secret.metadata.namespace = Some(namespace.to_owned());
            secret.labels_mut().insert(MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned());
            secret
        });
        let certificate = self.authority.certificate_pem().into_bytes();
        let key = self.authority.key_pem().as_bytes().to_vec();
        let data = [(CERTIFICATE, certificate), (KEY, key)];
        secret.data = Some(data.map(|(name, bytes)| (name.to_owned(), ByteString(bytes))).into());
        let written = if is_new {
            api.create(&PostParams::default(), &secret).await
        } else {
            api.replace(SECRET, &PostParams::default(), &secret).await
        };
        written.map(drop).map_err(|error| failed(if is_new { "create" } else { "update" }, &error))
    }

    /// What the leader shows.
    ///
    /// # Errors
    /// [`KeysError`].
    pub fn serving(&self) -> Result<Arc<ServingCertificate>, KeysError> {
        let (chain, key) = self.certificate()?;
        Ok(Arc::new(ServingCertificate::try_new(chain, &key)?))
    }

    /// Makes what the leader shows anew.
    ///
    /// # Errors
    /// [`KeysError`]; then it still shows the old one.
    pub fn renew(&self, serving: &ServingCertificate) -> Result<(), KeysError> {
        let (chain, key) = self.certificate()?;
        Ok(serving.replace(chain, &key)?)
    }

    /// How the leader listens to replicas.
    ///
    /// # Errors
    /// [`KeysError`].
    pub fn server(&self, serving: Arc<ServingCertificate>) -> Result<ServerConfig, KeysError> {
        let bundle = self.authority.bundle()?;
        let mut config = pki::tls::server(&bundle, &self.domain, serving, self.clock.source())?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(config)
    }

    /// How a replica speaks to the leader.
    ///
    /// # Errors
    /// [`KeysError`].
    pub fn client(&self) -> Result<ClientConfig, KeysError> {
        let (chain, key) = self.certificate()?;
        let bundle = self.authority.bundle()?;
        let long_ago = UnixTime::since_unix_epoch(Duration::ZERO);
        let mut config =
            pki::tls::client_mutual(&bundle, &self.domain, chain, &key, long_ago, self.clock.source())?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(config)
    }

    #[cfg(test)]
    pub(super) fn copy(&self) -> Self {
        let (certificate, key) = (self.authority.certificate_pem(), self.authority.key_pem());
        let authority = Authority::from_pem(&self.domain, &certificate, &key).unwrap();
        Self { authority, domain: self.domain.clone(), clock: self.clock.clone() }
    }

    #[cfg(test)]
    pub(super) fn pin(&self) -> pki::KeyHash {
        self.authority.pin()
    }

    fn certificate(&self) -> Result<(Vec<pki::CertificateDer<'static>>, KeyPair), KeysError> {
        let key = KeyPair::generate()?;
        let csr = CheckedCsr::from_der(&key.request()?)?;
        let id = SpiffeId::gateway(&self.domain, "replica")?;
        let mut chain = self.authority.issue(&csr, &id, self.clock.now(), LIFETIME)?.chain;
        chain.push(self.authority.certificate().clone());
        Ok((chain, key))
    }
}

fn failed(verb: &'static str, error: &kube::Error) -> KeysError {
    let reason =
        if let kube::Error::Api(status) = error { status.message.clone() } else { error.to_string() };
    KeysError::Cluster(verb, reason)
}
