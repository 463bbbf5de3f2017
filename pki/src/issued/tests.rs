//! What an authority elsewhere may sign, and everything that it may not.

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyUsagePurpose, SanType,
};
use time::OffsetDateTime;

use super::*;
use crate::testing::{self, HOUR, NOW, uri};
use crate::{Authority, SpiffeId};

/// A leaf as it is asked for, to be changed.
fn proper() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![uri(&testing::workload_id().to_string())];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    params.not_before = at(0);
    params.not_after = at(3600);
    params
}

fn at(seconds: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(i64::try_from(NOW.as_secs()).unwrap() + seconds).unwrap()
}

fn signed_by(authority: &Authority, params: &CertificateParams) -> CertificateDer<'static> {
    let signer = rcgen::KeyPair::from_pem(&authority.key_pem()).unwrap();
    let issuer = Issuer::from_ca_cert_der(authority.certificate(), signer).unwrap();
    params.signed_by(testing::key().inner(), &issuer).unwrap().into()
}

fn verify_chain(
    chain: &[CertificateDer<'static>],
    id: &SpiffeId,
    roots: &[CertificateDer<'static>],
) -> Result<(Issued, usize), UnfitCertificate> {
    let csr = testing::csr();
    let roots: Vec<_> = roots.iter().map(|root| RootCertificate::try_new(root.clone()).unwrap()).collect();
    verify_issued(chain, &Asked { csr: &csr, id, now: NOW, lifetime: HOUR }, &roots)
}

fn verify(params: &CertificateParams) -> Result<(Issued, usize), UnfitCertificate> {
    let authority = testing::authority();
    let roots = [testing::other_authority().certificate().clone(), authority.certificate().clone()];
    verify_chain(&[signed_by(&authority, params)], &testing::workload_id(), &roots)
}

#[test]
fn what_was_asked_for_is_taken() {
    let (issued, root) = verify(&proper()).unwrap();
    assert_eq!((issued.chain.len(), issued.expires.as_secs(), root), (1, NOW.as_secs() + 3600, 1));
    let own = testing::workload_svid(&testing::authority(), NOW);
    let root = testing::authority().certificate().clone();
    assert!(verify_chain(&own.chain, &testing::workload_id(), &[root]).is_ok());
    // Shorter is no harm, and neither is where an organisation is.
    let mut shorter = proper();
    shorter.not_after = at(60);
    shorter.distinguished_name.push(DnType::OrganizationName, "Example");
    assert_eq!(verify(&shorter).unwrap().0.expires.as_secs(), NOW.as_secs() + 60);
    // A clock that is a little ahead.
    let mut ahead = proper();
    (ahead.not_before, ahead.not_after) = (at(30), at(3630));
    assert!(verify(&ahead).is_ok());
}

#[test]
fn other_names_are_refused() {
    let mut dns = proper();
    dns.subject_alt_names.push(SanType::DnsName("db.example".try_into().unwrap()));
    assert_eq!(verify(&dns).unwrap_err(), UnfitCertificate::Svid(InvalidSvid::OtherNames));
    let mut common = proper();
    common.distinguished_name.push(DnType::CommonName, "db.example");
    let error = verify(&common).unwrap_err();
    assert!(error.to_string().contains("CN=db.example"), "{error}");
    let mut two = proper();
    two.subject_alt_names.push(uri("spiffe://outrigger.local/admin/a"));
    assert_eq!(verify(&two).unwrap_err(), UnfitCertificate::Svid(InvalidSvid::Uris(2)));
    let mut none = proper();
    none.subject_alt_names.clear();
    assert_eq!(verify(&none).unwrap_err(), UnfitCertificate::Svid(InvalidSvid::Uris(0)));
    let mut other = proper();
    other.subject_alt_names = vec![uri("spiffe://outrigger.local/ns/payments/ew/other")];
    assert!(matches!(verify(&other).unwrap_err(), UnfitCertificate::Id { .. }));
    assert_eq!(verify_chain(&[], &testing::workload_id(), &[]).unwrap_err(), UnfitCertificate::Missing);
}

#[test]
fn another_key_is_refused() {
    let authority = testing::authority();
    let signer = rcgen::KeyPair::from_pem(&authority.key_pem()).unwrap();
    let issuer = Issuer::from_ca_cert_der(authority.certificate(), signer).unwrap();
    let other = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let leaf: CertificateDer<'static> = proper().signed_by(&other, &issuer).unwrap().into();
    let refused = verify_chain(&[leaf], &testing::workload_id(), &[authority.certificate().clone()]);
    assert_eq!(refused.unwrap_err(), UnfitCertificate::Key);
}

#[test]
fn other_uses_are_refused() {
    let with = |change: &dyn Fn(&mut CertificateParams)| {
        let mut params = proper();
        change(&mut params);
        verify(&params).unwrap_err()
    };
    let authority = with(&|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    assert_eq!(authority, UnfitCertificate::Svid(InvalidSvid::Authority));
    let none = with(&|params| params.extended_key_usages.clear());
    assert_eq!(none, UnfitCertificate::Usage("client authentication"));
    let server = with(&|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
    assert_eq!(server, UnfitCertificate::Usage("client authentication"));
    let any = with(&|params| params.extended_key_usages.push(ExtendedKeyUsagePurpose::Any));
    assert_eq!(any, UnfitCertificate::Purpose("any purpose"));
    let code = with(&|params| params.extended_key_usages.push(ExtendedKeyUsagePurpose::CodeSigning));
    assert!(matches!(code, UnfitCertificate::Purpose(_)));
    let signs = with(&|params| params.key_usages = vec![KeyUsagePurpose::KeyCertSign]);
    assert!(matches!(signs, UnfitCertificate::Purpose(_)));
    let agrees = with(&|params| params.key_usages = vec![KeyUsagePurpose::KeyAgreement]);
    assert!(matches!(agrees, UnfitCertificate::Usage(_)));

    // A gateway is a server.
    let gateway = SpiffeId::gateway(&testing::domain(), "g").unwrap();
    let mut client = proper();
    client.subject_alt_names = vec![uri(&gateway.to_string())];
    let leaf = signed_by(&testing::authority(), &client);
    let root = [testing::authority().certificate().clone()];
    assert!(verify_chain(&[leaf], &gateway, &root).is_ok());
    client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let leaf = signed_by(&testing::authority(), &client);
    assert_eq!(
        verify_chain(&[leaf], &gateway, &root).unwrap_err(),
        UnfitCertificate::Usage("server authentication")
    );
}

#[test]
fn other_times_are_refused() {
    let with = |from: i64, until: i64| {
        let mut params = proper();
        (params.not_before, params.not_after) = (at(from), at(until));
        verify(&params).unwrap_err()
    };
    assert!(matches!(with(0, 3661), UnfitCertificate::TooLong { .. }));
    assert!(matches!(with(-10, 0), UnfitCertificate::NotValid { .. }));
    assert!(matches!(with(61, 3600), UnfitCertificate::NotValid { .. }));
}

#[test]
fn a_chain_leads_to_a_trusted_root() {
    let authority = testing::authority();
    let leaf = signed_by(&authority, &proper());
    let id = testing::workload_id();
    let others = [testing::other_authority().certificate().clone()];
    let refused = verify_chain(&[leaf.clone(), authority.certificate().clone()], &id, &others);
    assert!(matches!(refused.unwrap_err(), UnfitCertificate::Chain(_)));
    assert!(matches!(verify_chain(&[leaf], &id, &[]).unwrap_err(), UnfitCertificate::Chain(_)));
    // What nobody knows but must is refused by the reader of chains.
    let mut odd = proper();
    let mut critical = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
    critical.set_criticality(true);
    odd.custom_extensions.push(critical);
    assert!(verify(&odd).is_err());
}

#[test]
fn what_is_between_is_kept_and_the_rest_is_not() {
    let root_key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let between_key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let authority = |name: &str| {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params
    };
    let root = authority("root").self_signed(&root_key).unwrap();
    let root_der: CertificateDer<'static> = root.der().clone();
    let signs = Issuer::from_ca_cert_der(&root_der, &root_key).unwrap();
    let between: CertificateDer<'static> =
        authority("between").signed_by(&between_key, &signs).unwrap().into();
    let lower = Issuer::from_ca_cert_der(&between, &between_key).unwrap();
    let leaf: CertificateDer<'static> = proper().signed_by(testing::key().inner(), &lower).unwrap().into();
    let unrelated = testing::other_authority().certificate().clone();
    let chain = [leaf.clone(), unrelated, root_der.clone(), between.clone()];
    let id = testing::workload_id();
    let (issued, _) = verify_chain(&chain, &id, std::slice::from_ref(&root_der)).unwrap();
    assert_eq!(issued.chain, [leaf.clone(), between.clone()]);
    // Where the one between is itself trusted, it is the root.
    let (issued, _) = verify_chain(&chain, &id, std::slice::from_ref(&between)).unwrap();
    assert_eq!(issued.chain, std::slice::from_ref(&leaf));
    assert!(verify_chain(&[leaf], &id, std::slice::from_ref(&root_der)).is_err());
    let read = |der: &CertificateDer<'static>| RootCertificate::try_new(der.clone()).unwrap();
    assert!(read(&root_der).is_self_issued() && !read(&between).is_self_issued());
}

#[test]
fn a_request_names_one_id_or_none() {
    let id = testing::workload_id();
    let named = crate::CheckedCsr::from_der(&testing::key().request_for(&id).unwrap()).unwrap();
    assert!(named.names_only(&id));
    assert!(!testing::csr().names_only(&id));
    let other = SpiffeId::workload(&testing::domain(), "payments", "other").unwrap();
    assert!(!named.names_only(&other));
    let asks = |change: &dyn Fn(&mut CertificateParams)| {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![uri(&id.to_string())];
        change(&mut params);
        let request = params.serialize_request(testing::key().inner()).unwrap();
        crate::CheckedCsr::from_der(request.der()).unwrap().names_only(&id)
    };
    assert!(asks(&|_params| {}));
    assert!(!asks(&|params| params.distinguished_name.push(DnType::CommonName, "a")));
    assert!(!asks(&|params| params.subject_alt_names.push(uri("spiffe://outrigger.local/admin/a"))));
    assert!(!asks(&|params| params.key_usages = vec![KeyUsagePurpose::KeyCertSign]));
    assert!(named.to_pem().starts_with("-----BEGIN CERTIFICATE REQUEST-----\n"));
}
