//! The gateway's two listeners: TLS for hosts and remote administrators, a unix socket for root on the machine.

use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
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

/// A socket of the administration that cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot make the admin socket {}: {source}", path.display())]
pub struct SocketError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

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

/// Makes the administration's socket, 0600 from its first moment under its name, in place of a stale one. Its folder is
/// made where it does not exist.
///
/// # Errors
/// [`SocketError`]; something that is no socket is never removed.
pub fn bind_socket(path: &Path) -> Result<UnixListener, SocketError> {
    let failed = |source| SocketError { path: path.to_owned(), source };
    if let Some(folder) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o755).create(folder).map_err(failed)?;
    }
    match std::fs::symlink_metadata(path) {
        Ok(found) if !std::os::unix::fs::FileTypeExt::is_socket(&found.file_type()) => {
            return Err(failed(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "there is something that is no socket",
            )));
        }
        Ok(_) if std::os::unix::net::UnixStream::connect(path).is_ok() => {
            return Err(failed(io::Error::new(io::ErrorKind::AddrInUse, "another gateway serves it")));
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let mut draft = path.to_owned().into_os_string();
    draft.push(format!(".{}", std::process::id()));
    let draft = PathBuf::from(draft);
    let _absent = std::fs::remove_file(&draft);
    let listener = UnixListener::bind(&draft).map_err(failed)?;
    std::fs::set_permissions(&draft, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    std::fs::rename(&draft, path).map_err(failed)?;
    Ok(listener)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_socket_is_for_its_owner_and_replaces_a_stale_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/admin.sock");
        drop(bind_socket(&path).unwrap());
        let again = bind_socket(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(bind_socket(&path).unwrap_err().to_string().contains("another gateway"));
        drop(again);
    }

    #[tokio::test]
    async fn what_is_no_socket_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        std::fs::write(&path, "precious").unwrap();
        assert!(bind_socket(&path).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }
}
