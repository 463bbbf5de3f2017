//! Why it failed, and the exit code: 2 for what was asked wrongly, 1 for all else.

use std::io;
use std::process::ExitCode;

/// Why it failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// It was asked wrongly.
    #[error("{0}")]
    Usage(String),
    /// The kubeconfig cannot be used.
    #[error("the kubeconfig cannot be used: {0}")]
    Kubeconfig(#[from] kube::config::KubeconfigError),
    /// The cluster refused or did not answer.
    #[error("{what}: {}", reason(source))]
    Cluster {
        /// What was asked.
        what: String,
        /// The client's error.
        source: Box<kube::Error>,
    },
    /// The gateway did not do its part.
    #[error("{0}")]
    Gateway(String),
    /// A result cannot be written, or a program not be started.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Failure {
    /// Of something that was asked of the cluster.
    pub(crate) fn cluster(what: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let what = what.into();
        move |source| Self::Cluster { what, source: Box::new(source) }
    }

    /// Tells it, and gives the exit code.
    pub(crate) fn report(self) -> ExitCode {
        match self {
            // Nobody reads on.
            Self::Io(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
            Self::Usage(_) => {
                console::note(&format!("error: {self}"));
                ExitCode::from(2)
            }
            Self::Kubeconfig(_) | Self::Cluster { .. } | Self::Gateway(_) | Self::Io(_) => {
                console::note(&format!("error: {self}"));
                ExitCode::FAILURE
            }
        }
    }
}

/// What the API server said, without what the client wraps around it.
fn reason(error: &kube::Error) -> String {
    if let kube::Error::Api(status) = error { status.message.clone() } else { console::causes(error) }
}
