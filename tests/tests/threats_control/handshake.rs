//! Handshakes in memory with what no gateway of the mesh would show: each is refused, for its reason.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pki::tls::{PeerRefusal, ServingCertificate, TlsError, client_by_pins, client_mutual, refusal, server};
use pki::{Authority, CertificateDer, CheckedCsr, KeyPair, SpiffeId, TrustBundle, TrustDomain, UnixTime};
use proto::v1::JoinToken;
use rustls::{ClientConfig, ClientConnection, ServerConnection};

const HOUR: Duration = Duration::from_hours(1);

/// An authority with a gateway, and a workload that joined it.
struct Mesh {
    domain: TrustDomain,
    authority: Authority,
    key: KeyPair,
    now: UnixTime,
}

impl Mesh {
    fn of(domain: &str) -> Result<Self> {
        let domain = TrustDomain::try_new(domain)?;
        let now = pki::system_time().current_time().context("no clock")?;
        let authority = Authority::create(&domain, now)?;
        Ok(Self { domain, authority, key: KeyPair::generate()?, now })
    }

    fn certificate(&self, id: &SpiffeId) -> Result<Vec<CertificateDer<'static>>> {
        let csr = CheckedCsr::from_der(&self.key.request()?)?;
        Ok(self.authority.issue(&csr, id, self.now, HOUR)?.chain)
    }

    fn gateway(&self) -> Result<Vec<CertificateDer<'static>>> {
        self.certificate(&SpiffeId::gateway(&self.domain, "gateway-1")?)
    }

    fn workload(&self) -> Result<Vec<CertificateDer<'static>>> {
        self.certificate(&SpiffeId::workload(&self.domain, "shop", "db-1")?)
    }

    /// Serves with a certificate, as whoever has its key can.
    fn serve(&self, mut chain: Vec<CertificateDer<'static>>) -> Result<rustls::ServerConfig> {
        chain.push(self.authority.certificate().clone());
        let certificate = Arc::new(ServingCertificate::try_new(chain, &self.key)?);
        Ok(server(&self.authority.bundle()?, &self.domain, certificate, pki::system_time())?)
    }

    /// A host that has only a token.
    fn joining(&self) -> Result<ClientConfig> {
        Ok(client_by_pins(&[self.authority.pin()], &self.domain, pki::system_time())?)
    }

    /// A host that shows a certificate.
    fn member(&self, chain: Vec<CertificateDer<'static>>) -> Result<ClientConfig> {
        let bundle = self.authority.bundle()?;
        Ok(client_mutual(&bundle, &self.domain, chain, &self.key, self.now, pki::system_time())?)
    }
}

/// Lets both talk; how it ended, in the words of the one who refused.
fn handshake(client: ClientConfig, server: rustls::ServerConfig) -> Result<Result<(), Option<PeerRefusal>>> {
    let mut client = ClientConnection::new(Arc::new(client), pki::tls::server_name())?;
    let mut server = ServerConnection::new(Arc::new(server))?;
    for _ in 0..8 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire)?;
        }
        server.read_tls(&mut wire.as_slice())?;
        if let Err(error) = server.process_new_packets() {
            return Ok(Err(refusal(&error)));
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire)?;
        }
        client.read_tls(&mut wire.as_slice())?;
        if let Err(error) = client.process_new_packets() {
            return Ok(Err(refusal(&error)));
        }
    }
    ensure!(!client.is_handshaking() && !server.is_handshaking(), "the handshake did not end");
    Ok(Ok(()))
}

/// What refused the handshake.
fn refused(client: ClientConfig, server: rustls::ServerConfig) -> Result<PeerRefusal> {
    let ended = handshake(client, server)?;
    ended.err().context("accepted")?.context("refused without a reason of ours")
}

#[test]
fn threat_53_only_a_gateway_of_the_mesh_is_one() -> Result<()> {
    let (ours, other, foreign) = (Mesh::of("a.example")?, Mesh::of("a.example")?, Mesh::of("b.example")?);
    let clients = || -> Result<[ClientConfig; 2]> { Ok([ours.joining()?, ours.member(ours.workload()?)?]) };
    for client in clients()? {
        let ended = handshake(client, ours.serve(ours.gateway()?)?)?;
        ensure!(ended.is_ok(), "the gateway is refused: {ended:?}");
    }
    for client in clients()? {
        // Any host that joined has a certificate of the same authority.
        let seen = refused(client, ours.serve(ours.workload()?)?)?;
        ensure!(matches!(seen, PeerRefusal::NotGateway(_)), "a workload as gateway: {seen}");
    }
    for client in clients()? {
        let admin = ours.certificate(&SpiffeId::admin(&ours.domain, "root")?)?;
        let seen = refused(client, ours.serve(admin)?)?;
        ensure!(matches!(seen, PeerRefusal::NotGateway(_)), "an administrator as gateway: {seen}");
    }
    for wrong in [&other, &foreign] {
        for client in clients()? {
            let seen = refused(client, wrong.serve(wrong.gateway()?)?)?;
            ensure!(
                matches!(seen, PeerRefusal::Pin | PeerRefusal::Chain { .. }),
                "another authority: {seen}"
            );
        }
    }
    // The right root beside a certificate of another authority.
    let mut chain = other.gateway()?;
    chain.push(ours.authority.certificate().clone());
    let seen = refused(ours.joining()?, other.serve(chain)?)?;
    ensure!(matches!(seen, PeerRefusal::Chain { .. }), "a root that is only shown: {seen}");
    let elsewhere = client_by_pins(&[ours.authority.pin()], &foreign.domain, pki::system_time())?;
    let seen = refused(elsewhere, ours.serve(ours.gateway()?)?)?;
    ensure!(matches!(seen, PeerRefusal::TrustDomain { .. }), "another trust domain: {seen}");
    Ok(())
}

#[test]
fn threat_53_nobody_is_trusted_where_nobody_is_named() -> Result<()> {
    let ours = Mesh::of("a.example")?;
    let unpinned = client_by_pins(&[], &ours.domain, pki::system_time());
    ensure!(matches!(unpinned, Err(TlsError::NoPins)), "{unpinned:?}");
    ensure!(TrustBundle::try_new(Vec::new()).is_err(), "a bundle of no roots");
    let mut token = JoinToken {
        gateways: vec!["192.0.2.1:7443".to_owned()],
        root_pins: vec![ours.authority.pin().as_bytes().to_vec()],
        trust_domain: "a.example".to_owned(),
        id: "0123456789ab".to_owned(),
        secret: vec![7; proto::token::SECRET_BYTES],
    };
    let read = |token: &JoinToken| {
        use secrecy::ExposeSecret as _;
        proto::token::decode(proto::token::encode(token).expose_secret())
    };
    ensure!(read(&token).is_ok(), "the token as it is");
    for pins in [vec![], vec![vec![]], vec![vec![0; 31]]] {
        token.root_pins = pins;
        ensure!(read(&token).is_err(), "a token that names no root: {token:?}");
    }
    Ok(())
}

#[test]
fn threat_56_no_changed_byte_makes_another_certificate() -> Result<()> {
    let ours = Mesh::of("a.example")?;
    let chain = ours.workload()?;
    let ended = handshake(ours.member(chain.clone())?, ours.serve(ours.gateway()?)?)?;
    ensure!(ended.is_ok(), "{ended:?}");
    let good = chain.first().context("a certificate")?.to_vec();
    for (at, flipped) in (0..good.len()).zip([1_u8, 0x80, 0xff].into_iter().cycle()) {
        let mut bad = good.clone();
        bad[at] ^= flipped;
        // The algorithm's name, the names, the key, the time, the signature: everything is signed, or is refused.
        let Ok(client) = ours.member(vec![CertificateDer::from(bad)]) else { continue };
        let ended = handshake(client, ours.serve(ours.gateway()?)?)?;
        ensure!(ended.is_err(), "byte {at} changed by {flipped:#x} is accepted");
    }
    Ok(())
}

#[test]
fn threat_56_certificates_of_others_are_refused() -> Result<()> {
    let (ours, other, foreign) = (Mesh::of("a.example")?, Mesh::of("a.example")?, Mesh::of("b.example")?);
    for wrong in [&other, &foreign] {
        let bundle = ours.authority.bundle()?;
        let client = client_mutual(
            &bundle,
            &ours.domain,
            wrong.workload()?,
            &wrong.key,
            ours.now,
            pki::system_time(),
        )?;
        let seen = refused(client, ours.serve(ours.gateway()?)?)?;
        let named = matches!(seen, PeerRefusal::Chain { .. } | PeerRefusal::TrustDomain { .. });
        ensure!(named, "of another authority: {seen}");
    }
    // A leaf that signs itself, with the right name.
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let mut wishes = rcgen::CertificateParams::default();
    wishes.subject_alt_names = vec![rcgen::SanType::URI("spiffe://a.example/ns/shop/ew/db-1".try_into()?)];
    let own = wishes.self_signed(&key)?;
    let key = KeyPair::from_pem(&key.serialize_pem())?;
    let chain = vec![own.der().clone()];
    let bundle = ours.authority.bundle()?;
    let client = client_mutual(&bundle, &ours.domain, chain, &key, ours.now, pki::system_time())?;
    let seen = refused(client, ours.serve(ours.gateway()?)?)?;
    ensure!(matches!(seen, PeerRefusal::Chain { .. }), "signed by itself: {seen}");
    Ok(())
}
