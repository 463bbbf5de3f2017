//! The host's side: it accepts gateways of one trust domain and nothing else.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::CryptoProvider;
use rustls::server::ParsedCertificate;
use rustls::{
    ClientConfig, ConfigBuilder, DigitallySignedStruct, RootCertStore, SignatureScheme, WantsVerifier,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::{ALPN, PeerRefusal, TlsError, provider, refusal};
use crate::TimeSource;
use crate::bundle::{TrustBundle, certificate_key_hash};
use crate::key::{KeyHash, KeyPair};
use crate::spiffe::{Principal, TrustDomain};
use crate::svid::Svid;

/// For joining: the server must be a gateway of the token's trust domain, with a chain that ends in a root whose key
/// the token pins. Nothing proves who the client is; the token's secret does that, inside.
///
/// # Errors
/// [`TlsError`]; no pins are an error, never trust in everybody.
pub fn client_by_pins(
    pins: &[KeyHash],
    trust_domain: &TrustDomain,
    time: TimeSource,
) -> Result<ClientConfig, TlsError> {
    if pins.is_empty() {
        return Err(TlsError::NoPins);
    }
    let trust = Trust::Pins(pins.to_vec());
    let config =
        with_trust(trust, trust_domain, UnixTime::since_unix_epoch(std::time::Duration::ZERO), time)?;
    Ok(finish(config.with_no_client_auth()))
}

/// For everything else: the server must be a gateway of the trust domain with a chain to the bundle; the client shows
/// its certificate. `not_earlier` is a time that has certainly passed (that of the last snapshot): a clock that is
/// behind it is not believed.
///
/// # Errors
/// [`TlsError`] where the certificate and the key do not fit.
pub fn client_mutual(
    bundle: &TrustBundle,
    trust_domain: &TrustDomain,
    chain: Vec<CertificateDer<'static>>,
    key: &KeyPair,
    not_earlier: UnixTime,
    time: TimeSource,
) -> Result<ClientConfig, TlsError> {
    let trust = Trust::Roots(bundle.to_store()?);
    let config = with_trust(trust, trust_domain, not_earlier, time)?;
    Ok(finish(config.with_client_auth_cert(chain, key.to_der())?))
}

/// Whose signature counts.
#[derive(Debug)]
enum Trust {
    /// Any root with one of these keys.
    Pins(Vec<KeyHash>),
    /// These roots.
    Roots(RootCertStore),
}

#[derive(Debug)]
struct GatewayVerifier {
    trust: Trust,
    trust_domain: TrustDomain,
    not_earlier: UnixTime,
    provider: Arc<CryptoProvider>,
}

fn with_trust(
    trust: Trust,
    trust_domain: &TrustDomain,
    not_earlier: UnixTime,
    time: TimeSource,
) -> Result<ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>, TlsError> {
    let provider = provider();
    let builder: ConfigBuilder<ClientConfig, WantsVerifier> =
        ClientConfig::builder_with_details(provider.clone(), time)
            .with_protocol_versions(&[&rustls::version::TLS13])?;
    let verifier = GatewayVerifier { trust, trust_domain: trust_domain.clone(), not_earlier, provider };
    Ok(builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)))
}

fn finish(mut config: ClientConfig) -> ClientConfig {
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    config
}

impl GatewayVerifier {
    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        clock: UnixTime,
    ) -> Result<(), PeerRefusal> {
        let svid = Svid::from_der(leaf)?;
        self.verify_chain(&svid, leaf, others, clock)?;
        if svid.id().trust_domain() != &self.trust_domain {
            let expected = self.trust_domain.clone();
            return Err(PeerRefusal::TrustDomain { id: svid.id().clone(), expected });
        }
        if !matches!(svid.id().principal(), Principal::Gateway { .. }) {
            return Err(PeerRefusal::NotGateway(svid.id().clone()));
        }
        refusal::check_time(&svid, clock)
    }

    /// Whether the chain is signed by whom we trust; its time is looked at afterwards, for a better message.
    fn verify_chain(
        &self,
        svid: &Svid,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        clock: UnixTime,
    ) -> Result<(), PeerRefusal> {
        let chain =
            |reason: &rustls::Error| PeerRefusal::Chain { id: svid.id().clone(), reason: reason.to_string() };
        let parsed = ParsedCertificate::try_from(leaf).map_err(|e| chain(&e))?;
        let time = clock.min(svid.not_after()).max(svid.not_before());
        let pinned;
        let roots = match &self.trust {
            Trust::Roots(roots) => roots,
            Trust::Pins(pins) => {
                pinned = pinned_roots(pins, others)?;
                &pinned
            }
        };
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, roots, others, time, algorithms)
            .map_err(|e| chain(&e))
    }
}

/// The presented certificates whose key is pinned. Another name or validity around a pinned key gains nothing: the leaf
/// must be signed by that key.
fn pinned_roots(pins: &[KeyHash], presented: &[CertificateDer<'_>]) -> Result<RootCertStore, PeerRefusal> {
    let mut roots = RootCertStore::empty();
    let is_pinned =
        |root: &&CertificateDer<'_>| certificate_key_hash(root).is_some_and(|key| pins.contains(&key));
    for root in presented.iter().filter(is_pinned) {
        roots.add(root.clone().into_owned()).map_err(|_unusable| PeerRefusal::Pin)?;
    }
    if roots.is_empty() { Err(PeerRefusal::Pin) } else { Ok(roots) }
}

impl ServerCertVerifier for GatewayVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.verify(end_entity, intermediates, now.max(self.not_earlier))?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::PeerIncompatible(rustls::PeerIncompatible::Tls12NotOffered))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
