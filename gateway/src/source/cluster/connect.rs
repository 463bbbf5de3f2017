//! How the API server is reached.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tokio::net::UdpSocket;

use super::Settings;
use super::follow::WATCH;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);
/// A server that sends nothing for so long is gone: each watch ends before.
const SILENCE: Duration = Duration::from_secs(WATCH.as_secs() + 10);

/// Nobody knows how to reach the cluster.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The file that says so cannot be used.
    #[error("{}: {source}", path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: kube::config::KubeconfigError,
    },
    /// This process is no pod of a cluster.
    #[error("no `kubeconfig` is set, and this is no pod of a cluster: {0}")]
    NoPod(#[from] kube::config::InClusterError),
    /// What is known does not make a client.
    #[error("the client of the Kubernetes API: {0}")]
    Client(#[from] kube::Error),
}

/// A client of the cluster's API; nothing is asked yet.
///
/// # Errors
/// [`ConnectError`].
pub(crate) async fn client(settings: &Settings) -> Result<Client, ConnectError> {
    let mut config = config(settings).await?;
    config.connect_timeout = Some(CONNECT);
    config.read_timeout = Some(SILENCE);
    config.reset_reader_on_write = true;
    Ok(Client::try_from(config)?)
}

/// The address from which this machine reaches the API server; `None` where it has no way there. Nothing is sent.
///
/// # Errors
/// [`ConnectError`].
pub(crate) async fn address_towards(settings: &Settings) -> Result<Option<IpAddr>, ConnectError> {
    let server = config(settings).await?.cluster_url;
    let port = server.port_u16().unwrap_or(443);
    let host = server.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let Ok(addresses) = tokio::net::lookup_host((host, port)).await else { return Ok(None) };
    for address in addresses {
        let any = if address.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
        let Ok(socket) = UdpSocket::bind((any, 0)).await else { continue };
        if socket.connect(address).await.is_ok()
            && let Ok(own) = socket.local_addr()
        {
            return Ok(Some(own.ip()));
        }
    }
    Ok(None)
}

async fn config(settings: &Settings) -> Result<Config, ConnectError> {
    Ok(match &settings.kubeconfig {
        Some(path) => {
            let failed = |source| ConnectError::Kubeconfig { path: path.clone(), source };
            let kubeconfig = Kubeconfig::read_from(path).map_err(failed)?;
            Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.map_err(failed)?
        }
        None => Config::incluster()?,
    })
}
