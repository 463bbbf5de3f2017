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

/// Whose signature under a client's certificate counts; can be replaced while it serves.
#[derive(Debug)]
pub struct ClientTrust(RwLock<Arc<dyn ClientCertVerifier>>);

impl ClientTrust {
    /// Trusts the roots of a bundle.
    ///
    /// # Errors
    /// [`TlsError`] where they can verify nobody.
    pub fn try_new(bundle: &TrustBundle) -> Result<Self, TlsError> {
        Ok(Self(RwLock::new(verifier(bundle)?)))
    }

    /// Trusts these roots, and no others, from the next handshake on.
    ///
    /// # Errors
    /// [`TlsError`] where they can verify nobody; then nothing changed.
    pub fn replace(&self, bundle: &TrustBundle) -> Result<(), TlsError> {
        let verifier = verifier(bundle)?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = verifier;
        Ok(())
    }

    fn now(&self) -> Arc<dyn ClientCertVerifier> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn verifier(bundle: &TrustBundle) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let roots = Arc::new(bundle.to_store()?);
    Ok(WebPkiClientVerifier::builder_with_provider(roots, provider()).allow_unauthenticated().build()?)
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
    server_trusting(Arc::new(ClientTrust::try_new(bundle)?), trust_domain, certificate, time)
}

/// The same with roots that can be replaced.
///
/// # Errors
/// [`TlsError`] where the cryptography refuses.
pub fn server_trusting(
    trust: Arc<ClientTrust>,
    trust_domain: &TrustDomain,
    certificate: Arc<ServingCertificate>,
    time: TimeSource,
) -> Result<ServerConfig, TlsError> {
    let verifier = PeerVerifier { trust, trust_domain: trust_domain.clone() };
    let mut config = ServerConfig::builder_with_details(provider(), time)
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
    trust: Arc<ClientTrust>,
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
        // A host has one certificate, and shows it whatever is hinted.
        &[]
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
            .trust
            .now()
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
        self.trust.now().verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.trust.now().verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.trust.now().supported_verify_schemes()
    }
}
