//! The rotation of the root, step by step, with hosts that come and stay.

use std::time::Duration;

use pki::KeyPair;
use proto::v1;
use proto::v1::change_roots_request::Change;
use proto::v1::enrollment_client::EnrollmentClient;
use tonic::{Code, Status};

use crate::flood::sync;
use crate::gateway::Gateway;
use crate::host::{Member, admin, join, pinning, tls, token};
use crate::{HOUR, member, refused};

/// How long the gateway may take to ask a host for something, and how long it may keep quiet in vain.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
pub(crate) const MOMENT: Duration = Duration::from_millis(200);

pub(crate) async fn change(gateway: &Gateway, change: Change, force: bool) -> Result<Vec<v1::Root>, Status> {
    let request = v1::ChangeRootsRequest { change: Some(change), force };
    Ok(admin(gateway).await.change_roots(request).await?.into_inner().roots)
}

/// Renews with what comes with it, an hour later, and shows it.
pub(crate) async fn renew(gateway: &Gateway, member: &mut Member) {
    gateway.hands.forward(HOUR);
    let csr = member.key.request().unwrap();
    let renewed = member.connect(gateway).await.renew(v1::RenewRequest { csr }).await.unwrap().into_inner();
    member.welcome.certificate_chain = renewed.certificate_chain;
    member.welcome.trust_bundle = renewed.trust_bundle;
}

/// Reads on until the gateway asks for a renewal; whether it does.
pub(crate) async fn is_asked_to_renew(open: &mut crate::flood::Open, within: Duration) -> bool {
    let asked = async {
        while let Some(message) = open.inbound.message().await.unwrap() {
            if matches!(
                message.message,
                Some(v1::gateway_message::Message::Renew(v1::Renew { within_seconds: 2 }))
            ) {
                return true;
            }
        }
        false
    };
    tokio::time::timeout(within, asked).await.unwrap_or(false)
}

/// What the store keeps: the roots, and whether each signs.
fn stored(gateway: &Gateway) -> Vec<(String, bool)> {
    let roots = gateway.store.roots(&gateway.trust_domain, gateway.now()).unwrap();
    roots.into_iter().map(|root| (root.id, root.active)).collect()
}

/// Opens a session, which shows the certificate, and reads its first message.
pub(crate) async fn show(gateway: &Gateway, member: &Member) -> crate::flood::Open {
    let mut open = sync(gateway, member).await;
    assert!(open.inbound.message().await.unwrap().is_some());
    open
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_is_rotated_and_nobody_is_lost() {
    let gateway = Gateway::start().await;
    let mut first = member(&gateway, "db-1").await;
    let mut begun = show(&gateway, &first).await;
    let old_token = token(&gateway).await;
    let old_certificate =
        Member { key: KeyPair::from_pem(&first.key.to_pem()).unwrap(), welcome: first.welcome.clone() };

    gateway.hands.forward(Duration::from_secs(1));
    let roots = change(&gateway, Change::Add(v1::AddRoot {}), false).await.unwrap();
    let [old, new] = &roots[..] else { panic!("{roots:?}") };
    assert!(
        old.active && !new.active && (old.trusted_by, old.signed, new.trusted_by) == (1, 1, 0),
        "{roots:?}"
    );
    assert!(is_asked_to_renew(&mut begun, PATIENCE).await, "a host without the new root");
    let again = change(&gateway, Change::Add(v1::AddRoot {}), false).await.unwrap_err();
    refused(&again, Code::FailedPrecondition, &[&new.id]);
    let activate = || change(&gateway, Change::Activate(new.id.clone()), false);
    refused(&activate().await.unwrap_err(), Code::FailedPrecondition, &["shop/db-1", &new.id]);

    // Given is not enough: it must have arrived.
    renew(&gateway, &mut first).await;
    refused(&activate().await.unwrap_err(), Code::FailedPrecondition, &["shop/db-1"]);
    let mut session = show(&gateway, &first).await;
    assert!(!is_asked_to_renew(&mut session, MOMENT).await, "a host that has both roots");
    refused(&activate().await.unwrap_err(), Code::FailedPrecondition, &[&old_token.id, "token"]);
    admin(&gateway).await.revoke_token(v1::RevokeTokenRequest { id: old_token.id.clone() }).await.unwrap();
    let new_token = token(&gateway).await;
    assert_eq!(new_token.root_pins.len(), 2);
    let roots = activate().await.unwrap();
    assert!(!roots[0].active && roots[1].active, "{roots:?}");
    assert!(is_asked_to_renew(&mut session, PATIENCE).await, "a host with a certificate of the old root");

    // The gateway shows the new root: who pins the old one alone does not trust it, everybody else does.
    let pins_old = || pinning(&gateway, &old_token);
    let mut turned_away = false;
    while !turned_away {
        turned_away = tls(&gateway, pins_old()).await.is_err();
    }
    let mut second = join(&gateway, &new_token, "db-2").await.unwrap();
    let mut kept = show(&gateway, &second).await;
    assert!(!is_asked_to_renew(&mut kept, MOMENT).await, "a host that has all");
    let retire = || change(&gateway, Change::Retire(roots[0].id.clone()), false);
    refused(&retire().await.unwrap_err(), Code::FailedPrecondition, &["shop/db-1"]);
    let active = change(&gateway, Change::Retire(roots[1].id.clone()), true).await.unwrap_err();
    refused(&active, Code::FailedPrecondition, &["signs"]);
    renew(&gateway, &mut first).await;
    drop(show(&gateway, &first).await);
    let left = retire().await.unwrap();
    assert_eq!((left.len(), left[0].trusted_by, left[0].signed), (1, 2, 2), "{left:?}");
    assert!(is_asked_to_renew(&mut kept, PATIENCE).await, "a host that trusts the old root still");

    // What the old root signed is worth nothing, the rest goes on.
    let accepted = || async {
        let channel = tls(&gateway, old_certificate.config(&gateway)).await.ok()?;
        let csr = old_certificate.key.request().unwrap();
        EnrollmentClient::new(channel).renew(v1::RenewRequest { csr }).await.ok()
    };
    while accepted().await.is_some() {}
    renew(&gateway, &mut second).await;
    renew(&gateway, &mut first).await;
    assert!(gateway.audited().contains("roots-changed"));
    // The session of the beginning was replaced by those of the same machine, and never broken by the roots.
    assert!(!matches!(begun.inbound.message().await, Err(status) if status.code() == Code::Unauthenticated));
    // It outlasts a restart.
    assert_eq!(stored(&gateway), [(left[0].id.clone(), true)]);
}

#[tokio::test]
async fn roots_are_changed_over_the_socket_only_and_by_force_where_a_host_is_away() {
    let gateway = Gateway::start().await;
    member(&gateway, "away").await;
    gateway.hands.forward(HOUR);
    let roots = change(&gateway, Change::Add(v1::AddRoot {}), false).await.unwrap();
    let unknown = change(&gateway, Change::Activate("nothing".into()), true).await.unwrap_err();
    refused(&unknown, Code::NotFound, &["nothing"]);
    let away = change(&gateway, Change::Activate(roots[1].id.clone()), false).await.unwrap_err();
    refused(&away, Code::FailedPrecondition, &["shop/away", "--force"]);
    change(&gateway, Change::Activate(roots[1].id.clone()), true).await.unwrap();
    assert!(gateway.audited().contains("\"force\":true"));
}
