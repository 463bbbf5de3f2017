//! `Mesh.Sync` over gRPC: authorises, opens a session, and carries messages between a stream and its cursor.

use std::sync::Arc;
use std::time::Duration;

use proto::v1::mesh_server::Mesh;
use proto::v1::{AgentMessage, Hello, HostReport, NicReport, ProbeReport, agent_message};
use telemetry::shutdown::Shutdown;
use tokio::sync::watch;
use tonic::{Request, Response, Status, Streaming};

use super::metrics::{EndReason, SessionMetrics};
use super::{Feed, Registry, Session};
use crate::audit::{Audit, Event};
use crate::authorization::authorise;
use crate::ca::Ca;
use crate::clock::Clock;
use crate::store::{Store, Workload};
use crate::tls::PeerIdentity;

mod report;
mod rotation;
mod stream;

use report::{InvalidReport, Origin};
use rotation::Rotation;
use stream::{Peer, SyncStream};

/// Bytes of a machine's hash: a SHA-256.
const MAX_MACHINE: usize = 32;
/// Characters of a sentence of an agent.
const MAX_TEXT: usize = 512;
/// How long an agent may take for its first message.
const HELLO_WITHIN: Duration = Duration::from_secs(10);

/// The service.
#[derive(Clone)]
pub struct MeshService {
    /// Who may connect, and what hosts report.
    pub store: Arc<Store>,
    /// Which roots hosts are to have.
    pub ca: Arc<Ca>,
    /// Who is connected.
    pub registry: Arc<Registry>,
    /// What agents are told; `None` until the source was read whole.
    pub feed: watch::Receiver<Option<Arc<Feed>>>,
    /// Where is written down what agents did by themselves.
    pub audit: Arc<Audit>,
    /// What is counted.
    pub metrics: SessionMetrics,
    /// The clock that certificates are checked against.
    pub clock: Clock,
    /// When streams are to end.
    pub shutdown: Shutdown,
}

/// A session that is refused: what is counted, and what the agent is told.
struct Refused(EndReason, Status);

#[tonic::async_trait]
impl Mesh for MeshService {
    type SyncStream = SyncStream;

    async fn sync(&self, request: Request<Streaming<AgentMessage>>) -> Result<Response<SyncStream>, Status> {
        self.open(request).await.map(Response::new).map_err(|Refused(reason, status)| {
            self.metrics.end(reason);
            tracing::info!(reason = reason.name(), error = status.message(), "session refused");
            status
        })
    }
}

impl MeshService {
    async fn open(&self, request: Request<Streaming<AgentMessage>>) -> Result<SyncStream, Refused> {
        let refused = || Status::unauthenticated("this connection has no TLS");
        let peer = request.extensions().get::<PeerIdentity>().cloned();
        let peer = peer.ok_or_else(|| Refused(EndReason::Unauthorised, refused()))?;
        self.authorise(&peer)?;
        let mut inbound = request.into_inner();
        let hello = hello(&mut inbound).await?;
        if hello.machine.len() > MAX_MACHINE {
            let text = format!(
                "the machine's hash has {} bytes; at most {MAX_MACHINE} are accepted",
                hello.machine.len()
            );
            return Err(Refused(EndReason::Protocol, Status::invalid_argument(text)));
        }
        // Once more: who was replaced meanwhile must not end the session of its successor.
        let workload = self.authorise(&peer)?;
        let expires = peer.svid.as_ref().map(|svid| {
            Duration::from_secs(svid.not_after().as_secs().saturating_sub(self.clock.now().as_secs()))
        });
        let mut feed = self.feed.clone();
        let latest = feed.borrow_and_update().clone().ok_or_else(|| {
            Refused(
                EndReason::NotSynced,
                Status::unavailable("the gateway has not read its source whole yet"),
            )
        })?;
        let origin = Origin::of(&workload, peer.source());
        let report = report::read(&hello.agent_version, hello.report.as_ref(), origin);
        let (report, refused_report) = match report {
            Ok(report) => (report, None),
            Err(refused @ InvalidReport::Translated { .. }) => (None, Some(refused.to_string())),
            Err(invalid) => {
                return Err(Refused(EndReason::Protocol, Status::invalid_argument(invalid.to_string())));
            }
        };
        let session = self.registry.begin(&workload.name, workload.key, &hello.machine, hello.applied).map_err(|duplicate| {
            tracing::warn!(
                workload = %duplicate.workload, connected = duplicate.connected, refused = duplicate.refused,
                "two machines have one key"
            );
            Refused(EndReason::DuplicateHost, Status::failed_precondition(duplicate.to_string()))
        })?;
        self.note_nic(&session, &workload, hello.report.as_ref());
        Self::note_probes(&session, hello.report.as_ref());
        if let Some(reason) = refused_report {
            self.metrics.refused_report();
            tracing::warn!(workload = %workload.name, reason, "host report refused");
            session.refused_report(Some(reason));
        }
        if let Some(report) = report {
            self.metrics.reported();
            report::record(&self.store, &workload, report)
                .await
                .map_err(|error| Refused(EndReason::Store, Status::unavailable(error.to_string())))?;
        }
        let rotation = self.confirm_given(&peer, &workload).await;
        tracing::info!(workload = %workload.name, version = hello.agent_version, "session open");
        let cut = peer.cut.clone();
        let peer = Peer { workload, hello, origin, cut, expires, rotation, session, inbound };
        Ok(stream::run(self.clone(), peer, feed, &latest))
    }

    /// Takes note of whether the workload of an agent serves.
    fn note_probes(session: &Session, report: Option<&HostReport>) {
        let Some(probes) = report.and_then(|report| report.probes.as_ref()) else { return };
        let cut = |text: &str| text.chars().take(MAX_TEXT).collect();
        session.probes(ProbeReport { state: cut(&probes.state), message: cut(&probes.message) });
    }

    /// Takes note of what an agent did about the policy of its NICs.
    fn note_nic(&self, session: &Session, workload: &Workload, report: Option<&HostReport>) {
        let Some(nic) = report.and_then(|report| report.nic.as_ref()) else { return };
        // What it says is shown, and may be of any length.
        let cut = |text: &str| text.chars().take(MAX_TEXT).collect();
        let nic = NicReport { state: cut(&nic.state), message: cut(&nic.message) };
        let is_first_word = nic.state == "off" && session.is_silent_about_nics();
        if session.nic(&nic) && !is_first_word {
            tracing::info!(workload = %workload.name, state = nic.state, message = nic.message, "policy on NICs");
            let NicReport { state, message } = nic;
            let event = Event::NicPolicy { workload: workload.name.to_string(), state, message };
            self.audit.record(&event, self.clock.now());
        }
    }

    /// Whoever shows a certificate has what came with it. Where that cannot be looked up, the host is not asked to renew:
    /// there would be no end to it.
    async fn confirm_given(&self, peer: &PeerIdentity, workload: &Workload) -> Option<Rotation> {
        let expires = peer.svid.as_ref().map(|svid| svid.not_after().as_secs())?;
        let (store, name) = (self.store.clone(), workload.name.clone());
        let confirmed =
            tokio::task::spawn_blocking(move || store.confirm_given(&name, expires)).await.ok()?;
        let noted = confirmed.inspect_err(|error| {
            tracing::warn!(%error, workload = %workload.name, "what the host trusts is not recorded");
        });
        Some(Rotation::new(noted.ok()?, &self.ca))
    }

    fn authorise(&self, peer: &PeerIdentity) -> Result<Arc<Workload>, Refused> {
        authorise(&self.store, peer, self.clock.now(), Duration::ZERO)
            .map_err(|error| Refused(EndReason::Unauthorised, error.into()))
    }
}

async fn hello(inbound: &mut Streaming<AgentMessage>) -> Result<Hello, Refused> {
    let refused = |text: &str| Refused(EndReason::Protocol, Status::invalid_argument(text));
    match tokio::time::timeout(HELLO_WITHIN, inbound.message()).await {
        Ok(Ok(Some(AgentMessage { message: Some(agent_message::Message::Hello(hello)) }))) => Ok(hello),
        Ok(Ok(Some(_))) => Err(refused("the first message of a session is its hello")),
        Ok(Ok(None)) => Err(refused("the session ended before its hello")),
        Ok(Err(status)) => Err(Refused(EndReason::Closed, status)),
        Err(_elapsed) => Err(Refused(EndReason::Protocol, Status::deadline_exceeded("no hello within 10 s"))),
    }
}
