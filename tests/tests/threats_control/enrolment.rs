//! What a host asks for is not what it gets: names and keys come from the token and the record.

use anyhow::{Result, ensure};
use e2e::json;
use pki::{CertificateDer, KeyPair, Svid};
use proto::v1::RenewRequest;
use proto::v1::enrollment_client::EnrollmentClient;
use proto::v1::join_request::Credential;
use rcgen::{CertificateParams, DnType, SanType};
use tonic::Code;

use crate::client::{Workload, join, on, request};
use crate::stand::STAND;

/// A request that asks for names: those of others, and of other kinds.
fn greedy() -> Result<Vec<u8>> {
    let mut wishes = CertificateParams::default();
    wishes.distinguished_name.push(DnType::CommonName, "admin");
    for uri in [
        "spiffe://outrigger.local/admin/root",
        "spiffe://outrigger.local/gateway/gateway-0",
        "spiffe://outrigger.local/ns/vault/ew/keys-1",
    ] {
        wishes.subject_alt_names.push(SanType::URI(uri.try_into()?));
    }
    wishes.subject_alt_names.push(SanType::DnsName("gateway.outrigger".try_into()?));
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    Ok(wishes.serialize_request(&key)?.der().to_vec())
}

#[test]
fn threat_52_a_certificate_names_the_workload_and_nothing_that_was_asked_for() {
    STAND.test(|stand| {
        let machine = stand.machine()?;
        let token = proto::token::decode(&stand.token("shop/batch")?)?;
        let asked = request(&machine, &token, greedy()?);
        let given = on(&machine, || async { Ok(join(&token, asked).await??) })?;
        for certificate in given.certificate_chain {
            // Reading it fails if there is any name but one URI.
            let svid = Svid::from_der(&CertificateDer::from(certificate))?;
            let expected = format!("spiffe://outrigger.local/ns/shop/ew/{}", machine.name());
            ensure!(svid.id().to_string() == expected, "{}", svid.id());
        }
        Ok(())
    });
}

#[test]
fn threat_52_a_name_is_one_label_path_of_its_own_namespace() {
    STAND.test(|stand| {
        let machine = stand.machine()?;
        let token = proto::token::decode(&stand.token("shop/batch")?)?;
        let long = "a".repeat(300);
        let bad = [
            "../admin/root",
            "a/ew/b",
            "vault/keys-1",
            "ns/vault/ew/keys-1",
            "x/../../admin/root",
            "A",
            "a b",
            "a%2fb",
            "a\nb",
            "a\0b",
            "é",
            ".",
            "-a",
            "a-",
            "a..b",
            "a?b",
            "a#b",
            "spiffe://outrigger.local/admin/root",
            &long,
        ];
        for name in bad {
            let key = KeyPair::generate()?;
            let mut asked = request(&machine, &token, key.request()?);
            asked.name = name.to_owned();
            let refused = on(&machine, || async { join(&token, asked).await })?;
            let code = refused.as_ref().err().map(tonic::Status::code);
            ensure!(code == Some(Code::InvalidArgument), "{name:?}: {refused:?}");
            // A host name is made a valid one, or refused: it never leads out of the namespace.
            let mut asked = request(&machine, &token, key.request()?);
            asked.hostname = name.to_owned();
            asked.credential = Some(Credential::TokenSecret(token.secret.iter().rev().copied().collect()));
            let refused = on(&machine, || async { join(&token, asked).await })?;
            ensure!(refused.is_err(), "joined with a wrong secret");
        }
        let workloads = stand.cluster.gateway.workloads()?;
        let strange = workloads.iter().find(|workload| {
            let name = json::text(workload, "name");
            !name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.')
        });
        ensure!(strange.is_none(), "{strange:?}");
        Ok(())
    });
}

#[test]
fn threat_52_renewing_exchanges_no_key() {
    STAND.test(|stand| {
        let machine = stand.machine()?;
        let workload = Workload::join(&machine, &stand.token("shop/batch")?)?;
        let renewed = |csr| {
            on(&machine, || async {
                let mut client = EnrollmentClient::new(workload.connect().await?);
                Ok(client.renew(RenewRequest { csr }).await.map(tonic::Response::into_inner))
            })
        };
        let given = renewed(workload.key.request()?)??;
        let svid = Svid::from_der(&CertificateDer::from(given.certificate_chain.concat()))?;
        ensure!(svid.key_hash() == workload.key.hash(), "the own key is not renewed");
        for csr in [greedy()?, KeyPair::generate()?.request()?] {
            let refused = renewed(csr)?;
            let code = refused.as_ref().err().map(tonic::Status::code);
            ensure!(code == Some(Code::PermissionDenied), "{refused:?}");
        }
        Ok(())
    });
}
