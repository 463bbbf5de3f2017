//! One agent: a session, and another one when it is lost.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use prost::Message as _;
use proto::node::StateDigest;
use proto::v1::mesh_client::MeshClient;
use proto::v1::{Ack, AgentMessage, Generation, Hello, Update, agent_message, gateway_message};
use rand::rngs::StdRng;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use vm_agent::session::Backoff;

use super::board::Board;
use super::joining::Member;
use super::known::{self, Known};

/// The waits of the agent between attempts.
const FIRST_WAIT: Duration = Duration::from_millis(200);
const LAST_WAIT: Duration = Duration::from_secs(5);
/// Messages on their way up.
const OUTBOX: usize = 4;

/// An agent.
pub(super) struct Agent {
    member: Member,
    gateway: String,
    /// Whether it keeps the state of its group.
    keeps: bool,
    known: Arc<Known>,
    /// Turns of those that have nothing yet.
    turns: Arc<Semaphore>,
    applied: Option<Generation>,
    settings: StateDigest,
    /// What it has in this session.
    has: Option<u64>,
}

impl Agent {
    pub(super) fn new(
        member: Member,
        gateway: SocketAddr,
        keeps: bool,
        known: Arc<Known>,
        turns: Arc<Semaphore>,
    ) -> Self {
        let gateway = gateway.to_string();
        let settings = StateDigest::default();
        Self { member, gateway, keeps, known, turns, applied: None, settings, has: None }
    }

    /// Keeps a session.
    pub(super) async fn run(mut self, board: Arc<Board>) {
        let mut random: StdRng = rand::make_rng();
        let mut backoff = Backoff::new(FIRST_WAIT, LAST_WAIT);
        loop {
            let ended = Box::pin(self.session(&board)).await;
            let had = self.has.take();
            if had.is_some() {
                backoff.reset();
            }
            board.lost(had, ended.err().map(|error| format!("{error:#}")).unwrap_or_default());
            tokio::time::sleep(backoff.next(&mut random)).await;
        }
    }

    async fn session(&mut self, board: &Board) -> Result<()> {
        // Snapshots of all agents at once would fill this machine's memory, on both sides.
        let turns = Arc::clone(&self.turns);
        let mut turn = if self.applied.is_none() { Some(turns.acquire_owned().await?) } else { None };
        let epoch = pki::UnixTime::since_unix_epoch(Duration::ZERO);
        let tls = self.member.credentials.tls(epoch, pki::system_time())?;
        let connection = vm_agent::transport::Dialer::default().connect(&self.gateway, tls).await?;
        let (up, outbox) = mpsc::channel(OUTBOX);
        up.try_send(AgentMessage { message: Some(agent_message::Message::Hello(self.hello())) })?;
        let mut client =
            MeshClient::new(connection.channel).max_decoding_message_size(proto::MAX_MESSAGE_BYTES);
        let mut down = client.sync(ReceiverStream::new(outbox)).await?.into_inner();
        board.note(|report| report.sessions += 1);
        let mut updates = Vec::new();
        while let Some(message) = down.message().await? {
            let length = u64::try_from(message.encoded_len())?;
            board.note(|report| report.bytes += length);
            match message.message.context("an empty message")? {
                gateway_message::Message::UpToDate(answer) => {
                    self.is_at(answer.generation.context("no generation")?, board);
                }
                gateway_message::Message::Behind(_) => bail!("the gateway is behind"),
                gateway_message::Message::Renew(_) => bail!("the gateway asks for a renewal"),
                gateway_message::Message::Update(update) => {
                    let (generation, last) = (update.generation.context("no generation")?, update.last);
                    self.settings = known::settings(&update.parts).unwrap_or(self.settings);
                    if self.keeps {
                        updates.push(update);
                    }
                    if last {
                        self.known_after(&mut updates)?;
                        let ack = agent_message::Message::Ack(Ack {
                            generation: Some(generation),
                            ..Ack::default()
                        });
                        up.try_send(AgentMessage { message: Some(ack) })?;
                        self.is_at(generation, board);
                        drop(turn.take());
                    }
                }
            }
        }
        bail!("the gateway closed the session")
    }

    fn known_after(&self, updates: &mut Vec<Update>) -> Result<()> {
        let updates = std::mem::take(updates);
        if updates.is_empty() { Ok(()) } else { self.known.apply(&updates) }
    }

    fn is_at(&mut self, generation: Generation, board: &Board) {
        self.applied = Some(generation);
        board.has(generation.counter, self.has.replace(generation.counter));
    }

    fn hello(&self) -> Hello {
        let digest = self.applied.and_then(|applied| self.known.digest(applied, self.settings));
        Hello {
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            applied: self.applied,
            digest: digest.map(|digest| digest.to_vec()).unwrap_or_default(),
            known_constraints: Vec::new(),
            report: Some(self.member.report.clone()),
            machine: self.member.machine.clone(),
        }
    }
}
