//! How the API server is reached.

use std::path::PathBuf;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

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
    let mut config = match &settings.kubeconfig {
        Some(path) => {
            let failed = |source| ConnectError::Kubeconfig { path: path.clone(), source };
            let kubeconfig = Kubeconfig::read_from(path).map_err(failed)?;
            Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.map_err(failed)?
        }
        None => Config::incluster()?,
    };
    config.connect_timeout = Some(CONNECT);
    config.read_timeout = Some(SILENCE);
    config.reset_reader_on_write = true;
    Ok(Client::try_from(config)?)
}
