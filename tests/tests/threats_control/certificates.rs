//! What a certificate is good for at a real gateway: its own workload's calls, while the workload has that key.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::wait::wait_for;
use pki::{CertificateDer, KeyPair};
use proto::v1::admin_client::AdminClient;
use proto::v1::enrollment_client::EnrollmentClient;
use proto::v1::{
    CreateTokenRequest, DeleteWorkloadRequest, DescribeWorkloadRequest, GatewayStatusRequest,
    IssueAdminRequest, LeaveRequest, ListTokensRequest, ListWorkloadsRequest, RenewRequest,
    ReplaceWorkloadRequest, RevokeTokenRequest,
};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::client::{Session, Workload, connect, on};
use crate::stand::{STAND, Stand};

/// Calls everything that administers, and returns the calls that were not refused.
async fn administered(channel: Channel) -> Vec<&'static str> {
    let mut admin = AdminClient::new(channel);
    let create = CreateTokenRequest { group: "vault/keys".to_owned(), ..CreateTokenRequest::default() };
    let (namespace, name) = ("shop".to_owned(), "nobody".to_owned());
    let csr = KeyPair::generate().ok().and_then(|key| key.request().ok()).unwrap_or_default();
    let issue = IssueAdminRequest { name: "root".to_owned(), csr };
    let describe = DescribeWorkloadRequest { namespace: namespace.clone(), name: name.clone() };
    let replace =
        ReplaceWorkloadRequest { namespace: namespace.clone(), name: name.clone(), ..Default::default() };
    let refusals = [
        ("CreateToken", refusal(admin.create_token(create).await)),
        ("ListTokens", refusal(admin.list_tokens(ListTokensRequest {}).await)),
        ("RevokeToken", refusal(admin.revoke_token(RevokeTokenRequest { id: "x".to_owned() }).await)),
        ("ListWorkloads", refusal(admin.list_workloads(ListWorkloadsRequest {}).await)),
        ("DescribeWorkload", refusal(admin.describe_workload(describe).await)),
        ("ReplaceWorkload", refusal(admin.replace_workload(replace).await)),
        ("DeleteWorkload", refusal(admin.delete_workload(DeleteWorkloadRequest { namespace, name }).await)),
        ("IssueAdmin", refusal(admin.issue_admin(issue).await)),
        ("Status", refusal(admin.status(GatewayStatusRequest {}).await)),
    ];
    let passed = |code: &Option<Code>| !matches!(code, Some(Code::PermissionDenied | Code::Unauthenticated));
    refusals.into_iter().filter(|(_, code)| passed(code)).map(|(name, _)| name).collect()
}

fn refusal<T>(answer: Result<T, Status>) -> Option<Code> {
    answer.err().map(|status| status.code())
}

/// How opening a session, renewing and leaving were refused.
async fn refusals(channel: Channel, csr: Vec<u8>) -> [Option<Code>; 3] {
    let mut enrollment = EnrollmentClient::new(channel.clone());
    [
        Session::open(channel).await.err().map(|status| status.code()),
        refusal(enrollment.renew(RenewRequest { csr }).await),
        refusal(enrollment.leave(LeaveRequest {}).await),
    ]
}

#[test]
fn threat_56_without_a_certificate_only_joining_is_open() {
    STAND.test(|stand| {
        let machine = stand.machine()?;
        let workload = Workload::join(&machine, &stand.token("shop/batch")?)?;
        let (passed, codes) = on(&machine, || async {
            let channel = workload.connect_without().await?;
            Ok((administered(channel.clone()).await, refusals(channel, workload.key.request()?).await))
        })?;
        ensure!(passed.is_empty(), "nobody may {passed:?}");
        ensure!(codes == [Some(Code::Unauthenticated); 3], "{codes:?}");
        Ok(())
    });
}

#[test]
fn threat_56_a_workload_administers_nothing() {
    STAND.test(|stand| {
        let machine = stand.machine()?;
        let workload = Workload::join(&machine, &stand.token("shop/batch")?)?;
        let before = stand.cluster.gateway.workloads()?.len();
        let passed = on(&machine, || async { Ok(administered(workload.connect().await?).await) })?;
        ensure!(passed.is_empty(), "a workload may {passed:?}");
        ensure!(stand.cluster.gateway.workloads()?.len() == before, "something was changed");
        Ok(())
    });
}

#[test]
fn threat_56_an_administrator_is_no_workload_and_issues_nobody() {
    STAND.test(|stand| {
        let machine = stand.machine()?;
        let workload = Workload::join(&machine, &stand.token("shop/batch")?)?;
        let out = stand.cluster.net.folder().join("administrator");
        let issue = ["admin", "issue", "someone", "--out", &out.display().to_string()];
        stand.cluster.gateway.command(&issue)?.ok()?;
        let key = KeyPair::from_pem(&std::fs::read_to_string(out.join("admin.key"))?)?;
        let chain = pki::certificates_from_pem(&std::fs::read_to_string(out.join("admin.pem"))?)?;
        let (status, issued, codes) = on(&machine, || async {
            let channel = connect(&workload.token, &workload.response, Some((chain, &key))).await?;
            let mut admin = AdminClient::new(channel.clone());
            let status = refusal(admin.status(GatewayStatusRequest {}).await);
            let request = IssueAdminRequest { name: "heir".to_owned(), csr: key.request()? };
            let issued = refusal(admin.issue_admin(request).await);
            Ok((status, issued, refusals(channel, key.request()?).await))
        })?;
        ensure!(status.is_none(), "the administrator may not administer: {status:?}");
        ensure!(issued.is_some(), "an administrator makes administrators from afar");
        ensure!(codes == [Some(Code::PermissionDenied); 3], "{codes:?}");
        Ok(())
    });
}

/// The same certificate with the other valid form of its signature: (r, n − s) for (r, s).
fn malleated(certificate: &[u8]) -> Result<Vec<u8>> {
    const ORDER: [u8; 32] = [
        0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc,
        0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
    ];
    let (whole, _) = value(certificate).context("a certificate")?;
    let (_, behind_content) = value(whole).context("its content")?;
    let (_, behind_algorithm) = value(behind_content).context("its algorithm")?;
    let kept = whole.len() - behind_algorithm.len();
    let (bits, _) = value(behind_algorithm).context("its signature")?;
    let (pair, _) = value(bits.get(1..).context("bits")?).context("r and s")?;
    let (r, rest) = value(pair).context("r")?;
    let (s, _) = value(rest).context("s")?;
    let s = s.strip_prefix(&[0]).unwrap_or(s);
    let padded = std::iter::repeat_n(&0, 32 - s.len()).chain(s);
    let padded: Vec<u8> = padded.copied().collect();
    let mut borrow = 0;
    let mut other: Vec<u8> = Vec::new();
    for (n, s) in ORDER.iter().zip(padded).rev() {
        let difference = i16::from(*n) - i16::from(s) - borrow;
        borrow = i16::from(difference < 0);
        other.insert(0, u8::try_from(difference.rem_euclid(256))?);
    }
    let other: Vec<u8> = other.into_iter().skip_while(|byte| *byte == 0).collect();
    let other =
        if other.first().is_some_and(|byte| byte & 0x80 != 0) { [vec![0], other].concat() } else { other };
    let pair = element(0x30, &[element(2, r), element(2, &other)].concat());
    let signature = element(3, &[vec![0], pair].concat());
    Ok(element(0x30, &[whole.get(..kept).context("content")?, &signature].concat()))
}

/// The value of the DER element that some bytes begin with, and what follows it.
fn value(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (_, rest) = bytes.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(*first), rest),
        0x81 => rest.split_first().map(|(length, rest)| (usize::from(*length), rest))?,
        _ => {
            rest.split_first_chunk().map(|(length, rest)| (usize::from(u16::from_be_bytes(*length)), rest))?
        }
    };
    rest.split_at_checked(length)
}

fn element(tag: u8, value: &[u8]) -> Vec<u8> {
    let length = value.len();
    let [high, low] = u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
    let head = match length {
        0..=0x7f => vec![tag, low],
        0x80..=0xff => vec![tag, 0x81, low],
        _ => vec![tag, 0x82, high, low],
    };
    [&head, value].concat()
}

/// The three calls of a workload, with its certificate and with the other form of it.
fn both_forms(stand: &Stand, workload: &Workload) -> Result<[[Option<Code>; 3]; 2]> {
    let machine = stand.machine()?;
    let calls = |chain: Vec<CertificateDer<'static>>| {
        on(&machine, || async {
            let channel = connect(&workload.token, &workload.response, Some((chain, &workload.key))).await?;
            Ok(refusals(channel, workload.key.request()?).await)
        })
    };
    let other = malleated(workload.chain.first().context("a certificate")?)?;
    ensure!(
        workload.chain.first().is_some_and(|first| first.to_vec() != other),
        "it is the same certificate"
    );
    Ok([calls(workload.chain.clone())?, calls(vec![CertificateDer::from(other)])?])
}

#[test]
fn threat_56_who_was_deleted_or_replaced_is_refused_by_key() {
    STAND.test(|stand| {
        let machine = stand.machine()?;
        // Both forms of a living workload's certificate are good: they are refused later for what they are.
        let living = Workload::join(&machine, &stand.token("shop/batch")?)?;
        let other = malleated(living.chain.first().context("a certificate")?)?;
        on(&machine, || async {
            let chain = vec![CertificateDer::from(other)];
            let channel = connect(&living.token, &living.response, Some((chain, &living.key))).await?;
            Session::open(channel).await?.update().await?;
            Ok(())
        })?;

        let machine = stand.machine()?;
        let deleted = Workload::join(&machine, &stand.token("shop/batch")?)?;
        stand.cluster.gateway.command(&["workload", "delete", &deleted.name()])?.ok()?;
        let codes = both_forms(stand, &deleted)?;
        ensure!(codes == [[Some(Code::PermissionDenied); 3]; 2], "deleted: {codes:?}");

        let machine = stand.machine()?;
        let replaced = Workload::join(&machine, &stand.token("shop/batch")?)?;
        let words = ["workload", "replace", &replaced.name(), "-o", "json"];
        let answer = stand.cluster.gateway.command(&words)?.json()?;
        let heir = Workload::join(&machine, e2e::json::text(&answer, "token"))?;
        ensure!(heir.name() == replaced.name(), "{} took the place of {}", heir.name(), replaced.name());
        let codes = both_forms(stand, &replaced)?;
        ensure!(codes == [[Some(Code::PermissionDenied); 3]; 2], "replaced: {codes:?}");
        Ok(())
    });
}

#[test]
fn threat_56_a_session_ends_with_its_workload() {
    STAND.test(|stand| {
        let machine = stand.machine()?;
        let workload = Workload::join(&machine, &stand.token("shop/batch")?)?;
        let gateway = &stand.cluster.gateway;
        let ended = on(&machine, || async {
            let mut session = Session::open(workload.connect().await?).await?;
            session.update().await?;
            let deleted = gateway.command(&["workload", "delete", &workload.name()])?;
            ensure!(deleted.succeeded(), "{deleted}");
            // What was under way may still come.
            loop {
                if let Err(status) = session.update().await {
                    return Ok(status);
                }
            }
        })?;
        ensure!(ended.code() == Code::PermissionDenied, "{ended:?}");
        Ok(())
    });
}

#[test]
fn threat_56_an_expired_certificate_opens_no_session_and_is_renewed_within_its_grace_only() -> Result<()> {
    let stand = Stand::with("certificateTtl: 2s\nrenewGrace: 4s\n")?;
    let machine = stand.machine()?;
    let workload = Workload::join(&machine, &stand.token("shop/batch")?)?;
    let expires =
        pki::Svid::from_der(workload.chain.first().context("a certificate")?)?.not_after().as_secs();
    let passed =
        |seconds| pki::system_time().current_time().is_some_and(|now| now.as_secs() > expires + seconds);
    wait_for("the certificate to expire", Duration::from_secs(20), || passed(0))?;
    let opened = on(&machine, || async { Ok(Session::open(workload.connect().await?).await.err()) })?;
    let code = opened.as_ref().map(Status::code);
    ensure!(code == Some(Code::Unauthenticated), "an expired certificate: {opened:?}");
    wait_for("the grace time to end", Duration::from_secs(20), || passed(4))?;
    let codes =
        on(&machine, || async { Ok(refusals(workload.connect().await?, workload.key.request()?).await) })?;
    ensure!(codes == [Some(Code::Unauthenticated); 3], "beyond the grace time: {codes:?}");
    Ok(())
}
