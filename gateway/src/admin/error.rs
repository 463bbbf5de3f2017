//! Why the administration refused.

use pki::{InvalidCsr, InvalidSpiffeId};
use tonic::Status;

use super::caller::Refused;
use crate::ca::{RotationError, SignError};
use crate::store::{InvalidWorkloadName, RenewRefusal, StoreError, WorkloadError, WorkloadName};

/// A call that was refused or failed; nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The caller may not.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Only root on the gateway's machine may.
    #[error("administrators' certificates are issued, and roots changed, over the unix socket only")]
    SocketOnly,
    /// Nothing is to be changed.
    #[error("no change of the roots is asked for")]
    NoChange,
    /// The roots were not changed.
    #[error(transparent)]
    Rotation(#[from] RotationError),
    /// No target, or several.
    #[error(
        "a token is for one group (`--group namespace/name`), one transit node (`--transit-node node`) or another node \
         of the cluster (`--node node`)"
    )]
    OneTarget,
    /// The group's name is none.
    #[error("{0:?} is no group: write `namespace/name`")]
    GroupName(String),
    /// The node's name is none.
    #[error("{0:?} is no valid name of a node")]
    NodeName(String),
    /// There is no such group.
    #[error("group {0} does not exist: create the ExternalWorkloadGroup first")]
    NoGroup(String),
    /// Nothing is known yet.
    #[error(
        "the gateway has not read its source yet: try again in a moment, or see `outrigger-gateway status`"
    )]
    NotSynced,
    /// A token would not say where to go.
    #[error("the gateway does not know where hosts reach it: set `advertise` in its configuration")]
    NoAdvertise,
    /// The time is too long.
    #[error("a token is valid for at most 365 days, {0} s were asked for")]
    Ttl(u64),
    /// The number is too high.
    #[error("a token allows at most 10000 joins, {0} were asked for")]
    Uses(u32),
    /// Numbers of identities contradict each other; a defect.
    #[error(transparent)]
    Numbers(#[from] policy::resolve::UnusableIdentities),
    /// There is no such token.
    #[error("there is no token {0}")]
    NoToken(String),
    /// A prefix is none.
    #[error("{0:?} is no prefix of addresses, such as 192.0.2.0/24")]
    Prefix(String),
    /// There is no such workload.
    #[error("there is no workload {0}")]
    NoWorkload(WorkloadName),
    /// A name is none.
    #[error(transparent)]
    WorkloadName(#[from] InvalidWorkloadName),
    /// An administrator's name is none.
    #[error(transparent)]
    Name(#[from] InvalidSpiffeId),
    /// The certificate request is refused.
    #[error(transparent)]
    Csr(#[from] InvalidCsr),
    /// The certificate could not be made.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<WorkloadError> for AdminError {
    fn from(error: WorkloadError) -> Self {
        match error {
            WorkloadError::Refused(
                RenewRefusal::Unknown(name) | RenewRefusal::Revoked { name, .. } | RenewRefusal::Key(name),
            ) => Self::NoWorkload(name),
            WorkloadError::Store(error) => Self::Store(error),
        }
    }
}

impl From<AdminError> for Status {
    fn from(error: AdminError) -> Self {
        let text = error.to_string();
        match error {
            AdminError::Rotation(error) => unrotated(&error, text),
            AdminError::Refused(_) | AdminError::SocketOnly => Self::permission_denied(text),
            AdminError::OneTarget
            | AdminError::NoChange
            | AdminError::GroupName(_)
            | AdminError::NodeName(_)
            | AdminError::Ttl(_)
            | AdminError::Uses(_)
            | AdminError::Prefix(_)
            | AdminError::WorkloadName(_)
            | AdminError::Name(_)
            | AdminError::Csr(_) => Self::invalid_argument(text),
            AdminError::NoGroup(_) | AdminError::NoToken(_) | AdminError::NoWorkload(_) => {
                Self::not_found(text)
            }
            AdminError::NoAdvertise => Self::failed_precondition(text),
            AdminError::NotSynced | AdminError::Store(_) => Self::unavailable(text),
            AdminError::Sign(error) => error.status(text),
            AdminError::Numbers(_) => Self::internal(text),
        }
    }
}

fn unrotated(error: &RotationError, text: String) -> Status {
    match error {
        RotationError::Unknown(_) => Status::not_found(text),
        RotationError::UnderWay(_)
        | RotationError::Active(_)
        | RotationError::Keyless(_)
        | RotationError::Elsewhere { .. }
        | RotationError::Listed { .. }
        | RotationError::Untrusted { .. }
        | RotationError::Tokens { .. }
        | RotationError::InUse { .. } => Status::failed_precondition(text),
        RotationError::Store(_) | RotationError::Root(_) => Status::unavailable(text),
        RotationError::Authority(_) => Status::internal(text),
    }
}
