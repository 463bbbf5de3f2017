//! Why a command failed, and the exit code that says so.

use std::error::Error as _;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use tonic::{Code, Status};

/// A failed command.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// It was tried and did not work.
    #[error("{0}")]
    Failed(String),
    /// The command line or configuration asks for what cannot be.
    #[error("{0}")]
    Usage(String),
    /// Nobody answers.
    #[error(
        "no gateway runs here ({}: {reason}).\nStart it with `systemctl start outrigger-gateway`, or name its socket with \
         --socket",
        path.display()
    )]
    NotRunning {
        /// The socket.
        path: PathBuf,
        /// What happened there.
        reason: io::Error,
    },
    /// The gateway serves administrators only.
    #[error("{0}")]
    NotPermitted(String),
    /// Nobody reads what is written; no failure.
    #[error("the output was closed")]
    Closed,
}

impl Failure {
    /// Tells a person, and the exit code to end with.
    pub(super) fn report(&self) -> ExitCode {
        let code = match self {
            Self::Closed => return ExitCode::SUCCESS,
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::NotRunning { .. } => 4,
            Self::NotPermitted(_) => 5,
        };
        super::output::note(&format!("error: {self}"));
        ExitCode::from(code)
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let message = status.message().to_owned();
        #[expect(clippy::wildcard_enum_match_arm, reason = "all other codes are failures")]
        match status.code() {
            Code::InvalidArgument => Self::Usage(message),
            Code::PermissionDenied | Code::Unauthenticated => Self::NotPermitted(message),
            // What the gateway says has no source here; what breaks on the way has.
            _ if message.is_empty() || status.source().is_some() => {
                Self::Failed("the gateway stopped while it was working on this".to_owned())
            }
            _ => Self::Failed(message),
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
    fn codes_of_the_gateway_become_exit_codes() {
        assert!(matches!(Failure::from(Status::permission_denied("x")), Failure::NotPermitted(_)));
        assert!(matches!(Failure::from(Status::invalid_argument("x")), Failure::Usage(_)));
        assert!(matches!(Failure::from(Status::not_found("x")), Failure::Failed(text) if text == "x"));
        let broken = Failure::from(Status::from_error("connection reset".into()));
        assert!(matches!(broken, Failure::Failed(text) if text.contains("the gateway stopped")));
        assert!(matches!(Failure::from(io::Error::from(io::ErrorKind::BrokenPipe)), Failure::Closed));
    }
}
