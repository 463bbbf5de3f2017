//! Why it failed, and the exit code.

use std::io;
use std::process::ExitCode;

use gateway::source::cluster::ReadError;
use kube::config::{InferConfigError, KubeconfigError};

/// Why it failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// It was asked wrongly.
    #[error("{0}")]
    Usage(String),
    /// The kubeconfig cannot be used.
    #[error("the kubeconfig cannot be used: {}", console::causes(.0))]
    Kubeconfig(#[from] KubeconfigError),
    /// Nobody says where the cluster is.
    #[error("no cluster is known here: {}", console::causes(.0))]
    NoCluster(#[from] Box<InferConfigError>),
    /// The cluster refused or did not answer.
    #[error("{what}: {}", reason(source))]
    Cluster {
        /// What was asked.
        what: String,
        /// The client's error.
        source: Box<kube::Error>,
    },
    /// What decides about traffic cannot be read.
    #[error(
        "what policies do is not known without all of them, and without pods and namespaces: {0}\n\
         The ClusterRole `<release>-policy-reader` of the chart has the rights for it"
    )]
    Unreadable(#[from] ReadError),
    /// It was tried and did not work.
    #[error("{0}")]
    Failed(String),
    /// Somebody pressed Ctrl-C.
    #[error("interrupted")]
    Interrupted,
    /// A result cannot be written.
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
    pub(crate) fn report(&self) -> ExitCode {
        let code = match self {
            // Nobody reads on; no failure.
            Self::Io(error) if error.kind() == io::ErrorKind::BrokenPipe => return ExitCode::SUCCESS,
            Self::Usage(_) => 2,
            Self::Interrupted => 130,
            Self::Kubeconfig(_)
            | Self::NoCluster(_)
            | Self::Cluster { .. }
            | Self::Unreadable(_)
            | Self::Failed(_)
            | Self::Io(_) => 1,
        };
        console::note(&format!("error: {self}"));
        ExitCode::from(code)
    }
}

/// What the API server said, which names verb and resource, without what the client wraps around it.
fn reason(error: &kube::Error) -> String {
    let kube::Error::Api(status) = error else { return console::causes(error) };
    match (status.code, status.message.as_str()) {
        (_, "") => console::causes(error),
        // Without a name of an object it is the kind that is not there.
        (404, message) if !message.contains('"') => {
            "the cluster does not have this kind: is Outrigger installed in it?".to_owned()
        }
        (_, message) => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    fn said(code: u16, message: &str) -> String {
        let status = Status { code, message: message.to_owned(), ..Status::default() };
        Failure::cluster("jointokens")(kube::Error::Api(Box::new(status))).to_string()
    }

    #[test]
    fn what_the_api_server_says_is_passed_on() {
        let forbidden =
            "jointokens.outrigger.dev is forbidden: User \"u\" cannot create resource \"jointokens\"";
        assert_eq!(said(403, forbidden), format!("jointokens: {forbidden}"));
        let gone = "jointokens.outrigger.dev \"a\" not found";
        assert_eq!(said(404, gone), format!("jointokens: {gone}"));
        assert!(said(404, "the server could not find the requested resource").contains("installed"));
    }
}
