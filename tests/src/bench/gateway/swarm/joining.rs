//! Joining: every agent with a key of its own and a real token, many over one connection, as from one machine.

use std::net::Ipv4Addr;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use pki::{KeyHash, KeyPair, TrustDomain};
use proto::v1::enrollment_client::EnrollmentClient;
use proto::v1::{HostReport, JoinRequest, JoinToken, join_request};
use tokio::task::JoinSet;
use vm_agent::credentials::Credentials;

use super::Arguments;
use super::board::Board;

/// Joins over one connection: the gateway cuts those without a certificate after a minute.
const BATCH: u32 = 100;
/// Connections at a time.
const CONNECTIONS: usize = 4;

/// An agent that joined.
pub(super) struct Member {
    pub(super) credentials: Credentials,
    pub(super) report: HostReport,
    pub(super) machine: Vec<u8>,
}

/// Lets all agents join, in order.
pub(super) async fn all(
    arguments: &Arguments,
    tokens: &[JoinToken],
    board: &Arc<Board>,
) -> Result<Vec<Member>> {
    let (mut batches, mut done) = (JoinSet::new(), Vec::new());
    let tokens: Arc<[JoinToken]> = tokens.into();
    for first in (0..arguments.agents).step_by(usize::try_from(BATCH)?) {
        if batches.len() == CONNECTIONS {
            done.push(batches.join_next().await.context("no batch")???);
        }
        let range = first..arguments.agents.min(first + BATCH);
        batches.spawn(batch(arguments.clone(), Arc::clone(&tokens), range, Arc::clone(board)));
    }
    while let Some(batch) = batches.join_next().await {
        done.push(batch??);
    }
    done.sort_by_key(|(first, _)| *first);
    Ok(done.into_iter().flat_map(|(_, members)| members).collect())
}

async fn batch(
    arguments: Arguments,
    tokens: Arc<[JoinToken]>,
    range: std::ops::Range<u32>,
    board: Arc<Board>,
) -> Result<(u32, Vec<Member>)> {
    let token = tokens.first().context("there are no tokens")?;
    let pins =
        token.root_pins.iter().map(|pin| KeyHash::try_from_bytes(pin)).collect::<Result<Vec<_>, _>>()?;
    let tls =
        pki::tls::client_by_pins(&pins, &TrustDomain::try_new(&token.trust_domain)?, pki::system_time())?;
    let connection =
        vm_agent::transport::Dialer::default().connect(&arguments.gateway.to_string(), tls).await?;
    let (first, mut members) = (range.start, Vec::new());
    for index in range {
        let token = tokens.get(usize::try_from(index)? % tokens.len()).context("there are no tokens")?;
        let mut client = EnrollmentClient::new(connection.channel.clone());
        members.push(join(&mut client, token, index, arguments.first).await?);
        board.note(|report| report.joined += 1);
    }
    Ok((first, members))
}

async fn join(
    client: &mut EnrollmentClient<tonic::transport::Channel>,
    token: &JoinToken,
    index: u32,
    first: Ipv4Addr,
) -> Result<Member> {
    let key = Arc::new(KeyPair::generate()?);
    let address = Ipv4Addr::from_bits(first.to_bits() + index);
    let report = HostReport { underlay_addresses: vec![address.octets().to_vec()], ..HostReport::default() };
    let machine = [index.to_be_bytes(); 8].concat();
    let request = JoinRequest {
        token_id: token.id.clone(),
        credential: Some(join_request::Credential::TokenSecret(token.secret.clone())),
        csr: key.request()?,
        name: format!("agent-{index}"),
        machine: machine.clone(),
        report: Some(report.clone()),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        ..JoinRequest::default()
    };
    let answer = client.join(request).await.with_context(|| format!("agent {index}"))?.into_inner();
    let credentials = Credentials::given(key, answer.certificate_chain, answer.trust_bundle)?;
    Ok(Member { credentials, report, machine })
}
