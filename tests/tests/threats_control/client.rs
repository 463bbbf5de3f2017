//! A client of the gateway that is no agent: it asks whatever a test wants, on a machine of the test.

use std::fs::File;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use e2e::host::Host;
use nix::sched::{CloneFlags, setns};
use pki::{CertificateDer, KeyHash, KeyPair, TrustBundle, TrustDomain, UnixTime};
use proto::v1::enrollment_client::EnrollmentClient;
use proto::v1::mesh_client::MeshClient;
use proto::v1::{
    AgentMessage, GatewayMessage, Hello, HostReport, JoinRequest, JoinResponse, JoinToken, agent_message,
    gateway_message, join_request,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::transport::Channel;

const PATIENCE: Duration = Duration::from_secs(20);
const NEVER: UnixTime = UnixTime::since_unix_epoch(Duration::ZERO);

/// Runs something on a machine: in its network, on a thread of its own.
pub(crate) fn on<T: Send, F: Future<Output = Result<T>>>(
    host: &Host,
    work: impl FnOnce() -> F + Send,
) -> Result<T> {
    let network = File::open(format!("/proc/{}/ns/net", host.namespace().holder()))?;
    let run = move || -> Result<T> {
        setns(network, CloneFlags::CLONE_NEWNET)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async { tokio::time::timeout(PATIENCE, work()).await? })
    };
    std::thread::scope(|scope| match scope.spawn(run).join() {
        Ok(result) => result,
        Err(_panic) => bail!("the client panicked"),
    })
}

/// A workload that has no agent.
#[derive(Clone)]
pub(crate) struct Workload {
    pub(crate) key: Arc<KeyPair>,
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) response: JoinResponse,
    pub(crate) token: JoinToken,
}

/// What a machine asks for when it joins.
pub(crate) fn request(host: &Host, token: &JoinToken, csr: Vec<u8>) -> JoinRequest {
    let underlay = proto::convert::address_to_wire(host.v4().into());
    JoinRequest {
        token_id: token.id.clone(),
        credential: Some(join_request::Credential::TokenSecret(token.secret.clone())),
        csr,
        name: String::new(),
        hostname: host.name().to_owned(),
        machine: vec![7; 32],
        report: Some(HostReport { underlay_addresses: vec![underlay], ..HostReport::default() }),
        agent_version: "0".to_owned(),
    }
}

/// Asks the token's gateway to take a machine in.
pub(crate) async fn join(token: &JoinToken, request: JoinRequest) -> Result<Result<JoinResponse, Status>> {
    let pins =
        token.root_pins.iter().map(|pin| KeyHash::try_from_bytes(pin)).collect::<Result<Vec<_>, _>>()?;
    let domain = TrustDomain::try_new(&token.trust_domain)?;
    let tls = pki::tls::client_by_pins(&pins, &domain, pki::system_time())?;
    let gateway = token.gateways.first().context("no gateway")?;
    let channel = vm_agent::transport::Dialer::default().connect(gateway, tls).await?.channel;
    Ok(EnrollmentClient::new(channel).join(request).await.map(tonic::Response::into_inner))
}

impl Workload {
    /// Joins with a token, from this machine.
    pub(crate) fn join(host: &Host, token: &str) -> Result<Self> {
        let token = proto::token::decode(token)?;
        let key = Arc::new(KeyPair::generate()?);
        let asked = request(host, &token, key.request()?);
        let response = on(host, || async { Ok(join(&token, asked).await??) })?;
        let chain = response.certificate_chain.iter().cloned().map(CertificateDer::from).collect();
        Ok(Self { key, chain, response, token })
    }

    /// Its name, `namespace/name`.
    pub(crate) fn name(&self) -> String {
        format!("{}/{}", self.response.namespace, self.response.name)
    }

    /// A connection with its certificate.
    pub(crate) async fn connect(&self) -> Result<Channel> {
        connect(&self.token, &self.response, Some((self.chain.clone(), &self.key))).await
    }

    /// A connection without any certificate.
    pub(crate) async fn connect_without(&self) -> Result<Channel> {
        connect(&self.token, &self.response, None).await
    }
}

/// A connection to the token's gateway, with this certificate.
pub(crate) async fn connect(
    token: &JoinToken,
    response: &JoinResponse,
    credentials: Option<(Vec<CertificateDer<'static>>, &KeyPair)>,
) -> Result<Channel> {
    let domain = TrustDomain::try_new(&token.trust_domain)?;
    let roots = response.trust_bundle.iter().cloned().map(CertificateDer::from).collect();
    let tls = if let Some((chain, key)) = credentials {
        let bundle = TrustBundle::try_new(roots)?;
        pki::tls::client_mutual(&bundle, &domain, chain, key, NEVER, pki::system_time())?
    } else {
        let pins = token.root_pins.iter().map(|pin| KeyHash::try_from_bytes(pin));
        pki::tls::client_by_pins(&pins.collect::<Result<Vec<_>, _>>()?, &domain, pki::system_time())?
    };
    let gateway = token.gateways.first().context("no gateway")?;
    Ok(vm_agent::transport::Dialer::default().connect(gateway, tls).await?.channel)
}

/// An open session.
pub(crate) struct Session {
    orders: mpsc::Sender<AgentMessage>,
    answers: tonic::Streaming<GatewayMessage>,
}

impl Session {
    /// Opens one, for a machine that has nothing yet.
    pub(crate) async fn open(channel: Channel) -> Result<Self, Status> {
        let (orders, receiver) = mpsc::channel(8);
        let hello = Hello { machine: vec![7; 32], ..Hello::default() };
        let first = AgentMessage { message: Some(agent_message::Message::Hello(hello)) };
        orders.send(first).await.map_err(|_closed| Status::internal("closed"))?;
        let mut client = MeshClient::new(channel).max_decoding_message_size(proto::MAX_MESSAGE_BYTES);
        let answers = client.sync(ReceiverStream::new(receiver)).await?.into_inner();
        Ok(Self { orders, answers })
    }

    /// The bytes of the next whole update, which it acknowledges.
    pub(crate) async fn update(&mut self) -> Result<Vec<u8>, Status> {
        let mut bytes = Vec::new();
        loop {
            let answer =
                self.answers.message().await?.ok_or_else(|| Status::cancelled("the session ended"))?;
            let Some(gateway_message::Message::Update(update)) = answer.message else { continue };
            bytes.extend(update.parts.concat());
            if update.last {
                let ack = proto::v1::Ack { generation: update.generation, trouble: String::new() };
                let message = AgentMessage { message: Some(agent_message::Message::Ack(ack)) };
                self.orders.send(message).await.map_err(|_closed| Status::internal("closed"))?;
                return Ok(bytes);
            }
        }
    }
}

/// Whether bytes contain a text.
pub(crate) fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}
