//! One open session: what comes from the agent moves its cursor, what the cursor says goes to the agent.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use proto::v1::gateway_message::Message;
use proto::v1::{
    Ack, AgentMessage, Behind, GatewayMessage, Hello, HostReport, Reject, UpToDate, Update, agent_message,
};
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::{Status, Streaming};

use super::{MeshService, message, report};
use crate::session::metrics::{Answer, EndReason};
use crate::session::{Cursor, Ended, Feed, Greeting, Rejection, Session, Step};
use crate::store::{Workload, Workloads};

/// What the agent receives.
pub(in crate::session) type SyncStream = Pin<Box<dyn Stream<Item = Result<GatewayMessage, Status>> + Send>>;

/// How often a session's reports are recorded at most.
const REPORT_PERIOD: Duration = Duration::from_secs(1);
/// How long a workload that has just joined may be unknown to the compiled state.
const ABSENT_FOR: Duration = Duration::from_secs(5);
/// A longer reason of a rejection is cut.
const MAX_REASON: usize = 1024;

/// An agent that was let in.
pub(super) struct Peer {
    pub(super) workload: Arc<Workload>,
    pub(super) hello: Hello,
    /// How long its certificate is still valid.
    pub(super) expires: Option<Duration>,
    pub(super) session: Session,
    pub(super) inbound: Streaming<AgentMessage>,
}

/// A session as its stream sees it.
struct Open {
    service: MeshService,
    workload: Arc<Workload>,
    session: Session,
    cursor: Cursor,
    reported: Option<HostReport>,
    report_at: Instant,
    /// Until when the workload may be absent from the state.
    absent_until: Option<Instant>,
}

/// Why a session is over, and what the agent is told.
struct End(EndReason, Option<Status>);

/// What happened next.
enum Event {
    Agent(Result<Option<AgentMessage>, Status>),
    State,
    Report,
    End(End),
}

/// Runs a session until it is over.
pub(super) fn run(
    service: MeshService,
    peer: Peer,
    mut feed: watch::Receiver<Option<Arc<Feed>>>,
    mut latest: Arc<Feed>,
) -> SyncStream {
    let Peer { workload, hello, expires, session, mut inbound } = peer;
    let mut workloads = service.store.watch_workloads();
    let expires_at = expires.map(|left| Instant::now() + left.min(Duration::from_secs(u32::MAX.into())));
    let (cursor, greeting) = Cursor::open(workload.name.clone(), &hello, &latest);
    let mut open = Open {
        service,
        workload,
        session,
        cursor,
        reported: None,
        report_at: Instant::now(),
        absent_until: None,
    };
    Box::pin(async_stream::stream! {
        let mut first = match greeting {
            Greeting::UpToDate(generation) => {
                open.service.metrics.answered(Answer::UpToDate);
                open.session.acknowledged(generation);
                yield Ok(message(Message::UpToDate(UpToDate { generation: Some(generation) })));
                false
            }
            Greeting::Behind(generation) => {
                open.service.metrics.answered(Answer::Behind);
                yield Ok(message(Message::Behind(Behind { generation: Some(generation) })));
                open.over(EndReason::Behind);
                return;
            }
            Greeting::Follows => true,
        };
        let end = loop {
            if let Some(now) = feed.borrow_and_update().clone() {
                latest = now;
            }
            match open.cursor.next(&latest) {
                Step::Wait => open.absent_until = None,
                Step::Absent => {
                    open.absent_until.get_or_insert_with(|| Instant::now() + ABSENT_FOR);
                }
                Step::Send(updates) => {
                    open.absent_until = None;
                    open.count_sent(&updates, std::mem::take(&mut first));
                    for update in updates {
                        yield Ok(message(Message::Update(update)));
                    }
                }
            }
            let (report_at, has_report) = (open.report_at, open.reported.is_some());
            let event = tokio::select! {
                biased;
                end = open.ends(&mut workloads, expires_at) => Event::End(end),
                received = inbound.message() => Event::Agent(received),
                changed = feed.changed() => match changed {
                    Ok(()) => Event::State,
                    Err(_closed) => Event::End(End::shutdown()),
                },
                () = tokio::time::sleep_until(report_at), if has_report => Event::Report,
            };
            match event {
                Event::State => {}
                Event::End(end) => break end,
                Event::Report => {
                    if let Err(end) = open.record().await {
                        break end;
                    }
                }
                Event::Agent(Ok(Some(received))) => {
                    if let Err(end) = open.receive(received) {
                        break end;
                    }
                }
                Event::Agent(Ok(None) | Err(_)) => break End(EndReason::Closed, None),
            }
        };
        let End(reason, status) = end;
        open.over(reason);
        if let Some(status) = status {
            yield Err(status);
        }
    })
}

impl Open {
    /// Returns when the session must not go on. Cancel safe.
    async fn ends(
        &mut self,
        workloads: &mut watch::Receiver<Arc<Workloads>>,
        expires_at: Option<Instant>,
    ) -> End {
        let (name, key) = (&self.workload.name, self.workload.key);
        let never = Instant::now() + Duration::from_secs(u32::MAX.into());
        let (expires_at, absent_until) = (expires_at.unwrap_or(never), self.absent_until.unwrap_or(never));
        let is_revoked =
            |workloads: &Arc<Workloads>| workloads.get(name).is_none_or(|workload| workload.key != key);
        tokio::select! {
            biased;
            store_is_open = async { workloads.wait_for(is_revoked).await.is_ok() } => if store_is_open {
                let text = format!("workload {name} was deleted, left, or was replaced");
                End(EndReason::Unauthorised, Some(Status::permission_denied(text)))
            } else {
                End::shutdown()
            },
            Ended::Replaced = self.session.ended() => {
                let text = "this machine opened another session";
                End(EndReason::Replaced, Some(Status::aborted(text)))
            }
            () = self.service.shutdown.wait() => End::shutdown(),
            () = tokio::time::sleep_until(expires_at) => {
                let text = "the certificate of this session expired: connect with the renewed one";
                End(EndReason::Expired, Some(Status::unauthenticated(text)))
            }
            () = tokio::time::sleep_until(absent_until) => {
                let target = &self.workload.target;
                let text = format!("workload {name} has no state: its {target} is not known to the gateway");
                End(EndReason::Absent, Some(Status::unavailable(text)))
            }
        }
    }

    fn receive(&mut self, received: AgentMessage) -> Result<(), End> {
        let protocol = |text: &str| End(EndReason::Protocol, Some(Status::invalid_argument(text)));
        match received.message {
            Some(agent_message::Message::Ack(Ack { generation })) => {
                let generation = generation.ok_or_else(|| protocol("an ack names its generation"))?;
                if self.cursor.acknowledge(generation) {
                    self.service.metrics.acknowledged();
                    self.session.acknowledged(generation);
                }
            }
            Some(agent_message::Message::Reject(Reject { generation, reason })) => {
                let generation = generation.ok_or_else(|| protocol("a reject names its generation"))?;
                if self.cursor.refuse(generation) {
                    let reason: String = reason.chars().take(MAX_REASON).collect();
                    tracing::warn!(workload = %self.workload.name, generation = generation.counter, reason, "agent refused the state");
                    self.service.metrics.rejected();
                    self.session.refused(Rejection { generation, reason });
                }
            }
            Some(agent_message::Message::Report(report)) => self.reported = Some(report),
            Some(agent_message::Message::Hello(_)) => return Err(protocol("a session has one hello")),
            // What a newer agent says beside this.
            None => {}
        }
        Ok(())
    }

    async fn record(&mut self) -> Result<(), End> {
        self.report_at = Instant::now() + REPORT_PERIOD;
        let reported = self.reported.take();
        let store = &self.service.store;
        let version = store.workload(&self.workload.name).map(|workload| workload.agent_version.clone());
        let report = report::read(&version.unwrap_or_default(), reported.as_ref())
            .map_err(|invalid| End(EndReason::Protocol, Some(Status::invalid_argument(invalid))))?;
        let Some(report) = report else { return Ok(()) };
        report::record(store, &self.workload.name, report)
            .await
            .map_err(|error| End(EndReason::Store, Some(Status::unavailable(error.to_string()))))
    }

    fn count_sent(&self, updates: &[Update], first: bool) {
        let metrics = &self.service.metrics;
        if first {
            let snapshot = updates.first().is_some_and(|update| update.base.is_none());
            metrics.answered(if snapshot { Answer::Snapshot } else { Answer::Delta });
        }
        let bytes: usize = updates.iter().flat_map(|update| &update.parts).map(bytes::Bytes::len).sum();
        metrics.sent(bytes);
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
}
