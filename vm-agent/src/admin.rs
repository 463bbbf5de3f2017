//! The socket of the `outrigger` command: who may speak, and the service behind it. Decides nothing: orders go to
//! [`crate::operations`], questions are answered from what the tasks publish.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use policy::pages::Pages;
use policy::state::Policy;
use proto::v1::agent_server::{Agent as AgentApi, AgentServer};
use proto::v1::{
    AgentJoinRequest, AgentLeaveRequest, AgentLeaveResponse, AgentStatus, AgentStatusRequest,
    ConnectivityCheck, EnforceRequest, EnforceResponse, JoinProgress, ListEndpointsRequest,
    ListEndpointsResponse, ListPoliciesRequest, ListPoliciesResponse, MonitorRequest, SealRequest,
    SealResponse, TestConnectivityRequest, TracePolicyRequest, TracePolicyResponse, VerdictEvent,
};
use telemetry::shutdown::Shutdown;
use tokio::net::UnixListener;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use tonic::transport::server::UdsConnectInfo;
use tonic::{Request, Response, Status};

use crate::agent::Agent;
use crate::member::Member;
use crate::monitor::{Events, Filter};
use crate::nic;
use crate::operations::{Command, OperationError};
use crate::session::Version;

mod connectivity;
mod endpoints;
mod policies;
mod status;
#[cfg(test)]
mod tests;

/// Longer than that a mode of the group is the way.
const LONGEST_AUDIT: Duration = Duration::from_hours(24);

/// Steps of a join that wait for the command to show them.
const STEPS: usize = 16;

/// What a stream of answers is.
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Serves until shutdown.
pub async fn serve(listener: UnixListener, service: Service, shutdown: Shutdown) {
    let server = Server::builder()
        .add_service(AgentServer::with_interceptor(service, only_root))
        .serve_with_incoming_shutdown(
            UnixListenerStream::new(listener),
            async move { shutdown.wait().await },
        );
    if let Err(error) = server.await {
        tracing::error!(%error, "the socket of the outrigger command failed");
    }
}

/// The kernel says who is at the other end; a socket that someone opened to others does not change that.
fn only_root(request: Request<()>) -> Result<Request<()>, Status> {
    let peer = request.extensions().get::<UdsConnectInfo>().and_then(|connection| connection.peer_cred);
    if peer.is_some_and(|peer| peer.uid() == 0) {
        Ok(request)
    } else {
        Err(Status::permission_denied("the agent serves root only: use sudo"))
    }
}

/// The service behind the socket.
#[derive(Clone, Debug)]
pub struct Service {
    agent: Arc<Agent>,
    commands: mpsc::Sender<Command>,
    events: Events,
    shutdown: Shutdown,
}

impl Service {
    /// Answers from the agent's state, and sends orders to the owner of the membership.
    #[must_use]
    pub const fn new(
        agent: Arc<Agent>,
        commands: mpsc::Sender<Command>,
        events: Events,
        shutdown: Shutdown,
    ) -> Self {
        Self { agent, commands, events, shutdown }
    }

    fn member(&self) -> Result<Arc<Member>, Status> {
        self.agent.member().ok_or_else(|| {
            let report = self.agent.report();
            match report.error(None) {
                reason if reason.is_empty() => OperationError::NotJoined.into(),
                reason => Status::aborted(reason),
            }
        })
    }

    fn running(&self) -> Result<(Arc<Member>, Version), Status> {
        let member = self.member()?;
        let running = member.running.borrow().clone();
        let version =
            running.ok_or_else(|| Status::aborted("no state is enforced yet: see `outrigger status`"))?;
        Ok((member, version))
    }

    async fn order<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, OperationError>>) -> Command,
    ) -> Result<Response<T>, Status> {
        let stopping = || Status::aborted("the agent is stopping");
        let (answer, done) = oneshot::channel();
        self.commands.send(command(answer)).await.map_err(|_closed| stopping())?;
        Ok(Response::new(done.await.map_err(|_dropped| stopping())??))
    }
}

#[tonic::async_trait]
impl AgentApi for Service {
    type JoinStream = Answers<JoinProgress>;
    type MonitorStream = Answers<VerdictEvent>;
    type TestConnectivityStream = Answers<ConnectivityCheck>;

    async fn join(&self, request: Request<AgentJoinRequest>) -> Result<Response<Self::JoinStream>, Status> {
        let (progress, steps) = mpsc::channel(STEPS);
        let order = Command::Join(request.into_inner(), progress);
        self.commands.send(order).await.map_err(|_closed| Status::aborted("the agent is stopping"))?;
        Ok(Response::new(Box::pin(tokio_stream::wrappers::ReceiverStream::new(steps))))
    }

    async fn leave(
        &self,
        request: Request<AgentLeaveRequest>,
    ) -> Result<Response<AgentLeaveResponse>, Status> {
        let force = request.into_inner().force;
        self.order(|answer| Command::Leave(force, answer)).await
    }

    async fn seal(&self, _request: Request<SealRequest>) -> Result<Response<SealResponse>, Status> {
        self.order(Command::Seal).await
    }

    async fn status(&self, _request: Request<AgentStatusRequest>) -> Result<Response<AgentStatus>, Status> {
        Ok(Response::new(status::status(&self.agent)))
    }

    async fn monitor(
        &self,
        request: Request<MonitorRequest>,
    ) -> Result<Response<Self::MonitorStream>, Status> {
        let filter = Filter::try_from(request.into_inner())
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let _joined = self.member()?;
        let (mut incoming, events, shutdown) =
            (self.events.subscribe(), self.events.clone(), self.shutdown.clone());
        Ok(Response::new(Box::pin(async_stream::stream! {
            let mut lost = 0;
            loop {
                let next = tokio::select! {
                    next = incoming.recv() => next,
                    () = shutdown.wait() => return,
                };
                match next {
                    Ok(event) if filter.matches(&event) => {
                        yield Ok(VerdictEvent { lost: std::mem::take(&mut lost), ..VerdictEvent::clone(&event) });
                    }
                    Ok(_unwanted) => {}
                    Err(RecvError::Lagged(count)) => {
                        events.count_lost(count);
                        lost += count;
                    }
                    Err(RecvError::Closed) => return,
                }
            }
        })))
    }

    async fn list_policies(
        &self,
        request: Request<ListPoliciesRequest>,
    ) -> Result<Response<ListPoliciesResponse>, Status> {
        if request.into_inner().nic {
            return Ok(Response::new(policies::list(&*nic_policy(&*self.member()?)?, &Pages::default())));
        }
        let (member, version) = self.running()?;
        let state = member.kernel.in_force(&version.state);
        Ok(Response::new(policies::list(&state.policy, &state.identities)))
    }

    async fn list_endpoints(
        &self,
        _request: Request<ListEndpointsRequest>,
    ) -> Result<Response<ListEndpointsResponse>, Status> {
        let (_, version) = self.running()?;
        Ok(Response::new(endpoints::list(&version.state)))
    }

    async fn enforce(&self, request: Request<EnforceRequest>) -> Result<Response<EnforceResponse>, Status> {
        let member = self.member()?;
        let time = Duration::from_secs(request.into_inner().audit_seconds);
        if time > LONGEST_AUDIT {
            let text = format!("at most {} hours", LONGEST_AUDIT.as_secs() / 3600);
            return Err(Status::invalid_argument(text));
        }
        let until = nic::audit_for(&self.agent, &member, time).await;
        Ok(Response::new(EnforceResponse { audit_until: until.map_err(Status::aborted)? }))
    }

    async fn trace_policy(
        &self,
        request: Request<TracePolicyRequest>,
    ) -> Result<Response<TracePolicyResponse>, Status> {
        let query = policies::Query::try_from(request.into_inner())
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        // Reads whole tables out of the kernel.
        let traced = if query.nic {
            let member = self.member()?;
            let policy = nic_policy(&member)?;
            tokio::task::spawn_blocking(move || policies::trace_on_nic(&member, &policy, &query)).await
        } else {
            let (member, version) = self.running()?;
            tokio::task::spawn_blocking(move || {
                policies::trace(&member, &member.kernel.in_force(&version.state), &query)
            })
            .await
        };
        let traced = traced.map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(traced.map_err(|error| Status::aborted(error.to_string()))?))
    }

    async fn test_connectivity(
        &self,
        _request: Request<TestConnectivityRequest>,
    ) -> Result<Response<Self::TestConnectivityStream>, Status> {
        let member = self.member()?;
        Ok(Response::new(Box::pin(connectivity::run(self.agent.clone(), member))))
    }
}

/// The policy that governs the NICs.
fn nic_policy(member: &Member) -> Result<Arc<Policy>, Status> {
    let nic = member.kernel.status().borrow().nic.as_ref().map(|nic| Arc::clone(&nic.policy));
    nic.ok_or_else(|| Status::failed_precondition("policy governs no NIC of this host: its scope is mesh"))
}
