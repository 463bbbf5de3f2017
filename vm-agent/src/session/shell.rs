//! The session's task: connects, moves what [`Core`] decides, and starts over elsewhere when a stream ends.
//!
//! Answers of the kernel are taken whether or not a gateway is there.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use pki::KeyHash;
use proto::v1::agent_message::Message as Up;
use proto::v1::mesh_client::MeshClient;
use proto::v1::{AgentMessage, Hello, HostReport, Reject};
use rand::RngExt as _;
use rand::rngs::StdRng;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::confirmation::{Unconfirmed, contradicts, generation};
use super::news::{self, News};
use super::refusal::{is_duplicate, is_refusal, least_wait, refusal};
use super::{Backoff, Core, Gateways, Outcome, Version};
use crate::agent::{Agent, ENFORCEMENT, Source, Topic};
use crate::credentials::Credentials;
use crate::kernel::{Applied, KernelStatus, Tag, Target};
use crate::member::{Member, host_report, literal_addresses, underlay};
use crate::transport;

/// Waits between rounds over all gateways.
const FIRST_WAIT: Duration = Duration::from_millis(200);
const LAST_WAIT: Duration = Duration::from_secs(5);
/// How long a gateway may take to answer the hello.
const ANSWER: Duration = Duration::from_secs(10);
/// How long the state of the previous run may take to be enforced before a gateway is asked.
const RESTORE: Duration = Duration::from_secs(15);
/// Largest chunk of an update.
const MAX_MESSAGE: usize = proto::MAX_MESSAGE_BYTES;
/// Acknowledgements that wait for the network; more would only repeat what newer ones say.
const OUTBOX: usize = 64;
/// Kinds of constraints this agent can enforce; none exists yet.
const KNOWN_CONSTRAINTS: [&str; 0] = [];

/// The session of one membership.
pub struct Shell {
    agent: Arc<Agent>,
    member: Arc<Member>,
    core: Core,
    gateways: Gateways,
    backoff: Backoff,
    rng: StdRng,
    applied: watch::Receiver<Applied>,
    /// What is on the disk.
    recorded: watch::Receiver<Option<Tag>>,
    unconfirmed: Unconfirmed,
    kernel: watch::Receiver<KernelStatus>,
    underlay: Vec<IpAddr>,
    protected: Vec<(String, IpAddr)>,
    /// Whether the state in force came from a gateway.
    received: bool,
    /// The key that the last attempt showed.
    shown: Option<KeyHash>,
}

/// Why a stream or an attempt ended.
enum End {
    /// Nobody could be reached, or the connection broke.
    Lost(String),
    /// The gateway said no.
    Refused(Status),
    /// Another gateway may know more.
    Behind(String),
    /// What came did not fit.
    Resync(String),
    /// There is a new certificate: the next stream shows it before the old one expires.
    Renewed,
}

/// The open stream.
struct Stream {
    up: mpsc::Sender<AgentMessage>,
    down: Streaming<proto::v1::GatewayMessage>,
}

impl Shell {
    /// The session of a membership; the generator decides about waits only.
    #[must_use]
    pub fn new(agent: Arc<Agent>, member: Arc<Member>, rng: StdRng) -> Self {
        let gateways = Gateways::new(agent.gateways(&member.enrolment().gateways));
        let (applied, kernel) = (member.kernel.applied(), member.kernel.status());
        let recorded = member.recorded.subscribe();
        Self {
            agent,
            member,
            core: Core::default(),
            gateways,
            backoff: Backoff::new(FIRST_WAIT, LAST_WAIT),
            rng,
            applied,
            recorded,
            unconfirmed: Unconfirmed::default(),
            kernel,
            underlay: Vec::new(),
            protected: Vec::new(),
            received: false,
            shown: None,
        }
    }

    /// Runs until it is dropped.
    pub async fn run(mut self) {
        self.restore().await;
        loop {
            self.await_certificate().await;
            let end = self.attempt().await;
            self.end(end).await;
        }
    }

    /// Gives the kernel the state of the previous run, and waits for its answer: a gateway is asked afterwards.
    async fn restore(&mut self) {
        let Some(version) = self.member.restored.clone() else { return };
        self.protected = literal_addresses(self.gateways.all());
        let (core, outcome) = Core::restored(version);
        self.core = core;
        self.act(None, outcome);
        let answered = async {
            loop {
                if self.applied.changed().await.is_err() {
                    return;
                }
                let applied = self.applied.borrow_and_update().clone();
                if applied.tag.is_some() || applied.refused.is_some() {
                    return self.answer(None);
                }
            }
        };
        if timeout(RESTORE, answered).await.is_err() {
            tracing::warn!("the last good state is not enforced yet, asking a gateway");
        }
    }

    /// Until there is a certificate that is still valid; the renewal sees to that.
    async fn await_certificate(&mut self) {
        let mut credentials = self.member.credentials.subscribe();
        loop {
            let now = self.agent.now();
            let valid =
                credentials.borrow_and_update().as_ref().is_some_and(|held| !held.remaining(now).is_zero());
            if valid {
                return;
            }
            // Bounded, because a clock that is set back makes a certificate valid again.
            let changed = timeout(Duration::from_secs(30), async move {
                let _closed = credentials.changed().await;
                credentials
            });
            credentials = match self.answering(changed).await {
                Ok(receiver) => receiver,
                Err(_elapsed) => self.member.credentials.subscribe(),
            };
        }
    }

    /// One stream from its opening to its end.
    async fn attempt(&mut self) -> End {
        let Some(gateway) = self.gateways.current().map(str::to_owned) else {
            return End::Lost("no gateway is known".to_owned());
        };
        self.agent.tell(|report| report.session.gateway.clone_from(&gateway));
        self.protect().await;
        let mut news = News::of(&self.agent);
        // Others may come from here on: they are news to this stream, and not what a gateway refuses on it.
        let mut credentials = self.member.credentials.subscribe();
        let Some(held) = credentials.borrow_and_update().clone() else {
            return End::Lost("there is no certificate".to_owned());
        };
        self.shown = Some(held.key().hash());
        let mut stream = match self.open(&gateway, &held).await {
            Ok(stream) => stream,
            Err(end) => return end,
        };
        let mut is_answered = false;
        loop {
            tokio::select! {
                changed = credentials.changed() => {
                    if changed.is_ok() {
                        return End::Renewed;
                    }
                }
                message = stream.down.message() => {
                    let outcomes = match message {
                        Ok(Some(message)) => self.core.receive(message),
                        Ok(None) => return End::Lost(format!("{gateway}: the gateway closed the session")),
                        Err(status) => return of_status(&gateway, status),
                    };
                    for outcome in outcomes {
                        if let Some(end) = self.act(Some(&stream.up), outcome) {
                            return end;
                        }
                    }
                    // What is wrong since an earlier session is news to this gateway.
                    if !std::mem::replace(&mut is_answered, true) {
                        self.core.forget_told();
                        self.answer(Some(&stream.up));
                    }
                }
                changed = self.applied.changed() => {
                    if changed.is_err() {
                        std::future::pending::<()>().await;
                    }
                    self.answer(Some(&stream.up));
                }
                changed = self.recorded.changed() => {
                    if changed.is_ok() {
                        self.confirm(Some(&stream.up));
                    }
                }
                () = news.changed() => send(&stream.up, Up::Report(self.host_report())),
                changed = self.kernel.changed() => {
                    if changed.is_ok() {
                        self.report_underlay(&stream.up);
                    }
                }
            }
        }
    }

    async fn open(&mut self, gateway: &str, credentials: &Credentials) -> Result<Stream, End> {
        let tls = credentials
            .tls(self.member.not_earlier, self.agent.time.clone())
            .map_err(|error| End::Lost(error.to_string()))?;
        let name = gateway.to_owned();
        // On the heap: this future would be half of every task that awaits it.
        let dialer = self.agent.dialer();
        let connecting = Box::pin(async move { dialer.connect(&name, tls).await });
        let connection = self.answering(connecting).await.map_err(|error| End::Lost(error.to_string()))?;
        let (up, outbox) = mpsc::channel(OUTBOX);
        let agent = self.agent.clone();
        let observing = async move { underlay(&agent).await };
        self.underlay = self.answering(observing).await.unwrap_or_default();
        self.await_record().await;
        let hello = self.hello();
        send(&up, Up::Hello(hello));
        let mut client = MeshClient::new(connection.channel).max_decoding_message_size(MAX_MESSAGE);
        let opening = async move { timeout(ANSWER, client.sync(ReceiverStream::new(outbox))).await };
        match self.answering(opening).await {
            Ok(Ok(response)) => Ok(Stream { up, down: response.into_inner() }),
            Ok(Err(status)) => Err(of_status(gateway, status)),
            Err(_elapsed) => Err(End::Lost(format!("{gateway}: no answer to the hello"))),
        }
    }

    fn hello(&mut self) -> Hello {
        let applied = self.core.connect().cloned();
        Hello {
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            applied: applied.as_ref().map(|version| generation(version.tag)),
            digest: applied.map(|version| version.node.digest().to_vec()).unwrap_or_default(),
            known_constraints: KNOWN_CONSTRAINTS.iter().map(ToString::to_string).collect(),
            report: Some(self.host_report()),
            machine: self.agent.machine.as_bytes().to_vec(),
        }
    }

    /// Waits for something else while the kernel's answers are taken.
    async fn answering<F: Future>(&mut self, future: F) -> F::Output {
        tokio::pin!(future);
        loop {
            tokio::select! {
                output = &mut future => return output,
                changed = self.applied.changed() => {
                    if changed.is_err() {
                        return future.await;
                    }
                    self.answer(None);
                }
            }
        }
    }

    /// Takes the kernel's answer.
    fn answer(&mut self, up: Option<&mpsc::Sender<AgentMessage>>) {
        let applied = self.applied.borrow_and_update().clone();
        if applied.refused.is_some() || applied.trouble.is_some() {
            self.agent.refusals.fetch_add(1, Ordering::Relaxed);
        }
        for outcome in self.core.answer(&applied) {
            // An answer of the kernel never ends a stream.
            let _none = self.act(up, outcome);
        }
    }

    /// Does one thing; returns why the stream has to end, if it has to.
    fn act(&mut self, up: Option<&mpsc::Sender<AgentMessage>>, outcome: Outcome) -> Option<End> {
        match outcome {
            Outcome::Target(version) => {
                self.received = up.is_some() || self.received;
                let target = Target {
                    tag: Some(version.tag),
                    state: version.state,
                    protected: self.protected.clone(),
                };
                self.member.targets.send_replace(Some(Arc::new(target)));
                if up.is_some() {
                    self.connected();
                }
            }
            Outcome::Ack(version) => {
                self.unconfirmed.runs(version.tag);
                self.running(version);
                self.confirm(up);
            }
            Outcome::Trouble(tag, trouble) => {
                if let Some((ack, up)) = self.unconfirmed.troubled(tag, trouble).zip(up) {
                    send(up, Up::Ack(ack));
                }
            }
            Outcome::Current => {
                self.received = true;
                self.agent.tell(|report| report.source = Source::Gateway);
                self.connected();
            }
            Outcome::Reject(tag, reason) => {
                tracing::warn!(generation = tag.counter, reason, "a generation is not in force");
                if let Some(up) = up {
                    self.connected();
                    let generation = Some(generation(tag));
                    send(up, Up::Reject(Reject { generation, reason, contradicts: false }));
                }
            }
            Outcome::Contradicts(tag) => {
                tracing::warn!(generation = tag.counter, "the gateway has another state under this number");
                if let Some(up) = up {
                    send(up, Up::Reject(contradicts(tag)));
                }
            }
            Outcome::Renew(within) => {
                let wait = within.mul_f64(self.rng.random_range(0.5..=1.0));
                tracing::info!(?wait, "the gateway asks for a renewal of the certificate");
                self.member.renew_in(wait);
            }
            Outcome::Behind(reason) => return Some(End::Behind(reason)),
            Outcome::Resync(reason) => return Some(End::Resync(reason)),
        }
        None
    }

    /// Tells the gateway what the kernel runs, once a restart would not take it back.
    fn confirm(&mut self, up: Option<&mpsc::Sender<AgentMessage>>) {
        let Some(up) = up else { return };
        let recorded = *self.recorded.borrow();
        let Some(ack) = self.unconfirmed.confirm(recorded) else { return };
        self.connected();
        send(up, Up::Ack(ack));
    }

    /// Until what the kernel runs is on the disk: the hello acknowledges it.
    async fn await_record(&mut self) {
        let Some(tag) = self.core.applied().map(|version| version.tag) else { return };
        let mut recorded = self.recorded.clone();
        let written = async move { recorded.wait_for(|recorded| *recorded == Some(tag)).await.is_ok() };
        let _late = self.answering(timeout(ANSWER, written)).await;
        self.unconfirmed.told();
    }

    /// The gateway talks to this host: what was wrong with the last one is over.
    fn connected(&mut self) {
        self.backoff.reset();
        let gateway = self.gateways.current().unwrap_or_default().to_owned();
        self.agent.tell(|report| {
            if !report.session.connected {
                tracing::info!(gateway, "connected");
            }
            report.session =
                crate::agent::Session { connected: true, gateway, ..crate::agent::Session::default() };
        });
    }

    fn running(&mut self, version: Version) {
        let source = if self.received { Source::Gateway } else { Source::Snapshot };
        self.agent.tell(|report| report.source = source);
        self.agent.warn(Topic::Failure, None);
        self.agent.health.ready(ENFORCEMENT);
        let known = self.agent.gateways(version.node.gateways());
        self.gateways.replace(&known);
        tracing::debug!(generation = version.tag.counter, "enforced");
        self.member.running.send_replace(Some(version));
    }

    /// Tells the gateway when this host's underlay addresses changed.
    fn report_underlay(&mut self, up: &mpsc::Sender<AgentMessage>) {
        let now = self.kernel.borrow_and_update().underlay.clone();
        // Empty before the kernel's owner has looked; a host without addresses has no session to say so in.
        if !now.is_empty() && now != self.underlay {
            tracing::info!(addresses = ?now, "the underlay addresses changed");
            self.underlay = now;
            send(up, Up::Report(self.host_report()));
        }
    }

    fn host_report(&self) -> HostReport {
        news::report(&self.agent, host_report(&self.underlay))
    }

    /// Notes why the stream ended, and waits where all gateways were tried.
    async fn end(&mut self, end: End) {
        let (reason, next, least) = match end {
            End::Lost(reason) | End::Behind(reason) => (reason, true, Duration::ZERO),
            End::Resync(reason) => (reason, false, Duration::ZERO),
            End::Renewed => return,
            End::Refused(status) => {
                self.agent.tell(|report| report.session.duplicate = is_duplicate(&status));
                if status.code() == Code::PermissionDenied && !is_duplicate(&status) {
                    self.agent.refuse(self.shown, transport::describe(&status));
                }
                (refusal(&status), true, least_wait(&status))
            }
        };
        let gateway = self.gateways.current().unwrap_or_default().to_owned();
        self.agent.tell(|report| {
            report.session.connected = false;
            report.session.error.clone_from(&reason);
        });
        tracing::warn!(gateway, reason, "no session; the last good state stays enforced");
        let pause = if next { self.gateways.advance() } else { true };
        if pause {
            let wait = self.backoff.next(&mut self.rng).max(least);
            let member = self.member.clone();
            self.answering(async move { member.rest(wait).await }).await;
        }
    }

    /// The addresses that connections to the gateways go to: no mesh prefix may cover them.
    async fn protect(&mut self) {
        let names = self.gateways.all().to_vec();
        let dialer = self.agent.dialer();
        let before = self.protected.clone();
        let resolving = async move {
            let mut found = BTreeMap::new();
            for name in names {
                let label = format!("gateway {name}");
                match dialer.resolve(&name).await {
                    Ok(addresses) => {
                        found.extend(addresses.into_iter().map(|address| (address.ip(), label.clone())));
                    }
                    // What was known may still be true.
                    Err(_unknown) => found.extend(
                        before
                            .iter()
                            .filter(|(known, _)| *known == label)
                            .map(|(known, at)| (*at, known.clone())),
                    ),
                }
            }
            found
        };
        let found = self.answering(resolving).await;
        self.protected = found.into_iter().map(|(address, name)| (name, address)).collect();
        // What runs protects them too, without waiting for the next state, which may be behind them.
        self.member.targets.send_if_modified(|target| {
            let Some(known) = target.as_ref().filter(|known| known.protected != self.protected) else {
                return false;
            };
            *target = Some(Arc::new(Target { protected: self.protected.clone(), ..Target::clone(known) }));
            true
        });
    }
}

/// Sends upward without waiting: a stream that takes nothing is found dead by its keepalive.
fn send(up: &mpsc::Sender<AgentMessage>, message: Up) {
    if up.try_send(AgentMessage { message: Some(message) }).is_err() {
        tracing::debug!("a message to the gateway was not sent, the stream is ending");
    }
}

fn of_status(gateway: &str, status: Status) -> End {
    if is_refusal(&status) {
        End::Refused(status)
    } else {
        End::Lost(format!("{gateway}: {}", transport::describe(&status)))
    }
}
