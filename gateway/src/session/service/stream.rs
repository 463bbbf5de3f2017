//! One open session: what comes from the agent moves its cursor, what the cursor says goes to the agent.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use proto::v1::gateway_message::Message;
use proto::v1::{AgentMessage, GatewayMessage, Hello, HostReport, Renew, Update};
use telemetry::shutdown::Shutdown;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::{Status, Streaming};

use super::report::{InvalidReport, Origin};
use super::rotation::{self, Rotation};
use super::{MeshService, report};
use crate::session::metrics::{Answer, EndReason};
use crate::session::{Ended, Exchange, Feed, Heard, Next, Rejection, Session, Write};
use crate::store::Workload;
use crate::tls::Cut;

/// What the agent receives.
pub(in crate::session) type SyncStream = Pin<Box<dyn Stream<Item = Result<GatewayMessage, Status>> + Send>>;

/// How often a session's reports are recorded at most.
const REPORT_PERIOD: Duration = Duration::from_secs(1);
/// How long a workload that has just joined may be unknown to the compiled state.
const ABSENT_FOR: Duration = Duration::from_secs(5);
/// Longer than any certificate is valid.
const NEVER: Duration = Duration::from_hours(87_600);

/// An agent that was let in.
pub(super) struct Peer {
    pub(super) workload: Arc<Workload>,
    pub(super) hello: Hello,
    /// Where its connection comes from, unless that is this machine.
    pub(super) origin: Origin,
    /// What cuts its connection.
    pub(super) cut: Cut,
    /// How long its certificate is still valid.
    pub(super) expires: Option<Duration>,
    /// Asks it to renew; `None`: nothing does.
    pub(super) rotation: Option<Rotation>,
    pub(super) session: Session,
    pub(super) inbound: Streaming<AgentMessage>,
}

/// A session as its stream sees it.
struct Open {
    service: MeshService,
    workload: Arc<Workload>,
    origin: Origin,
    cut: Cut,
    exchange: Exchange,
    inbound: Streaming<AgentMessage>,
    /// Made once: registering timers and watches anew for every message of every session costs more than the message.
    ends: Pin<Box<dyn Future<Output = End> + Send>>,
    renewal: Pin<Box<dyn Future<Output = Rotation> + Send>>,
    answered: bool,
    feed: watch::Receiver<Option<Arc<Feed>>>,
    /// What the host reported last and is not recorded yet.
    reported: Option<HostReport>,
    report_at: Instant,
    /// Until when the workload may be absent from the state.
    absent_until: Option<Instant>,
}

/// Why a session is over, and what the agent is told.
struct End(EndReason, Option<Status>);

/// What happened next.
enum Event {
    /// On the heap: what an agent says is long, and seldom.
    Agent(Box<Result<Option<AgentMessage>, Status>>),
    State,
    Renewal(Rotation),
    Report,
    End(End),
}

/// Runs a session until it is over.
pub(super) fn run(
    service: MeshService,
    peer: Peer,
    feed: watch::Receiver<Option<Arc<Feed>>>,
    latest: &Feed,
) -> SyncStream {
    let mut open = Open::new(service, peer, feed, latest);
    Box::pin(async_stream::stream! {
        loop {
            match open.next().await {
                Ok(messages) => {
                    for message in messages {
                        let write = open.begin_write();
                        yield Ok(GatewayMessage { message: Some(message) });
                        // The transport asks for more once the agent takes what it has.
                        drop(write);
                    }
                }
                Err(End(reason, status)) => {
                    open.over(reason);
                    if let Some(status) = status {
                        yield Err(status);
                    }
                    return;
                }
            }
        }
    })
}

impl Open {
    fn new(
        service: MeshService,
        peer: Peer,
        feed: watch::Receiver<Option<Arc<Feed>>>,
        latest: &Feed,
    ) -> Self {
        let Peer { workload, hello, origin, cut, expires, rotation, session, inbound } = peer;
        let expires_at = Instant::now() + expires.unwrap_or(NEVER).min(NEVER);
        let ended = session.ended();
        let exchange = Exchange::open(Arc::clone(&workload), &hello, latest, session);
        Self {
            ends: Box::pin(ends(Arc::clone(&workload), ended, service.shutdown.clone(), expires_at)),
            service,
            workload,
            origin,
            cut,
            exchange,
            inbound,
            renewal: Box::pin(Rotation::due(rotation)),
            answered: false,
            feed,
            reported: None,
            report_at: Instant::now(),
            absent_until: None,
        }
    }

    fn begin_write(&self) -> Write {
        let now = Instant::now().into_std();
        self.service.registry.writes().begin(self.cut.clone(), now)
    }

    /// What to send next, as soon as there is something.
    async fn next(&mut self) -> Result<Vec<Message>, End> {
        loop {
            match self.next_step() {
                Next::Wait => self.absent_until = None,
                Next::Absent => {
                    self.absent_until.get_or_insert_with(|| Instant::now() + ABSENT_FOR);
                }
                Next::Behind => return Err(End(EndReason::Behind, None)),
                Next::Revoked => return Err(End::revoked(&self.workload)),
                Next::Say(messages) => {
                    self.absent_until = None;
                    self.count(&messages);
                    return Ok(messages);
                }
            }
            if let Some(renew) = self.wait().await? {
                return Ok(vec![Message::Renew(renew)]);
            }
        }
    }

    /// What to do with the latest state. A session holds none itself: while an agent does not read, the state it was
    /// sent parts of would be kept for it.
    fn next_step(&mut self) -> Next {
        let latest = self.feed.borrow_and_update().clone();
        self.exchange.next(latest.as_deref(), &self.service.store.workloads())
    }

    /// Waits for something that may change what to send, and takes note of it. What it asks of the agent, if it does.
    async fn wait(&mut self) -> Result<Option<Renew>, End> {
        let Self { ends, inbound, renewal, feed, .. } = self;
        let event = tokio::select! {
            biased;
            end = ends => Event::End(end),
            received = inbound.message() => Event::Agent(Box::new(received)),
            changed = feed.changed() => match changed {
                Ok(()) => Event::State,
                Err(_closed) => Event::End(End::shutdown()),
            },
            due = renewal => Event::Renewal(due),
            () = until(self.report_at), if self.reported.is_some() => Event::Report,
            () = until(self.absent_until), if self.absent_until.is_some() => {
                Event::End(End::absent(&self.workload))
            }
        };
        match event {
            Event::State => {}
            Event::End(end) => return Err(end),
            Event::Renewal(rotation) => return Ok(Some(self.renew(rotation))),
            Event::Report => self.record().await?,
            Event::Agent(received) => match *received {
                Ok(Some(received)) => self.receive(received)?,
                Ok(None) | Err(_) => return Err(End(EndReason::Closed, None)),
            },
        }
        Ok(None)
    }

    /// The agent is to renew; it is asked again when the roots change once more.
    fn renew(&mut self, rotation: Rotation) -> Renew {
        self.renewal = Box::pin(Rotation::due(Some(rotation)));
        let within = rotation::period(self.service.store.workloads().len());
        tracing::debug!(workload = %self.workload.name, ?within, "asked to renew for the roots");
        Renew { within_seconds: u32::try_from(within.as_secs()).unwrap_or(u32::MAX) }
    }

    fn receive(&mut self, received: AgentMessage) -> Result<(), End> {
        let heard = self.exchange.receive(received);
        match heard
            .map_err(|error| End(EndReason::Protocol, Some(Status::invalid_argument(error.to_string()))))?
        {
            Heard::Acknowledged => self.service.metrics.acknowledged(),
            Heard::Refused(Rejection { generation, reason }) => {
                tracing::warn!(workload = %self.workload.name, generation = generation.counter, reason, "agent refused the state");
                self.service.metrics.rejected();
            }
            Heard::Report(report) => self.reported = Some(report),
            Heard::Nothing => {}
        }
        Ok(())
    }

    async fn record(&mut self) -> Result<(), End> {
        self.report_at = Instant::now() + REPORT_PERIOD;
        let reported = self.reported.take();
        self.service.note_nic(self.exchange.session(), &self.workload, reported.as_ref());
        MeshService::note_probes(self.exchange.session(), reported.as_ref());
        let store = &self.service.store;
        let version = store.workload(&self.workload.name).map(|workload| workload.agent_version.clone());
        let report = report::read(&version.unwrap_or_default(), reported.as_ref(), self.origin);
        let report = report.map_err(|invalid| match invalid {
            // A host that has moved still uses the connection from where it was: the next one tells.
            InvalidReport::Translated { .. } => {
                let text = format!("{invalid}; connect from where the host is now");
                End(EndReason::Moved, Some(Status::unavailable(text)))
            }
            InvalidReport::Count(_) | InvalidReport::Address(_) => {
                End(EndReason::Protocol, Some(Status::invalid_argument(invalid.to_string())))
            }
        })?;
        let Some(report) = report else { return Ok(()) };
        self.service.metrics.reported();
        self.exchange.session().refused_report(None);
        report::record(store, &self.workload, report)
            .await
            .map_err(|error| End(EndReason::Store, Some(Status::unavailable(error.to_string()))))
    }

    fn count(&mut self, messages: &[Message]) {
        match messages.first() {
            Some(Message::UpToDate(_)) => self.answer(Answer::UpToDate),
            Some(Message::Behind(_)) => self.answer(Answer::Behind),
            Some(Message::Update(Update { base: None, .. })) => self.answer(Answer::Snapshot),
            Some(Message::Update(_)) => self.answer(Answer::Delta),
            Some(Message::Renew(_)) | None => {}
        }
        if matches!(messages.first(), Some(Message::Update(_))) {
            self.service.metrics.sent(messages.iter().map(part_bytes).sum());
        }
    }

    /// Counts the first answer of the session.
    fn answer(&mut self, answer: Answer) {
        if !std::mem::replace(&mut self.answered, true) {
            self.service.metrics.answered(answer);
        }
    }

    fn over(&self, reason: EndReason) {
        self.service.metrics.end(reason);
        tracing::info!(workload = %self.workload.name, reason = reason.name(), "session over");
    }
}

impl End {
    fn shutdown() -> Self {
        Self(EndReason::Shutdown, Some(Status::unavailable("the gateway stops")))
    }

    fn absent(workload: &Workload) -> Self {
        let Workload { name, target, .. } = workload;
        let text = format!("workload {name} has no state: its {target} is not known to the gateway");
        Self(EndReason::Absent, Some(Status::unavailable(text)))
    }

    fn revoked(workload: &Workload) -> Self {
        let text = format!("workload {} was deleted, left, or was replaced", workload.name);
        Self(EndReason::Unauthorised, Some(Status::permission_denied(text)))
    }
}

fn part_bytes(message: &Message) -> usize {
    match message {
        Message::Update(update) => update.parts.iter().map(bytes::Bytes::len).sum(),
        Message::UpToDate(_) | Message::Behind(_) | Message::Renew(_) => 0,
    }
}

/// Returns when a session must not go on.
async fn ends(
    workload: Arc<Workload>,
    ended: impl Future<Output = Ended> + Send,
    shutdown: Shutdown,
    expires_at: Instant,
) -> End {
    tokio::select! {
        biased;
        ended = ended => match ended {
            Ended::Revoked => End::revoked(&workload),
            Ended::Replaced => {
                End(EndReason::Replaced, Some(Status::aborted("this machine opened another session")))
            }
        },
        () = shutdown.wait() => End::shutdown(),
        () = tokio::time::sleep_until(expires_at) => {
            let text = "the certificate of this session expired: connect with the renewed one";
            End(EndReason::Expired, Some(Status::unauthenticated(text)))
        }
    }
}

/// On the heap, and there only while it is waited for: a timer in every session's own memory is waste.
async fn until(moment: impl Into<Option<Instant>>) {
    match moment.into() {
        Some(moment) => Box::pin(tokio::time::sleep_until(moment)).await,
        None => std::future::pending().await,
    }
}
