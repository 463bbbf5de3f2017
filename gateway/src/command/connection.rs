//! The connection to a gateway: its socket on this machine, or TLS with an administrator's certificate.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::config::HostPort;
use hyper_util::rt::TokioIo;
use pki::{KeyPair, Principal, Svid, TrustBundle};
use proto::v1::admin_client::AdminClient;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

use super::failure::Failure;
use super::output::Format;
use crate::clock::Clock;
use crate::config::DEFAULT_SOCKET;

/// Above the options that stand behind the command's own in its help.
const GLOBAL: &str = "Global options";

/// Names of the files of an administrator's certificate.
pub(super) const KEY_FILE: &str = "admin.key";
/// The certificate.
pub(super) const CERTIFICATE_FILE: &str = "admin.pem";
/// What is trusted.
pub(super) const BUNDLE_FILE: &str = "bundle.pem";

/// A client of the administration.
pub(super) type Client = AdminClient<Channel>;

/// Which gateway, and how results are written.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Connection {
    /// The gateway's socket on this machine.
    #[arg(
        long,
        global = true,
        env = "OUTRIGGER_GATEWAY_ADMIN_SOCKET",
        value_name = "FILE",
        default_value = DEFAULT_SOCKET,
        help_heading = GLOBAL
    )]
    socket: PathBuf,
    /// A gateway elsewhere, over TLS; needs --credentials.
    #[arg(long, global = true, env = "OUTRIGGER_GATEWAY_ADDRESS", value_name = "HOST:PORT", help_heading = GLOBAL)]
    gateway: Option<HostPort>,
    /// Folder of an administrator's certificate, made by `admin issue`; needs --gateway.
    #[arg(long, global = true, env = "OUTRIGGER_GATEWAY_CREDENTIALS", value_name = "DIR", help_heading = GLOBAL)]
    credentials: Option<PathBuf>,
    /// How results are written.
    #[arg(short, long, global = true, value_enum, default_value_t, help_heading = GLOBAL)]
    pub(super) output: Format,
}

/// The options of a command that does one of several things with a gateway.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments<A: clap::Subcommand> {
    #[command(flatten)]
    pub(super) connection: Connection,
    #[command(subcommand)]
    pub(super) action: A,
}

impl Connection {
    /// Connects.
    pub(super) async fn connect(&self) -> Result<Client, Failure> {
        let channel = match (&self.gateway, &self.credentials) {
            (None, None) => local(&self.socket).await?,
            (Some(gateway), Some(credentials)) => remote(&gateway.to_string(), credentials).await?,
            _ => return Err(Failure::Usage("--gateway and --credentials belong together".to_owned())),
        };
        // A list of every workload of a mesh is larger than the default of 4 MB.
        Ok(AdminClient::new(channel).max_decoding_message_size(usize::MAX))
    }
}

async fn local(path: &Path) -> Result<Channel, Failure> {
    let stream = UnixStream::connect(path).await.map_err(|reason| {
        if reason.kind() == io::ErrorKind::PermissionDenied {
            Failure::NotPermitted("the gateway's socket is for root: use sudo".to_owned())
        } else {
            Failure::NotRunning { path: path.to_owned(), reason }
        }
    })?;
    channel(stream).await
}

async fn remote(gateway: &str, credentials: &Path) -> Result<Channel, Failure> {
    let read = |name: &str| {
        let path = credentials.join(name);
        std::fs::read_to_string(&path).map_err(|e| Failure::Usage(format!("{}: {e}", path.display())))
    };
    let wrong = |name: &str, error: &dyn std::fmt::Display| {
        Failure::Usage(format!("{}: {error}", credentials.join(name).display()))
    };
    let key = zeroize::Zeroizing::new(read(KEY_FILE)?);
    let key = KeyPair::from_pem(&key).map_err(|e| wrong(KEY_FILE, &e))?;
    let chain =
        pki::certificates_from_pem(&read(CERTIFICATE_FILE)?).map_err(|e| wrong(CERTIFICATE_FILE, &e))?;
    let bundle = TrustBundle::from_pem(&read(BUNDLE_FILE)?).map_err(|e| wrong(BUNDLE_FILE, &e))?;
    let leaf = chain.first().map(Svid::from_der);
    let svid = leaf
        .transpose()
        .ok()
        .flatten()
        .filter(|svid| matches!(svid.id().principal(), Principal::Admin { .. }));
    let svid = svid.ok_or_else(|| wrong(CERTIFICATE_FILE, &"no administrator's certificate"))?;
    let clock = Clock::system();
    if svid.not_after() < clock.now() {
        let expired =
            format!("expired at {}: make another with `admin issue`", pki::display_time(svid.not_after()));
        return Err(Failure::NotPermitted(format!(
            "{}: {expired}",
            credentials.join(CERTIFICATE_FILE).display()
        )));
    }
    let not_earlier = crate::store::unix_time(0);
    let config =
        pki::tls::client_mutual(&bundle, svid.id().trust_domain(), chain, &key, not_earlier, clock.source())
            .map_err(|e| Failure::Usage(e.to_string()))?;
    let tcp = TcpStream::connect(gateway)
        .await
        .map_err(|e| Failure::Failed(format!("cannot connect to the gateway at {gateway}: {e}")))?;
    let connector = TlsConnector::from(Arc::new(config));
    let stream = connector.connect(pki::tls::server_name(), tcp).await.map_err(|error| {
        let reason = pki::tls::refusal(&error).map_or(error.to_string(), |refusal| refusal.to_string());
        Failure::Failed(format!("the gateway at {gateway} is not accepted: {reason}"))
    })?;
    channel(stream).await
}

/// A channel over one connection that is there already.
async fn channel<S>(stream: S) -> Result<Channel, Failure>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let mut stream = Some(TokioIo::new(stream));
    let connector = tower::service_fn(move |_uri| {
        let stream = stream.take().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected));
        async move { stream }
    });
    let channel = Endpoint::from_static("http://gateway.outrigger").connect_with_connector(connector).await;
    channel.map_err(|error| Failure::Failed(format!("talking to the gateway: {error}")))
}
