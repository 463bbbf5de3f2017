//! Enrollment and administration over real TLS: who gets in, who is refused, and with which words.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod flood;
mod gateway;
mod host;
mod rotation;
mod vault;

use std::time::Duration;

use pki::{CheckedCsr, KeyPair, SpiffeId};
use proto::v1;
use proto::v1::admin_client::AdminClient;
use proto::v1::enrollment_client::EnrollmentClient;
use tonic::{Code, Status};

use crate::gateway::{GRACE, Gateway, STRANGER, TTL};
use crate::host::{Member, admin, join, request, stranger, tls, token};

const HOUR: Duration = Duration::from_hours(1);

fn refused(status: &Status, code: Code, words: &[&str]) {
    assert_eq!(status.code(), code, "{status}");
    for word in words {
        assert!(status.message().contains(word), "{word:?} is not in: {}", status.message());
    }
}

async fn member(gateway: &Gateway, name: &str) -> Member {
    join(gateway, &token(gateway).await, name).await.unwrap()
}

async fn replacement(gateway: &Gateway, name: &str) -> v1::JoinToken {
    let request =
        v1::ReplaceWorkloadRequest { namespace: "shop".to_owned(), name: name.to_owned(), ttl_seconds: 0 };
    let created = admin(gateway).await.replace_workload(request).await.unwrap().into_inner();
    proto::token::decode(&created.token).unwrap()
}

#[tokio::test]
async fn a_token_lets_one_host_join() {
    let gateway = Gateway::start().await;
    let token = token(&gateway).await;
    assert_eq!(token.gateways, [gateway.address.to_string()]);
    let member = join(&gateway, &token, "").await.unwrap();
    assert_eq!((member.welcome.namespace.as_str(), member.welcome.name.as_str()), ("shop", "host"));
    assert_eq!(member.welcome.mesh_addresses[0], [10, 9, 0, 2]);
    let svid = pki::Svid::from_der(&host::der(&member.welcome.certificate_chain)[0]).unwrap();
    assert_eq!(svid.id().to_string(), "spiffe://outrigger.local/ns/shop/ew/host");

    let second = join(&gateway, &token, "other").await.err().unwrap();
    refused(&second, Code::Unauthenticated, &["was used already", "shop/host"]);
    let audited = gateway.audited();
    assert!(audited.contains(r#""event":"joined","workload":"shop/host""#), "{audited}");
    assert!(audited.contains("token-used"), "{audited}");
    assert!(!audited.contains(&hex::encode(&token.secret)), "a secret is written down");
}

#[tokio::test]
async fn of_a_hundred_joins_at_once_one_succeeds() {
    let gateway = Gateway::start().await;
    let token = token(&gateway).await;
    let names: Vec<String> = (0..100).map(|number| format!("h{number}")).collect();
    let joins = names.iter().map(|name| join(&gateway, &token, name));
    let joined = futures_util::future::join_all(joins).await;
    assert_eq!(joined.iter().filter(|joined| joined.is_ok()).count(), 1);
    for refusal in joined.iter().filter_map(|joined| joined.as_ref().err()) {
        refused(refusal, Code::Unauthenticated, &["used already"]);
    }
    assert_eq!(gateway.store.workloads().len(), 1);
}

#[tokio::test]
async fn a_join_whose_answer_was_lost_is_answered_again_and_to_nobody_else() {
    let gateway = Gateway::start().await;
    let token = token(&gateway).await;
    let key = KeyPair::generate().unwrap();
    let mut host = stranger(&gateway, &token).await;
    let mut joins = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let (mut host, request) = (host.clone(), request(&token, &key, "db-1"));
        joins.spawn(async move { host.join(request).await.unwrap().into_inner() });
    }
    let answers = joins.join_all().await;
    assert!(answers.iter().all(|answer| answer.mesh_addresses == answers[0].mesh_addresses));
    assert_eq!(gateway.store.workloads().len(), 1);
    let again = Member { key, welcome: answers.into_iter().next_back().unwrap() };
    again
        .connect(&gateway)
        .await
        .renew(v1::RenewRequest { csr: again.key.request().unwrap() })
        .await
        .unwrap();
    // What only names the key proves nothing: it is the request's own signature that counts.
    let other = KeyPair::generate().unwrap();
    let second = host.join(request(&token, &other, "db-1")).await.unwrap_err();
    refused(&second, Code::Unauthenticated, &["shop/db-1"]);
    let mut copied = request(&token, &again.key, "db-1");
    copied.machine = vec![8; 32];
    refused(&host.join(copied).await.unwrap_err(), Code::Unauthenticated, &["shop/db-1"]);
}

#[tokio::test]
async fn tokens_are_refused_by_reason() {
    let gateway = Gateway::start().await;
    let mut wrong = token(&gateway).await;
    wrong.secret = vec![0; 32];
    refused(&join(&gateway, &wrong, "").await.err().unwrap(), Code::Unauthenticated, &["not known"]);

    let revoked = token(&gateway).await;
    admin(&gateway).await.revoke_token(v1::RevokeTokenRequest { id: revoked.id.clone() }).await.unwrap();
    refused(&join(&gateway, &revoked, "").await.err().unwrap(), Code::Unauthenticated, &["revoked"]);

    let expired = token(&gateway).await;
    gateway.hands.forward(25 * HOUR);
    let refusal = join(&gateway, &expired, "").await.err().unwrap();
    refused(&refusal, Code::Unauthenticated, &["expired at 2026-01-02T00:00:00Z", "2026-01-02T01:00:00Z"]);
}

#[tokio::test]
async fn a_gateway_of_another_root_is_refused_by_the_host() {
    let (gateway, other) = (Gateway::start().await, Gateway::start().await);
    let token = token(&gateway).await;
    let pin = pki::KeyHash::try_from_bytes(&token.root_pins[0]).unwrap();
    let config = pki::tls::client_by_pins(&[pin], &gateway.trust_domain, pki::system_time()).unwrap();
    let error = tls(&other, config).await.unwrap_err();
    assert_eq!(pki::tls::refusal(&error), Some(pki::tls::PeerRefusal::Pin));
}

#[tokio::test]
async fn a_host_of_another_root_is_refused_by_the_gateway() {
    let (gateway, other) = (Gateway::start().await, Gateway::start().await);
    let stray = member(&other, "stray").await;
    // It trusts this gateway, but is another's.
    let bundle = vec![gateway.authority().certificate().to_vec()];
    let chain = host::der(&stray.welcome.certificate_chain);
    let config = host::mutual(&gateway, &bundle, chain, &stray.key);
    if let Ok(channel) = tls(&gateway, config).await {
        let csr = stray.key.request().unwrap();
        assert!(EnrollmentClient::new(channel).renew(v1::RenewRequest { csr }).await.is_err());
    }
    // The call never got as far as to be refused.
    assert!(!gateway.audited().contains("renew"));
}

#[tokio::test]
async fn a_certificate_is_renewed_for_the_same_key_only() {
    let gateway = Gateway::start().await;
    let mut member = member(&gateway, "db1").await;
    let first = member.welcome.certificate_chain.clone();
    gateway.hands.forward(HOUR);
    member.renew(&gateway).await.unwrap();
    assert_ne!(member.welcome.certificate_chain, first);

    let csr = KeyPair::generate().unwrap().request().unwrap();
    let refusal = member.connect(&gateway).await.renew(v1::RenewRequest { csr }).await.unwrap_err();
    refused(&refusal, Code::PermissionDenied, &["another key"]);
    let mut csr = member.key.request().unwrap();
    *csr.last_mut().unwrap() ^= 1;
    let refusal = member.connect(&gateway).await.renew(v1::RenewRequest { csr }).await.unwrap_err();
    refused(&refusal, Code::InvalidArgument, &["not signed"]);
}

#[tokio::test]
async fn an_expired_certificate_is_renewed_within_the_grace_time_and_not_after() {
    let gateway = Gateway::start().await;
    let (mut late, mut too_late) = (member(&gateway, "late").await, member(&gateway, "too-late").await);
    gateway.hands.forward((TTL + GRACE).saturating_sub(HOUR));
    late.renew(&gateway).await.unwrap();
    assert!(gateway.audited().contains(r#""expired":true"#));
    gateway.hands.forward(2 * HOUR);
    let refusal = too_late.renew(&gateway).await.unwrap_err();
    refused(
        &refusal,
        Code::Unauthenticated,
        &["expired at", "the gateway's clock shows", "workload replace"],
    );
    assert!(gateway.audited().contains("certificate-expired"));
}

#[tokio::test]
async fn who_shows_no_certificate_cannot_renew_or_leave() {
    let gateway = Gateway::start().await;
    let token = token(&gateway).await;
    let mut client = stranger(&gateway, &token).await;
    let csr = KeyPair::generate().unwrap().request().unwrap();
    let refusal = client.renew(v1::RenewRequest { csr }).await.unwrap_err();
    refused(&refusal, Code::Unauthenticated, &["certificate"]);
    refused(&client.leave(v1::LeaveRequest {}).await.unwrap_err(), Code::Unauthenticated, &["certificate"]);
}

#[tokio::test]
async fn a_deleted_workload_is_revoked_at_once() {
    let gateway = Gateway::start().await;
    let mut member = member(&gateway, "db1").await;
    let delete = v1::DeleteWorkloadRequest { namespace: "shop".to_owned(), name: "db1".to_owned() };
    admin(&gateway).await.delete_workload(delete.clone()).await.unwrap();
    refused(&member.renew(&gateway).await.unwrap_err(), Code::PermissionDenied, &["revoked", "deleted"]);
    refused(&admin(&gateway).await.delete_workload(delete).await.unwrap_err(), Code::NotFound, &["shop/db1"]);
    // The key stays revoked, also with a new token.
    let fresh = token(&gateway).await;
    let again = request(&fresh, &member.key, "db2");
    let refusal = stranger(&gateway, &fresh).await.join(again).await.unwrap_err();
    refused(&refusal, Code::PermissionDenied, &["revoked"]);
}

#[tokio::test]
async fn a_replaced_host_keeps_the_addresses_and_the_old_key_is_revoked() {
    let gateway = Gateway::start().await;
    let mut old = member(&gateway, "db1").await;
    let held = join(&gateway, &token(&gateway).await, "db1").await.err().unwrap();
    refused(&held, Code::AlreadyExists, &["shop/db1", "last seen at 2026-01-01", "workload replace"]);

    let bound = replacement(&gateway, "db1").await;
    // Until somebody joins with it, nothing changes.
    old.renew(&gateway).await.unwrap();
    let elsewhere = join(&gateway, &bound, "db9").await.err().unwrap();
    refused(&elsewhere, Code::FailedPrecondition, &["shop/db1"]);
    let new = join(&gateway, &bound, "").await.unwrap();
    assert_eq!(new.welcome.name, "db1");
    assert_eq!(new.welcome.mesh_addresses, old.welcome.mesh_addresses);
    refused(&old.renew(&gateway).await.unwrap_err(), Code::PermissionDenied, &["replaced"]);
}

#[tokio::test]
async fn who_leaves_is_gone_and_the_name_is_free() {
    let gateway = Gateway::start().await;
    let mut member = member(&gateway, "db1").await;
    member.connect(&gateway).await.leave(v1::LeaveRequest {}).await.unwrap();
    assert!(gateway.store.workloads().is_empty());
    refused(&member.renew(&gateway).await.unwrap_err(), Code::PermissionDenied, &["left"]);
    let again = join(&gateway, &token(&gateway).await, "db1").await.unwrap();
    assert_eq!(again.welcome.mesh_addresses, member.welcome.mesh_addresses);
    assert!(gateway.audited().contains(r#""event":"left","workload":"shop/db1""#));
}

#[tokio::test]
async fn nonsense_is_refused_before_the_token_is_used() {
    let gateway = Gateway::start().await;
    let token = token(&gateway).await;
    let mut client = stranger(&gateway, &token).await;
    let key = KeyPair::generate().unwrap();
    let good = || request(&token, &key, "db1");
    for (bad, words) in [
        (v1::JoinRequest { csr: vec![1, 2, 3], ..good() }, "PKCS#10"),
        (v1::JoinRequest { machine: vec![], ..good() }, "machine"),
        (v1::JoinRequest { report: None, ..good() }, "underlay"),
        (v1::JoinRequest { name: "../admin".to_owned(), ..good() }, "--name"),
        (v1::JoinRequest { name: String::new(), hostname: "localhost".to_owned(), ..good() }, "--name"),
    ] {
        refused(&client.join(bad).await.unwrap_err(), Code::InvalidArgument, &[words]);
    }
    let large = v1::JoinRequest { hostname: "a".repeat(1 << 20), ..good() };
    assert!(client.join(large).await.is_err());
    stranger(&gateway, &token).await.join(good()).await.unwrap();
}

#[tokio::test]
async fn tokens_need_a_group_that_exists() {
    let gateway = Gateway::start().await;
    let mut admin = admin(&gateway).await;
    let create = |group: &str, node: &str| v1::CreateTokenRequest {
        group: group.to_owned(),
        transit_node: node.to_owned(),
        ..v1::CreateTokenRequest::default()
    };
    refused(&admin.create_token(create("shop/no", "")).await.unwrap_err(), Code::NotFound, &["shop/no"]);
    refused(&admin.create_token(create("", "")).await.unwrap_err(), Code::InvalidArgument, &["--group"]);
    refused(&admin.create_token(create("shop/db", "n")).await.unwrap_err(), Code::InvalidArgument, &["one"]);
    let both = v1::CreateTokenRequest { node: "m".to_owned(), ..create("", "n") };
    refused(&admin.create_token(both).await.unwrap_err(), Code::InvalidArgument, &["--node"]);
    refused(&admin.create_token(create("", "N/1")).await.unwrap_err(), Code::InvalidArgument, &["N/1"]);

    let created = admin.create_token(create("", "node-1")).await.unwrap().into_inner();
    let transit = join(&gateway, &proto::token::decode(&created.token).unwrap(), "").await.unwrap();
    assert_eq!(
        (transit.welcome.namespace.as_str(), transit.welcome.name.as_str()),
        ("outrigger-system", "node-1")
    );
    let listed = admin.list_workloads(v1::ListWorkloadsRequest {}).await.unwrap().into_inner().workloads;
    assert_eq!(listed[0].transit_node, "node-1");
}

/// An administrator's certificate, and its key.
async fn administrator(gateway: &Gateway) -> (KeyPair, v1::IssueAdminResponse) {
    let key = KeyPair::generate().unwrap();
    let request = v1::IssueAdminRequest { name: "ops".to_owned(), csr: key.request().unwrap() };
    let issued = admin(gateway).await.issue_admin(request).await.unwrap().into_inner();
    (key, issued)
}

#[tokio::test]
async fn an_administrators_certificate_administers_over_tls_until_it_expires() {
    let gateway = Gateway::start().await;
    let (key, issued) = administrator(&gateway).await;
    let config = || host::mutual(&gateway, &issued.trust_bundle, host::der(&issued.certificate_chain), &key);
    let mut client = AdminClient::new(tls(&gateway, config()).await.unwrap());
    let status = client.status(v1::GatewayStatusRequest {}).await.unwrap().into_inner();
    assert!(status.synced);
    let another = v1::IssueAdminRequest { name: "more".to_owned(), csr: key.request().unwrap() };
    refused(&client.issue_admin(another).await.unwrap_err(), Code::PermissionDenied, &["unix socket"]);
    gateway.hands.forward(25 * HOUR);
    let refusal = client.status(v1::GatewayStatusRequest {}).await.unwrap_err();
    refused(&refusal, Code::PermissionDenied, &["expired"]);
}

#[tokio::test]
async fn hosts_and_strangers_cannot_administer() {
    let gateway = Gateway::start().await;
    let member = member(&gateway, "db1").await;
    let mut client = AdminClient::new(tls(&gateway, member.config(&gateway)).await.unwrap());
    let create = v1::CreateTokenRequest { group: "shop/db".to_owned(), ..v1::CreateTokenRequest::default() };
    refused(
        &client.create_token(create.clone()).await.unwrap_err(),
        Code::PermissionDenied,
        &["administrator"],
    );
    let pin = gateway.authority().pin();
    let config = pki::tls::client_by_pins(&[pin], &gateway.trust_domain, gateway.hands.clone()).unwrap();
    let mut client = AdminClient::new(tls(&gateway, config).await.unwrap());
    refused(&client.create_token(create).await.unwrap_err(), Code::PermissionDenied, &["administrator"]);
    assert!(gateway.audited().contains("admin-refused"));
}

#[tokio::test]
async fn an_administrator_is_no_workload() {
    let gateway = Gateway::start().await;
    let (key, issued) = administrator(&gateway).await;
    let config = host::mutual(&gateway, &issued.trust_bundle, host::der(&issued.certificate_chain), &key);
    let mut client = EnrollmentClient::new(tls(&gateway, config).await.unwrap());
    let csr = key.request().unwrap();
    let refusal = client.renew(v1::RenewRequest { csr }).await.unwrap_err();
    refused(&refusal, Code::PermissionDenied, &["no workload"]);
}

#[tokio::test]
async fn a_certificate_the_root_signed_for_nobody_here_is_refused() {
    // Signed by the right root, in the name of a workload that never joined.
    let gateway = Gateway::start().await;
    let key = KeyPair::generate().unwrap();
    let csr = CheckedCsr::from_der(&key.request().unwrap()).unwrap();
    let id = SpiffeId::workload(&gateway.trust_domain, "shop", "ghost").unwrap();
    let issued = gateway.authority().issue(&csr, &id, gateway.now(), HOUR).unwrap();
    let bundle = vec![gateway.authority().certificate().to_vec()];
    let config = host::mutual(&gateway, &bundle, issued.chain, &key);
    let mut client = EnrollmentClient::new(tls(&gateway, config).await.unwrap());
    let renew = v1::RenewRequest { csr: key.request().unwrap() };
    refused(&client.renew(renew).await.unwrap_err(), Code::PermissionDenied, &["shop/ghost", "not known"]);
}

#[tokio::test]
async fn the_connection_of_a_stranger_is_cut_and_a_members_stays() {
    let gateway = Gateway::start().await;
    let (mut member, token) = (member(&gateway, "db1").await.connect(&gateway).await, token(&gateway).await);
    let mut stranger = stranger(&gateway, &token).await;
    let asked = v1::RenewRequest { csr: vec![] };
    let told = |result: Result<_, Status>| {
        result.map(|_: tonic::Response<v1::RenewResponse>| ()).unwrap_err().code()
    };
    assert_eq!(told(stranger.renew(asked.clone()).await), Code::InvalidArgument);
    tokio::time::sleep(STRANGER + Duration::from_millis(500)).await;
    assert_ne!(told(stranger.renew(asked.clone()).await), Code::InvalidArgument);
    assert_eq!(told(member.renew(asked).await), Code::InvalidArgument);
}

#[tokio::test]
async fn who_never_finishes_a_handshake_holds_up_nobody() {
    let gateway = Gateway::start().await;
    let mut silent = Vec::new();
    for _ in 0..63 {
        silent.push(tokio::net::TcpStream::connect(gateway.address).await.unwrap());
    }
    assert!(join(&gateway, &token(&gateway).await, "db1").await.is_ok());
}
