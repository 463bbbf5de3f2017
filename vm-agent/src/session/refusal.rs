//! What it means that a gateway refuses this host, and how long to wait then.

use std::time::Duration;

use tonic::{Code, Status};

use crate::transport;

/// The least wait after a gateway refused this host for good; only an administrator changes that.
const REFUSED_WAIT: Duration = Duration::from_secs(15);
/// The same where another machine has a session: it may just have been switched off.
const DUPLICATE_WAIT: Duration = Duration::from_secs(2);

/// The condition's name is part of the protocol.
pub(super) fn is_duplicate(status: &Status) -> bool {
    status.message().starts_with("DuplicateHost")
}

/// Whether a gateway said no; anything else is a connection that is lost.
pub(super) fn is_refusal(status: &Status) -> bool {
    matches!(status.code(), Code::PermissionDenied | Code::Unauthenticated | Code::FailedPrecondition)
}

/// How long to wait at least: what only an administrator can change is not asked about every second.
pub(super) fn least_wait(status: &Status) -> Duration {
    if is_duplicate(status) {
        DUPLICATE_WAIT
    } else if status.code() == Code::PermissionDenied {
        REFUSED_WAIT
    } else {
        Duration::ZERO
    }
}

/// What a refusal means for this host.
pub(super) fn refusal(status: &Status) -> String {
    let said = transport::describe(status);
    if is_duplicate(status) {
        return format!("another machine is connected with this host's key: {said}");
    }
    let code = status.code();
    if code == Code::PermissionDenied {
        format!(
            "the gateway refuses this host: {said}. It was deleted or revoked; `outrigger leave --force` and a new token join it again"
        )
    } else if code == Code::Unauthenticated {
        format!("the gateway does not accept this host's certificate: {said}")
    } else {
        said
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_apart_from_lost_connections() {
        assert!(is_refusal(&Status::permission_denied("revoked")));
        assert!(is_refusal(&Status::unauthenticated("expired")));
        assert!(is_refusal(&Status::failed_precondition("DuplicateHost: two")));
        assert!(!is_refusal(&Status::unavailable("stopping")));
    }

    #[test]
    fn what_a_refusal_means_is_said() {
        assert!(
            refusal(&Status::permission_denied("workload shop/db is revoked"))
                .contains("outrigger leave --force")
        );
        assert!(refusal(&Status::failed_precondition("DuplicateHost: two")).contains("another machine"));
        assert_eq!(least_wait(&Status::permission_denied("deleted")), REFUSED_WAIT);
        assert_eq!(least_wait(&Status::failed_precondition("DuplicateHost: two")), DUPLICATE_WAIT);
        assert_eq!(least_wait(&Status::unauthenticated("expired")), Duration::ZERO);
    }
}
