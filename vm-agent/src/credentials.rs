//! The key, the certificate and the roots of this host.

use std::sync::Arc;
use std::time::Duration;

use pki::{CertificateDer, KeyPair, SpiffeId, Svid, TrustBundle, UnixTime};
use zeroize::Zeroizing;

use crate::state_dir::{StateDir, StateError, StateFile};

/// What this host shows to gateways, and whom it trusts.
#[derive(Clone)]
pub struct Credentials {
    key: Arc<KeyPair>,
    chain: Vec<CertificateDer<'static>>,
    bundle: TrustBundle,
    svid: Svid,
}

/// Credentials that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidCredentials {
    /// A file cannot be read or written.
    #[error(transparent)]
    State(#[from] StateError),
    /// A file is missing.
    #[error("{0} is missing from the state folder")]
    Missing(&'static str),
    /// A file is not what an agent writes.
    #[error("{file} of the state folder: {reason}")]
    Content {
        /// The file.
        file: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The gateway gave no certificate, or one that is not for this host.
    #[error("the gateway gave an unusable certificate: {0}")]
    Given(String),
}

impl Credentials {
    /// What a gateway gave for a key, in DER.
    ///
    /// # Errors
    /// [`InvalidCredentials::Given`] where it is no certificate of this key, or no root.
    pub fn given(
        key: Arc<KeyPair>,
        chain: Vec<Vec<u8>>,
        bundle: Vec<Vec<u8>>,
    ) -> Result<Self, InvalidCredentials> {
        let bundle = TrustBundle::try_new(bundle.into_iter().map(CertificateDer::from).collect())
            .map_err(|error| InvalidCredentials::Given(error.to_string()))?;
        Self::try_new(key, chain.into_iter().map(CertificateDer::from).collect(), bundle)
            .map_err(InvalidCredentials::Given)
    }

    fn try_new(
        key: Arc<KeyPair>,
        chain: Vec<CertificateDer<'static>>,
        bundle: TrustBundle,
    ) -> Result<Self, String> {
        let leaf = chain.first().ok_or_else(|| "there is no certificate".to_owned())?;
        let svid = Svid::from_der(leaf).map_err(|error| error.to_string())?;
        if svid.key_hash() != key.hash() {
            return Err("the certificate is for another key".to_owned());
        }
        Ok(Self { key, chain, bundle, svid })
    }

    /// Reads them.
    ///
    /// # Errors
    /// [`InvalidCredentials`], naming the file.
    pub fn load(state: &StateDir) -> Result<Self, InvalidCredentials> {
        let key = text(state, StateFile::Key)?;
        let content =
            |file: StateFile| move |reason: String| InvalidCredentials::Content { file: file.name(), reason };
        let key = KeyPair::from_pem(&key).map_err(|error| content(StateFile::Key)(error.to_string()))?;
        let chain = pki_certificates(&text(state, StateFile::Certificate)?)
            .map_err(content(StateFile::Certificate))?;
        let bundle = TrustBundle::from_pem(&text(state, StateFile::Bundle)?)
            .map_err(|error| content(StateFile::Bundle)(error.to_string()))?;
        Self::try_new(Arc::new(key), chain, bundle).map_err(content(StateFile::Certificate))
    }

    /// Writes certificate and roots. The key is written before it is used, by [`save_key`].
    ///
    /// # Errors
    /// [`StateError::Write`].
    pub fn save(&self, state: &StateDir) -> Result<(), StateError> {
        state.write(StateFile::Bundle, self.bundle.to_pem().as_bytes())?;
        state.write(StateFile::Certificate, pki::certificates_to_pem(&self.chain).as_bytes())
    }

    /// The TLS configuration of this host. A clock before `not_earlier` is not believed.
    ///
    /// # Errors
    /// What TLS says.
    pub fn tls(
        &self,
        not_earlier: UnixTime,
        time: pki::TimeSource,
    ) -> Result<rustls::ClientConfig, pki::tls::TlsError> {
        let domain = self.svid.id().trust_domain();
        pki::tls::client_mutual(&self.bundle, domain, self.chain.clone(), &self.key, not_earlier, time)
    }

    /// Whom the certificate names.
    #[must_use]
    pub const fn id(&self) -> &SpiffeId {
        self.svid.id()
    }

    /// The key.
    #[must_use]
    pub const fn key(&self) -> &Arc<KeyPair> {
        &self.key
    }

    /// Until when the certificate is valid.
    #[must_use]
    pub const fn expires(&self) -> UnixTime {
        self.svid.not_after()
    }

    /// The name of the trust domain.
    #[must_use]
    pub fn trust_domain(&self) -> String {
        self.svid.id().trust_domain().to_string()
    }

    /// How long the certificate is valid from `now` on; zero once it expired.
    #[must_use]
    pub fn remaining(&self, now: UnixTime) -> Duration {
        Duration::from_secs(self.expires().as_secs().saturating_sub(now.as_secs()))
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("svid", &self.svid).finish_non_exhaustive()
    }
}

/// Writes a new key.
///
/// # Errors
/// [`StateError::Write`].
pub fn save_key(key: &KeyPair, state: &StateDir) -> Result<(), StateError> {
    state.write(StateFile::Key, key.to_pem().as_bytes())
}

fn pki_certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    pki::certificates_from_pem(pem).map_err(|error| error.to_string())
}

fn text(state: &StateDir, file: StateFile) -> Result<Zeroizing<String>, InvalidCredentials> {
    let bytes = state.read(file)?.ok_or(InvalidCredentials::Missing(file.name()))?;
    let text = std::str::from_utf8(&bytes).map_err(|_binary| InvalidCredentials::Content {
        file: file.name(),
        reason: "it is no text".to_owned(),
    })?;
    Ok(Zeroizing::new(text.to_owned()))
}
