//! The gateway's two listeners: TLS for hosts and remote administrators, a unix socket for root on the machine.

use std::io;
use std::time::Duration;

use proto::v1::admin_server::AdminServer;
use proto::v1::enrollment_server::EnrollmentServer;
use proto::v1::mesh_server::MeshServer;
use telemetry::shutdown::Shutdown;
use tokio::net::UnixListener;
use tokio_stream::Stream;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;

use crate::admin::AdminService;
use crate::enrollment::EnrollmentService;
use crate::session::MeshService;
use crate::tls::Connection;

/// How often a silent connection is asked whether it lives.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// How long it may take to answer.
const KEEPALIVE_ANSWER: Duration = Duration::from_secs(20);
/// Calls at a time on one connection; an agent makes two.
const STREAMS: u32 = 16;
/// Calls on one connection that the client ended before they were looked at, and calls that broke the protocol; with
/// more the connection is cut.
const RESETS: usize = 20;
/// The largest headers of a call, in bytes.
const MAX_HEADERS: u32 = 16 << 10;
/// The largest request of enrollment and administration, and message of an agent.
const MAX_REQUEST: usize = 64 << 10;

/// What is served over TLS.
#[derive(Clone)]
pub struct Services {
    /// Joining, renewing, leaving.
    pub enrollment: EnrollmentService,
    /// Administration, for administrators' certificates.
    pub admin: AdminService,
    /// Sessions.
    pub mesh: MeshService,
}

/// Serves TLS connections until shutdown, and ends when the last is closed.
///
/// # Errors
/// The transport's.
pub async fn serve_tls(
    connections: impl Stream<Item = io::Result<Connection>>,
    services: Services,
    shutdown: Shutdown,
) -> Result<(), tonic::transport::Error> {
    let mesh = MeshServer::new(services.mesh)
        .max_decoding_message_size(MAX_REQUEST)
        .max_encoding_message_size(proto::MAX_MESSAGE_BYTES);
    builder()
        .add_service(EnrollmentServer::new(services.enrollment).max_decoding_message_size(MAX_REQUEST))
        .add_service(mesh)
        .add_service(admin(services.admin))
        .serve_with_incoming_shutdown(connections, async move { shutdown.wait().await })
        .await
}

/// Serves the administration's socket until shutdown.
///
/// # Errors
/// The transport's.
pub async fn serve_socket(
    listener: UnixListener,
    service: AdminService,
    shutdown: Shutdown,
) -> Result<(), tonic::transport::Error> {
    builder()
        .add_service(admin(service))
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), async move { shutdown.wait().await })
        .await
}

fn builder() -> Server {
    Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_ANSWER))
        .max_concurrent_streams(Some(STREAMS))
        .http2_max_pending_accept_reset_streams(Some(RESETS))
        .http2_max_local_error_reset_streams(Some(RESETS))
        .http2_max_header_list_size(Some(MAX_HEADERS))
}

fn admin(service: AdminService) -> AdminServer<AdminService> {
    AdminServer::new(service).max_decoding_message_size(MAX_REQUEST).max_encoding_message_size(usize::MAX)
}
