//! The gateway's side: a client may show a certificate; what it shows must be an SVID of the trust domain.

use std::sync::{Arc, PoisonError, RwLock};

use rustls::client::danger::HandshakeSignatureValid;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};

use super::{ALPN, PeerRefusal, TlsError, provider, refusal};
use crate::TimeSource;
use crate::bundle::TrustBundle;
use crate::key::KeyPair;
use crate::spiffe::TrustDomain;
use crate::svid::Svid;

/// The certificate a server shows; can be replaced while it serves.
#[derive(Debug)]
pub struct ServingCertificate(RwLock<Arc<CertifiedKey>>);

impl ServingCertificate {
    /// Takes a chain (leaf first; with the root, so that a host that joins can compare it with its pin) and its key.
    ///
    /// # Errors
    /// [`TlsError`] where they do not fit.
    pub fn try_new(chain: Vec<CertificateDer<'static>>, key: &KeyPair) -> Result<Self, TlsError> {
        Ok(Self(RwLock::new(certified(chain, key)?)))
    }

    /// Shows another certificate from the next handshake on.
    ///
    /// # Errors
    /// [`TlsError`] where chain and key do not fit; the old one is shown then.
    pub fn replace(&self, chain: Vec<CertificateDer<'static>>, key: &KeyPair) -> Result<(), TlsError> {
        let certified = certified(chain, key)?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = certified;
        Ok(())
    }
}

impl ResolvesServerCert for ServingCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

/// Serves TLS. A client without a certificate is let in: it may join. One with a certificate must have a chain to the
/// bundle and a SPIFFE id of the trust domain. A certificate that has expired passes here: how long it may still be
/// renewed is decided by the call.
///
/// # Errors
/// [`TlsError`] where the roots can verify nobody.
pub fn server(
    bundle: &TrustBundle,
    trust_domain: &TrustDomain,
    certificate: Arc<ServingCertificate>,
    time: TimeSource,
) -> Result<ServerConfig, TlsError> {
    let provider = provider();
    let chain = WebPkiClientVerifier::builder_with_provider(Arc::new(bundle.to_store()?), provider.clone())
        .allow_unauthenticated()
        .build()?;
    let verifier = PeerVerifier { chain, trust_domain: trust_domain.clone() };
    let mut config = ServerConfig::builder_with_details(provider, time)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

fn certified(chain: Vec<CertificateDer<'static>>, key: &KeyPair) -> Result<Arc<CertifiedKey>, TlsError> {
    Ok(Arc::new(CertifiedKey::from_der(chain, key.to_der(), &provider())?))
}

#[derive(Debug)]
struct PeerVerifier {
    chain: Arc<dyn ClientCertVerifier>,
    trust_domain: TrustDomain,
}

impl ClientCertVerifier for PeerVerifier {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let svid = Svid::from_der(end_entity).map_err(PeerRefusal::from)?;
        if svid.id().trust_domain() != &self.trust_domain {
            let expected = self.trust_domain.clone();
            return Err(PeerRefusal::TrustDomain { id: svid.id().clone(), expected }.into());
        }
        let time = now.min(svid.not_after());
        let verified = self
            .chain
            .verify_client_cert(end_entity, intermediates, time.max(svid.not_before()))
            .map_err(|e| PeerRefusal::Chain { id: svid.id().clone(), reason: e.to_string() })?;
        refusal::check_time(&svid, time)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}
