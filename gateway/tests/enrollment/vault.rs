//! A real `OpenBao` signs: everything that it does, refuses and changes, as hosts and administrators see it.

mod bao;
mod review;

use std::sync::Arc;
use std::time::Duration;

use gateway::ca::SignError;
use gateway::ca::vault::{Auth, Settings, Vault};
use pki::{Asked, CheckedCsr, KeyPair, SpiffeId};
use proto::v1;
use proto::v1::change_roots_request::Change;
use tonic::Code;

use crate::gateway::Gateway;
use crate::host::{admin, der, join, token};
use crate::rotation::{MOMENT, PATIENCE, change, is_asked_to_renew, renew, show};
use crate::{member, refused};
use bao::{Bao, ROLE};

/// Asks for a certificate of `shop/db-1`.
async fn sign(gateway: &Gateway) -> Result<Duration, SignError> {
    let csr = CheckedCsr::from_der(&KeyPair::generate().unwrap().request().unwrap()).unwrap();
    let id = SpiffeId::workload(&gateway.trust_domain, "shop", "db-1").unwrap();
    // The gateway's clock may have been put forward by an hour; Vault's is the machine's.
    let (now, lifetime) = (gateway.now(), Duration::from_hours(2));
    let certificate = gateway.ca.issue(&Asked { csr: &csr, id: &id, now, lifetime }).await?;
    Ok(Duration::from_secs(certificate.issued.expires.as_secs() - now.as_secs()))
}

async fn with(settings: Settings) -> Gateway {
    Gateway::signed_by(Arc::new(Vault::new(settings)), None).await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs OpenBao: `cargo xtask ci openbao`"]
async fn it_signs_for_hosts_administrators_and_the_gateway() {
    let bao = Bao::start();
    let gateway = Gateway::signed_by(bao.signer(), None).await;
    let mut member = member(&gateway, "db-1").await;
    assert_eq!((member.welcome.certificate_chain.len(), member.welcome.trust_bundle.len()), (1, 1));
    let mut session = show(&gateway, &member).await;
    assert!(!is_asked_to_renew(&mut session, MOMENT).await);
    renew(&gateway, &mut member).await;
    drop(show(&gateway, &member).await);

    let roots = admin(&gateway).await.list_roots(v1::ListRootsRequest {}).await.unwrap().into_inner().roots;
    assert!(roots.len() == 1 && roots[0].active && roots[0].signed == 1, "{roots:?}");
    let add = change(&gateway, Change::Add(v1::AddRoot {}), true).await.unwrap_err();
    refused(&add, Code::FailedPrecondition, &["Vault at https://127.0.0.1:", "new issuer at pki"]);
    let only = change(&gateway, Change::Retire(roots[0].id.clone()), true).await.unwrap_err();
    refused(&only, Code::FailedPrecondition, &["signs"]);

    let csr = KeyPair::generate().unwrap().request().unwrap();
    let request = v1::IssueAdminRequest { name: "ann".to_owned(), csr };
    let issued = admin(&gateway).await.issue_admin(request).await.unwrap().into_inner();
    let svid = pki::Svid::from_der(&der(&issued.certificate_chain)[0]).unwrap();
    assert_eq!(svid.id().to_string(), "spiffe://outrigger.local/admin/ann");
    // It outlasts a restart, without a key.
    let kept = gateway.store.kept_roots(&gateway.trust_domain).unwrap();
    assert!(kept.len() == 1 && kept[0].active && kept[0].authority.is_none());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs OpenBao: `cargo xtask ci openbao`"]
async fn what_is_between_it_and_the_root_is_given_to_hosts() {
    let bao = Bao::start();
    bao.run(&["secrets", "enable", "-path=below", "pki"]);
    bao.run(&["secrets", "tune", "-max-lease-ttl=43800h", "below"]);
    let request =
        ["write", "-field=csr", "below/intermediate/generate/internal", "common_name=between", "key_type=ec"];
    let request = bao.write("between.csr", &bao.run(&request));
    let csr = format!("csr=@{}", request.display());
    let signed = bao.run(&["write", "-field=certificate", "pki/root/sign-intermediate", &csr, "ttl=43800h"]);
    let root = bao.run(&["read", "-field=certificate", "pki/issuer/default"]);
    let chain = bao.write("chain.pem", &format!("{signed}\n{root}\n"));
    let chain = format!("certificate=@{}", chain.display());
    bao.run(&["write", "below/intermediate/set-signed", &chain]);
    bao.run(&[&["write", "below/roles/mesh"], &ROLE[..]].concat());
    let mut settings = bao.settings(Auth::Token { file: bao.write("root-token", "root\n") });
    settings.mount = "below".to_owned();
    let gateway = with(settings).await;
    let mut member = member(&gateway, "db-1").await;
    assert_eq!((member.welcome.certificate_chain.len(), member.welcome.trust_bundle.len()), (2, 1));
    let top = pki::RootCertificate::try_new(der(&member.welcome.trust_bundle).remove(0)).unwrap();
    assert!(top.is_self_issued());
    renew(&gateway, &mut member).await;
    drop(show(&gateway, &member).await);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs OpenBao: `cargo xtask ci openbao`"]
async fn a_role_that_is_wrong_is_told_of_and_costs_no_token() {
    let bao = Bao::start();
    let gateway = Gateway::signed_by(bao.signer(), None).await;
    let once = token(&gateway).await;
    let mut spoilt = ROLE;
    spoilt[2] = "use_csr_sans=true";
    bao.role("mesh", &spoilt);
    let error = join(&gateway, &once, "db-1").await.err().unwrap();
    refused(&error, Code::FailedPrecondition, &["Vault at https://127.0.0.1:", "names 0 URIs"]);
    bao.role("mesh", &["allowed_uri_sans=spiffe://elsewhere/*", "require_cn=false", "use_csr_sans=false"]);
    let error = join(&gateway, &once, "db-1").await.err().unwrap();
    refused(&error, Code::FailedPrecondition, &["pki/issuer/default/sign/mesh", "HTTP 400"]);
    bao.run(&["delete", "pki/roles/mesh"]);
    let error = join(&gateway, &once, "db-1").await.err().unwrap();
    refused(&error, Code::FailedPrecondition, &["unknown role: mesh"]);
    let status = admin(&gateway).await.status(v1::GatewayStatusRequest {}).await.unwrap().into_inner();
    assert!(status.warnings.iter().any(|warning| warning.contains("unknown role")), "{status:?}");
    assert!(gateway.audited().contains("ca-unfit") && gateway.audited().contains("ca-refused"));

    // Shorter than asked for is taken as it is.
    bao.role("mesh", &[&ROLE[..8], &["max_ttl=10m"]].concat());
    assert!(sign(&gateway).await.unwrap() <= Duration::from_mins(11));
    assert_eq!(gateway.ca.trouble(), None);
    join(&gateway, &once, "db-1").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs OpenBao: `cargo xtask ci openbao`"]
async fn while_it_is_sealed_or_away_hosts_keep_what_they_have() {
    let bao = Bao::start();
    let gateway = Gateway::signed_by(bao.signer(), None).await;
    let mut old = member(&gateway, "db-1").await;
    let mut session = show(&gateway, &old).await;
    let once = token(&gateway).await;
    bao.seal();
    let error = join(&gateway, &once, "db-2").await.err().unwrap();
    refused(&error, Code::Unavailable, &["Vault at https://127.0.0.1:", "is not available", "503"]);
    let error = old.renew(&gateway).await.unwrap_err();
    refused(&error, Code::Unavailable, &["is not available"]);
    assert!(gateway.ca.trouble().is_some() && gateway.audited().contains("ca-unavailable"));
    // Nobody waits for a lock that is held meanwhile.
    assert_eq!(gateway.store.workloads().len(), 1);
    let (waiting, changed) = tokio::join!(join(&gateway, &once, "db-2"), async {
        tokio::time::timeout(Duration::from_secs(2), token(&gateway)).await
    });
    assert!(changed.is_ok(), "the store is locked while a certificate is waited for");
    refused(&waiting.err().unwrap(), Code::Unavailable, &["503"]);
    bao.unseal();
    old.renew(&gateway).await.unwrap();
    join(&gateway, &once, "db-2").await.unwrap();
    assert_eq!(gateway.ca.trouble(), None);
    drop(bao);
    refused(&old.renew(&gateway).await.unwrap_err(), Code::Unavailable, &["refused"]);
    assert!(!is_asked_to_renew(&mut session, MOMENT).await, "the session goes on");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs OpenBao: `cargo xtask ci openbao`"]
async fn a_token_that_is_not_taken_is_got_anew() {
    let bao = Bao::start();
    let file = bao.token_file();
    let gateway = with(bao.settings(Auth::Token { file: file.clone() })).await;
    sign(&gateway).await.unwrap();
    let old = std::fs::read_to_string(&file).unwrap();
    bao.run(&["token", "revoke", &old]);
    let error = sign(&gateway).await.unwrap_err().to_string();
    assert!(error.contains("HTTP 403") && !error.contains(&old), "{error}");
    bao.token_file();
    sign(&gateway).await.unwrap();

    bao.run(&["auth", "enable", "approle"]);
    let role =
        ["write", "auth/approle/role/gateway", "token_policies=mesh", "token_ttl=2s", "token_max_ttl=6s"];
    bao.run(&role);
    let role_id = bao.run(&["read", "-field=role_id", "auth/approle/role/gateway/role-id"]);
    let secret = bao.run(&["write", "-f", "-field=secret_id", "auth/approle/role/gateway/secret-id"]);
    let secret_id_file = bao.write("secret-id", &secret);
    let mount = "approle".to_owned();
    let gateway =
        with(bao.settings(Auth::AppRole { mount, role_id, secret_id_file: secret_id_file.clone() })).await;
    sign(&gateway).await.unwrap();
    // Revoked: 403, and another one is got.
    bao.run(&["token", "revoke", "-mode=path", "auth/approle"]);
    sign(&gateway).await.unwrap();
    let deadline = std::time::Instant::now() + PATIENCE;
    while !bao.has_prolonged("auth/approle/login") {
        assert!(std::time::Instant::now() < deadline, "it is not prolonged");
        sign(&gateway).await.unwrap();
        gateway.ca.refresh(gateway.now()).await;
    }
    // It ends at last, and another one is got.
    std::fs::write(&secret_id_file, "wrong").unwrap();
    let error = loop {
        assert!(std::time::Instant::now() < deadline, "it does not end");
        if let Err(error) = sign(&gateway).await {
            break error.to_string();
        }
    };
    assert!(error.contains("auth/approle/login: HTTP 400"), "{error}");
    std::fs::write(&secret_id_file, &secret).unwrap();
    sign(&gateway).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs OpenBao: `cargo xtask ci openbao`"]
async fn a_service_account_of_kubernetes_logs_in() {
    let bao = Bao::start();
    bao.token_file();
    let reviewer = review::Reviewer::start().await;
    bao.run(&["auth", "enable", "kubernetes"]);
    let host = format!("kubernetes_host=http://{}", reviewer.address);
    let any_ca = format!("kubernetes_ca_cert=@{}", bao.ca_file().display());
    let settings = [&host, &any_ca, "disable_local_ca_jwt=true", "token_reviewer_jwt=reviewer"];
    bao.run(&[&["write", "auth/kubernetes/config"], &settings[..]].concat());
    bao.run(&[
        "write",
        "auth/kubernetes/role/gateway",
        "bound_service_account_names=outrigger-gateway",
        "bound_service_account_namespaces=outrigger",
        "token_policies=mesh",
    ]);
    let jwt_file = bao.write("jwt", &review::jwt("outrigger", "outrigger-gateway"));
    let auth = || Auth::Kubernetes {
        mount: "kubernetes".to_owned(),
        role: "gateway".to_owned(),
        jwt_file: jwt_file.clone(),
    };
    let gateway = with(bao.settings(auth())).await;
    sign(&gateway).await.unwrap();
    assert!(reviewer.reviewed() >= 1);
    // Who is not the account of the role does not get in.
    std::fs::write(&jwt_file, review::jwt("outrigger", "somebody")).unwrap();
    bao.run(&["token", "revoke", "-mode=path", "auth/kubernetes"]);
    let error = sign(&gateway).await.unwrap_err().to_string();
    assert!(error.contains("auth/kubernetes/login: HTTP 403"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs OpenBao: `cargo xtask ci openbao`"]
async fn a_new_root_of_it_is_followed_and_nobody_is_lost() {
    let bao = Bao::start();
    let gateway = Gateway::signed_by(bao.signer(), None).await;
    let mut host = member(&gateway, "db-1").await;
    let mut session = show(&gateway, &host).await;
    let first = gateway.ca.roots().active().to_owned();
    assert!(!is_asked_to_renew(&mut session, MOMENT).await);

    bao.root("second");
    bao.run(&["write", "pki/config/issuers", "default=second"]);
    gateway.ca.refresh(gateway.now()).await;
    assert_eq!(gateway.ca.roots().all().len(), 2);
    assert!(is_asked_to_renew(&mut session, PATIENCE).await, "a host without the new root");
    // The gateway shows its old certificate as long as a host does not trust the new root.
    renew(&gateway, &mut host).await;
    let second = gateway.ca.roots().active().to_owned();
    assert!(second != first && host.welcome.trust_bundle.len() == 2);
    let retire = |id: String| change(&gateway, Change::Retire(id), false);
    refused(&retire(first.clone()).await.unwrap_err(), Code::FailedPrecondition, &["shop/db-1"]);
    let mut session = show(&gateway, &host).await;
    assert!(!is_asked_to_renew(&mut session, MOMENT).await, "a host that has all");
    assert_eq!(token(&gateway).await.root_pins.len(), 2);
    let left = retire(first.clone()).await.unwrap();
    assert!(left.len() == 1 && left[0].id == second && left[0].active, "{left:?}");
    assert!(is_asked_to_renew(&mut session, PATIENCE).await, "a host that trusts the old root still");
    gateway.ca.refresh(gateway.now()).await;
    assert_eq!(gateway.ca.roots().all().len(), 1, "it does not come back");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs OpenBao: `cargo xtask ci openbao`"]
async fn a_file_of_roots_says_who_is_trusted() {
    let bao = Bao::start();
    let first = bao.run(&["read", "-field=certificate", "pki/issuer/first"]);
    let file = bao.write("roots.pem", &first);
    let gateway = Gateway::signed_by(bao.signer(), Some(file.clone())).await;
    let mut host = member(&gateway, "db-1").await;
    let mut session = show(&gateway, &host).await;
    let old = gateway.ca.roots().active().to_owned();
    let listed = change(&gateway, Change::Retire(old), true).await.unwrap_err();
    refused(&listed, Code::FailedPrecondition, &["roots.pem", "ca.trustBundle"]);
    // What leads elsewhere is refused, and learned by nobody.
    bao.root("second");
    bao.run(&["write", "pki/config/issuers", "default=second"]);
    let error = sign(&gateway).await.unwrap_err().to_string();
    assert!(error.contains("does not lead to a trusted root"), "{error}");
    let second = bao.run(&["read", "-field=certificate", "pki/issuer/second"]);
    std::fs::write(&file, format!("{first}\n{second}\n")).unwrap();
    gateway.ca.refresh(gateway.now()).await;
    assert!(is_asked_to_renew(&mut session, PATIENCE).await);
    renew(&gateway, &mut host).await;
    drop(show(&gateway, &host).await);
    // What cannot be read changes nothing; what is removed is trusted no longer.
    std::fs::write(&file, "nothing").unwrap();
    gateway.ca.refresh(gateway.now()).await;
    assert_eq!(gateway.ca.roots().all().len(), 2);
    std::fs::write(&file, &second).unwrap();
    gateway.ca.refresh(gateway.now()).await;
    assert_eq!(gateway.ca.roots().all().len(), 1);
    sign(&gateway).await.unwrap();
}
