//! Why a command failed, and the exit code that says so.

use std::error::Error as _;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use tonic::{Code, Status};

/// A failed command.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// It was tried and did not work.
    #[error("{0}")]
    Failed(String),
    /// The command line asks for what cannot be.
    #[error("{0}")]
    Usage(String),
    /// This host is not part of a mesh.
    #[error("{0}")]
    NotJoined(String),
    /// Nobody answers on the socket.
    #[error(
        "the agent is not running ({} {reason}).\nStart it with `systemctl start outrigger-agent`; why it does not run \
         says `journalctl -u outrigger-agent`",
        path.display()
    )]
    NotRunning {
        /// The socket.
        path: PathBuf,
        /// What happened there.
        reason: String,
    },
    /// The agent serves root only.
    #[error("{0}")]
    NotPermitted(String),
    /// Nobody reads what is written (`outrigger monitor | head`); no failure.
    #[error("the output was closed")]
    Closed,
}

impl Failure {
    /// Tells a person, and the exit code to end with.
    pub(crate) fn report(&self) -> ExitCode {
        let code = match self {
            Self::Closed => return ExitCode::SUCCESS,
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::NotJoined(_) => 3,
            Self::NotRunning { .. } => 4,
            Self::NotPermitted(_) => 5,
        };
        // Standard error may be closed too; there is nobody left to tell.
        crate::output::note(&format!("error: {self}"));
        ExitCode::from(code)
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let message = status.message().to_owned();
        let code = status.code();
        if code == Code::FailedPrecondition {
            Self::NotJoined(message)
        } else if code == Code::InvalidArgument {
            Self::Usage(message)
        } else if code == Code::PermissionDenied {
            Self::NotPermitted(message)
        } else if message.is_empty() || status.source().is_some() {
            // What the agent says has no source here; what breaks on the way has.
            Self::Failed("the agent stopped while it was working on this".to_owned())
        } else {
            Self::Failed(message)
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe { Self::Closed } else { Self::Failed(error.to_string()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_the_agent_become_exit_codes() {
        assert!(matches!(Failure::from(Status::failed_precondition("x")), Failure::NotJoined(_)));
        assert!(matches!(Failure::from(Status::permission_denied("x")), Failure::NotPermitted(_)));
        assert!(matches!(Failure::from(Status::invalid_argument("x")), Failure::Usage(_)));
        assert!(matches!(Failure::from(Status::internal("x")), Failure::Failed(_)));
        let said = Failure::from(Status::aborted("gw:7443: transport error"));
        assert!(matches!(said, Failure::Failed(text) if text.contains("gw:7443")));
        let broken = Failure::from(Status::from_error("connection reset".into()));
        assert!(matches!(broken, Failure::Failed(text) if text.contains("the agent stopped")));
        let closed = io::Error::from(io::ErrorKind::BrokenPipe);
        assert!(matches!(Failure::from(closed), Failure::Closed));
    }

    #[test]
    fn an_agent_that_does_not_run_is_named_with_advice() {
        let failure =
            Failure::NotRunning { path: "/run/outrigger/default.sock".into(), reason: "is missing".into() };
        let text = failure.to_string();
        assert!(text.contains("/run/outrigger/default.sock is missing"), "{text}");
        assert!(text.contains("systemctl start outrigger-agent"), "{text}");
    }
}
