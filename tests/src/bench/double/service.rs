//! The two services of the double: every join is granted, every stream gets the world.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use pki::SpiffeId;
use prost::Message as _;
use proto::v1::agent_message::Message as Up;
use proto::v1::enrollment_server::{Enrollment, EnrollmentServer};
use proto::v1::mesh_server::{Mesh, MeshServer};
use proto::v1::{
    AgentMessage, GatewayMessage, Hello, JoinRequest, JoinResponse, LeaveRequest, LeaveResponse,
    RenewRequest, RenewResponse, UpToDate, Update, gateway_message,
};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::{ReceiverStream, UnboundedReceiverStream};
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

use super::super::world::{NAMESPACE, WORKLOAD};
use super::wire::Wire;
use super::{Shared, Told, generation, message};

#[derive(Clone)]
struct Service(Arc<Shared>);

pub(super) async fn serve(listener: TcpListener, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    let (accepted, connections) = mpsc::channel::<std::io::Result<Wire>>(1);
    tokio::spawn(async move {
        let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
        while let Ok((tcp, _)) = listener.accept().await {
            let _slower = tcp.set_nodelay(true);
            let acceptor = acceptor.clone();
            let accepted = accepted.clone();
            tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(tcp).await {
                    let _ended = accepted.send(Ok(Wire(stream))).await;
                }
            });
        }
    });
    let service = Service(shared);
    let mesh = MeshServer::new(service.clone()).max_encoding_message_size(proto::MAX_MESSAGE_BYTES);
    let server = Server::builder().add_service(EnrollmentServer::new(service)).add_service(mesh);
    if let Err(error) = server.serve_with_incoming(ReceiverStream::new(connections)).await {
        eprintln!("the double ended: {error}");
    }
}

impl Service {
    fn joined(&self, csr: &[u8]) -> Result<JoinResponse> {
        let shared = &self.0;
        let id = SpiffeId::workload(shared.authority.trust_domain(), NAMESPACE, WORKLOAD)?;
        Ok(JoinResponse {
            certificate_chain: shared.issue(csr, &id)?,
            trust_bundle: vec![shared.authority.certificate().to_vec()],
            namespace: NAMESPACE.to_owned(),
            name: WORKLOAD.to_owned(),
            mesh_addresses: super::super::world::ADDRESSES.map(proto::convert::address_to_wire).to_vec(),
            gateways: vec![shared.gateway.clone()],
            request_for: String::new(),
        })
    }

    /// Opens the stream with what the agent lacks; from then on it gets every change.
    fn open(&self, hello: &Hello) -> UnboundedReceiverStream<Result<GatewayMessage, Status>> {
        let (stream, messages) = mpsc::unbounded_channel();
        let mut state = self.0.state();
        let now = generation(state.generation);
        if hello.applied == Some(now) {
            let up_to_date = UpToDate { generation: Some(now) };
            let message = gateway_message::Message::UpToDate(up_to_date);
            let _ended = stream.send(Ok(GatewayMessage { message: Some(message) }));
        } else {
            let sets = state.world.snapshot();
            let last = sets.len().saturating_sub(1);
            for (at, set) in sets.into_iter().enumerate() {
                let parts = vec![set.encode_to_vec().into()];
                let update =
                    Update { generation: Some(now), base: None, last: at == last, parts, continues: false };
                let _ended = stream.send(Ok(message(update)));
            }
        }
        state.stream = Some(stream);
        UnboundedReceiverStream::new(messages)
    }
}

#[tonic::async_trait]
impl Enrollment for Service {
    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        let joined = self.joined(&request.into_inner().csr);
        joined.map(Response::new).map_err(|error| Status::internal(format!("{error:#}")))
    }

    async fn renew(&self, _: Request<RenewRequest>) -> Result<Response<RenewResponse>, Status> {
        Err(Status::unavailable("certificates outlive the measurement"))
    }

    async fn leave(&self, _: Request<LeaveRequest>) -> Result<Response<LeaveResponse>, Status> {
        Ok(Response::new(LeaveResponse {}))
    }
}

#[tonic::async_trait]
impl Mesh for Service {
    type SyncStream = UnboundedReceiverStream<Result<GatewayMessage, Status>>;

    async fn sync(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::SyncStream>, Status> {
        let mut up = request.into_inner();
        let Some(AgentMessage { message: Some(Up::Hello(hello)) }) = up.message().await? else {
            return Err(Status::invalid_argument("no hello"));
        };
        let messages = self.open(&hello);
        let shared = self.0.clone();
        tokio::spawn(async move {
            while let Ok(Some(AgentMessage { message })) = up.message().await {
                let at = Instant::now();
                let (generation, refused) = match message {
                    Some(Up::Ack(ack)) => (ack.generation, String::new()),
                    Some(Up::Reject(reject)) => (reject.generation, format!("rejected: {}", reject.reason)),
                    Some(Up::Hello(_) | Up::Report(_)) | None => continue,
                };
                let generation = generation.map_or(0, |generation| generation.counter);
                let _ended = shared.told.send(Told { generation, at, refused });
            }
        });
        Ok(Response::new(messages))
    }
}
