//! Handshakes in memory: who is accepted, who is refused, and with which words.

use std::sync::Arc;
use std::time::Duration;

use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, ClientConnection, ServerConnection};
use rustls_pki_types::UnixTime;

use super::*;
use crate::testing::{self, HOUR, NOW, domain, uri};
use crate::{Authority, CertificateDer, SpiffeId, TimeSource, TrustDomain};

#[derive(Debug)]
struct Fixed(UnixTime);

impl TimeProvider for Fixed {
    fn current_time(&self) -> Option<UnixTime> {
        Some(self.0)
    }
}

fn at(time: UnixTime) -> TimeSource {
    Arc::new(Fixed(time))
}

fn after(time: Duration) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(NOW.as_secs()) + time)
}

fn before(time: Duration) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(NOW.as_secs()).saturating_sub(time))
}

/// A gateway with a certificate of `authority`, which trusts the authority of the tests.
fn gateway(authority: &Authority, time: UnixTime) -> rustls::ServerConfig {
    let mut chain = testing::gateway_svid(authority, NOW).chain;
    chain.push(authority.certificate().clone());
    serve(chain, time)
}

fn serve(chain: Vec<CertificateDer<'static>>, time: UnixTime) -> rustls::ServerConfig {
    let certificate = ServingCertificate::try_new(chain, &testing::key()).unwrap();
    server(&testing::authority().bundle().unwrap(), &domain(), Arc::new(certificate), at(time)).unwrap()
}

fn joining(time: UnixTime) -> ClientConfig {
    client_by_pins(&[testing::authority().pin()], &domain(), at(time)).unwrap()
}

fn member(chain: Vec<CertificateDer<'static>>, not_earlier: UnixTime, time: UnixTime) -> ClientConfig {
    let bundle = testing::authority().bundle().unwrap();
    client_mutual(&bundle, &domain(), chain, &testing::key(), not_earlier, at(time)).unwrap()
}

fn workload(time: UnixTime) -> Vec<CertificateDer<'static>> {
    testing::workload_svid(&testing::authority(), time).chain
}

/// Lets both talk until they are done, or one refuses the other.
fn handshake(client: ClientConfig, server: rustls::ServerConfig) -> Result<ServerConnection, PeerRefusal> {
    let mut client = ClientConnection::new(Arc::new(client), server_name()).unwrap();
    let mut server = ServerConnection::new(Arc::new(server)).unwrap();
    let said = |error: rustls::Error| refusal(&error).expect("an error in our own words");
    for _ in 0..8 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        server.read_tls(&mut wire.as_slice()).unwrap();
        server.process_new_packets().map_err(said)?;
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        client.read_tls(&mut wire.as_slice()).unwrap();
        client.process_new_packets().map_err(said)?;
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok(server)
}

#[test]
fn a_joining_host_accepts_the_pinned_gateway_without_showing_a_certificate() {
    let server = handshake(joining(NOW), gateway(&testing::authority(), NOW)).unwrap();
    assert!(server.peer_certificates().is_none());
    assert_eq!(server.alpn_protocol(), Some(&b"h2"[..]));
}

#[test]
fn a_member_and_a_gateway_accept_each_other() {
    let server = handshake(member(workload(NOW), NOW, NOW), gateway(&testing::authority(), NOW)).unwrap();
    let svid = crate::Svid::from_der(&server.peer_certificates().unwrap()[0]).unwrap();
    assert_eq!(svid.id(), &testing::workload_id());
}

#[test]
fn another_root_is_refused_by_pin_and_by_bundle() {
    let wrong = || gateway(&testing::other_authority(), NOW);
    assert_eq!(handshake(joining(NOW), wrong()).unwrap_err(), PeerRefusal::Pin);
    let refused = handshake(member(workload(NOW), NOW, NOW), wrong()).unwrap_err();
    assert!(matches!(refused, PeerRefusal::Chain { .. }), "{refused}");
}

#[test]
fn a_chain_that_only_shows_the_pinned_root_is_refused() {
    let mut chain = testing::gateway_svid(&testing::other_authority(), NOW).chain;
    chain.push(testing::authority().certificate().clone());
    let refused = handshake(joining(NOW), serve(chain, NOW)).unwrap_err();
    assert!(matches!(refused, PeerRefusal::Chain { .. }), "{refused}");
    let alone = testing::gateway_svid(&testing::authority(), NOW).chain;
    assert_eq!(handshake(joining(NOW), serve(alone, NOW)).unwrap_err(), PeerRefusal::Pin);
}

#[test]
fn only_a_gateway_of_the_trust_domain_can_serve() {
    let mut chain = workload(NOW);
    chain.push(testing::authority().certificate().clone());
    let refused = handshake(joining(NOW), serve(chain.clone(), NOW)).unwrap_err();
    assert_eq!(refused, PeerRefusal::NotGateway(testing::workload_id()));
    let refused = handshake(member(workload(NOW), NOW, NOW), serve(chain, NOW)).unwrap_err();
    assert_eq!(refused, PeerRefusal::NotGateway(testing::workload_id()));

    let elsewhere = TrustDomain::try_new("elsewhere").unwrap();
    let client = client_by_pins(&[testing::authority().pin()], &elsewhere, at(NOW)).unwrap();
    let refused = handshake(client, gateway(&testing::authority(), NOW)).unwrap_err();
    assert!(matches!(refused, PeerRefusal::TrustDomain { .. }), "{refused}");
}

#[test]
fn a_client_of_another_root_or_trust_domain_is_refused() {
    let chain = testing::workload_svid(&testing::other_authority(), NOW).chain;
    let refused = handshake(member(chain, NOW, NOW), gateway(&testing::authority(), NOW)).unwrap_err();
    assert!(matches!(refused, PeerRefusal::Chain { .. }), "{refused}");

    let chain = vec![testing::forged(vec![uri("spiffe://elsewhere/ns/payments/ew/db")])];
    let refused = handshake(member(chain, NOW, NOW), gateway(&testing::authority(), NOW)).unwrap_err();
    assert!(matches!(refused, PeerRefusal::TrustDomain { .. }), "{refused}");
}

#[test]
fn a_client_with_no_or_two_names_is_refused() {
    let two = vec![uri(&testing::workload_id().to_string()), uri("spiffe://outrigger.local/admin/root")];
    for names in [vec![], two] {
        let chain = vec![testing::forged(names)];
        let refused = handshake(member(chain, NOW, NOW), gateway(&testing::authority(), NOW)).unwrap_err();
        assert!(matches!(refused, PeerRefusal::Svid(_)), "{refused}");
    }
}

#[test]
fn an_expired_client_passes_the_handshake_and_one_from_the_future_does_not() {
    let late = after(1000 * HOUR);
    let mut chain = testing::authority()
        .issue(&testing::csr(), &SpiffeId::gateway(&domain(), "g").unwrap(), late, HOUR)
        .unwrap()
        .chain;
    chain.push(testing::authority().certificate().clone());
    assert!(handshake(member(workload(NOW), NOW, late), serve(chain, late)).is_ok());

    let early = workload(after(2 * HOUR));
    let refused = handshake(member(early, NOW, NOW), gateway(&testing::authority(), NOW)).unwrap_err();
    assert!(matches!(refused, PeerRefusal::NotYetValid { .. }), "{refused}");
}

#[test]
fn a_wrong_clock_is_told_with_both_times() {
    let behind = handshake(joining(before(24 * HOUR)), gateway(&testing::authority(), NOW)).unwrap_err();
    assert!(matches!(behind, PeerRefusal::NotYetValid { .. }), "{behind}");
    let text = behind.to_string();
    assert!(text.contains("2025-12-31T23:55:00Z") && text.contains("2025-12-31T00:00:00Z"), "{text}");

    let ahead = handshake(joining(after(24 * HOUR)), gateway(&testing::authority(), NOW)).unwrap_err();
    assert!(matches!(ahead, PeerRefusal::Expired { .. }), "{ahead}");
}

#[test]
fn a_clock_that_went_back_is_not_believed() {
    let behind = before(24 * HOUR);
    assert!(handshake(member(workload(NOW), NOW, behind), gateway(&testing::authority(), NOW)).is_ok());
    // Nor does going back make an expired gateway valid.
    let refused =
        handshake(member(workload(NOW), after(24 * HOUR), NOW), gateway(&testing::authority(), NOW));
    assert!(matches!(refused.unwrap_err(), PeerRefusal::Expired { .. }));
}

#[test]
fn nothing_pinned_is_no_configuration() {
    assert!(matches!(client_by_pins(&[], &domain(), at(NOW)), Err(TlsError::NoPins)));
}

#[test]
fn a_certificate_of_another_key_is_no_configuration() {
    let other = crate::KeyPair::generate().unwrap();
    assert!(ServingCertificate::try_new(workload(NOW), &other).is_err());
}

#[test]
fn a_replaced_certificate_is_shown_at_once() {
    let mut chain = testing::gateway_svid(&testing::authority(), NOW).chain;
    chain.push(testing::authority().certificate().clone());
    let serving = Arc::new(ServingCertificate::try_new(chain, &testing::key()).unwrap());
    let bundle = testing::authority().bundle().unwrap();
    let config = server(&bundle, &domain(), serving.clone(), at(after(48 * HOUR))).unwrap();
    let late = after(48 * HOUR);
    assert!(handshake(joining(late), config.clone()).is_err());
    let mut fresh = testing::gateway_svid(&testing::authority(), late).chain;
    fresh.push(testing::authority().certificate().clone());
    serving.replace(fresh, &testing::key()).unwrap();
    assert!(handshake(joining(late), config).is_ok());
}
