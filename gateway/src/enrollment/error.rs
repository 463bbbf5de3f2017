//! Why enrollment refused, and what the caller is told.

use std::net::IpAddr;

use pki::InvalidCsr;
use tonic::Status;

use crate::accounts::AccountError;
use crate::authorization::Unauthorised;
use crate::ca::SignError;
use crate::store::{JoinError, JoinRefusal, StoreError, TokenRefusal, WorkloadError, WorkloadName};

/// A call that was refused or failed; nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum EnrollmentError {
    /// The request's certificate request is refused.
    #[error(transparent)]
    Csr(#[from] InvalidCsr),
    /// Nothing authorises it.
    #[error(
        "the request has neither a token's secret nor a service account's token, or one of a kind that this gateway does not know"
    )]
    NoCredential,
    /// The service account lets no node join.
    #[error(transparent)]
    Account(#[from] AccountError),
    /// The machine's hash has a wrong length.
    #[error("the machine's hash has {0} bytes instead of 32")]
    Machine(usize),
    /// There are no, or too many, underlay addresses.
    #[error(
        "the host reports {0} underlay addresses; 1 to 16 are needed (see `underlayAddresses` in agent.yaml)"
    )]
    AddressCount(usize),
    /// An underlay address has a wrong length.
    #[error("the host reports an underlay address of {0} bytes; an address has 4 or 16")]
    AddressBytes(usize),
    /// An underlay address cannot be one.
    #[error("the host reports the underlay address {0}, which no tunnel packet can come from")]
    Address(IpAddr),
    /// Addresses are translated on the way.
    #[error(
        "the connection comes from {remote}, but the host's addresses are {reported}: there is NAT between, which plain VXLAN cannot cross (WireGuard, which can, is not available yet). If the host does have {remote}, set `underlayAddresses` in agent.yaml"
    )]
    Translated {
        /// Where the connection comes from.
        remote: IpAddr,
        /// What the host reports.
        reported: String,
    },
    /// The group is gone.
    #[error(
        "the token is for group {0}, which does not exist (any more): create it, or ask for another token"
    )]
    NoGroup(String),
    /// What is declared differs from the token.
    #[error("{name} is declared as a member of {declared}, but the token is for {token}")]
    OtherGroup {
        /// The workload.
        name: WorkloadName,
        /// Its group.
        declared: String,
        /// The token's.
        token: String,
    },
    /// The name asked for is none.
    #[error(
        "{0:?} is no valid name: 1 to 253 lower-case letters, digits, '-' or '.', each part beginning and ending with a letter or digit; choose another with --name"
    )]
    Name(String),
    /// The host name makes no name.
    #[error("the host name {0:?} cannot be made a valid or telling name: choose one with --name")]
    Hostname(String),
    /// A cluster node has its own name.
    #[error("the token is for the cluster node {node}, whose name is {node}: join without --name")]
    NodeName {
        /// The node.
        node: String,
    },
    /// A renewal is for the key that joined.
    #[error(
        "the request is for another key than the one workload {0} joined with: a key is not exchanged by renewing"
    )]
    OtherKey(WorkloadName),
    /// The caller may not.
    #[error(transparent)]
    Unauthorised(#[from] Unauthorised),
    /// The join was refused.
    #[error(transparent)]
    Refused(#[from] JoinRefusal),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The certificate could not be made.
    #[error(transparent)]
    Sign(#[from] SignError),
}

impl EnrollmentError {
    /// The reason as one word, for the audit log and metrics.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Csr(_) | Self::NoCredential => "request",
            Self::Account(error) => error.reason(),
            Self::Machine(_) | Self::AddressCount(_) | Self::AddressBytes(_) | Self::Address(_) => {
                "host-report"
            }
            Self::Translated { .. } => "nat",
            Self::NoGroup(_) => "group-missing",
            Self::OtherGroup { .. } => "group-other",
            Self::Name(_) | Self::Hostname(_) | Self::NodeName { .. } => "name",
            Self::OtherKey(_) => "key-other",
            Self::Unauthorised(error) => error.reason(),
            Self::Refused(refusal) => refusal.reason(),
            Self::Store(_) => "store",
            Self::Sign(error) => error.reason(),
        }
    }
}

impl From<TokenRefusal> for EnrollmentError {
    fn from(refusal: TokenRefusal) -> Self {
        Self::Refused(refusal.into())
    }
}

impl From<JoinError> for EnrollmentError {
    fn from(error: JoinError) -> Self {
        match error {
            JoinError::Refused(refusal) => Self::Refused(refusal),
            JoinError::Store(error) => Self::Store(error),
        }
    }
}

impl From<WorkloadError> for EnrollmentError {
    fn from(error: WorkloadError) -> Self {
        match error {
            WorkloadError::Refused(refusal) => Self::Unauthorised(refusal.into()),
            WorkloadError::Store(error) => Self::Store(error),
        }
    }
}

impl From<EnrollmentError> for Status {
    fn from(error: EnrollmentError) -> Self {
        let text = error.to_string();
        match error {
            EnrollmentError::Account(error) => error.into(),
            EnrollmentError::NoCredential => Self::unauthenticated(text),
            EnrollmentError::Csr(_)
            | EnrollmentError::Machine(_)
            | EnrollmentError::AddressCount(_)
            | EnrollmentError::AddressBytes(_)
            | EnrollmentError::Address(_)
            | EnrollmentError::Name(_)
            | EnrollmentError::Hostname(_) => Self::invalid_argument(text),
            EnrollmentError::Translated { .. }
            | EnrollmentError::NoGroup(_)
            | EnrollmentError::OtherGroup { .. }
            | EnrollmentError::NodeName { .. } => Self::failed_precondition(text),
            EnrollmentError::OtherKey(_) => Self::permission_denied(text),
            EnrollmentError::Unauthorised(error) => error.into(),
            EnrollmentError::Refused(refusal) => refused(&refusal, text),
            EnrollmentError::Store(_) => Self::unavailable(text),
            EnrollmentError::Sign(error) => error.status(text),
        }
    }
}

fn refused(refusal: &JoinRefusal, text: String) -> Status {
    match refusal {
        JoinRefusal::Token(_) => Status::unauthenticated(text),
        JoinRefusal::Namespace { .. } | JoinRefusal::KeyHeld(_) | JoinRefusal::KeyRevoked { .. } => {
            Status::permission_denied(text)
        }
        JoinRefusal::Bound { .. } | JoinRefusal::Gone(_) => Status::failed_precondition(text),
        JoinRefusal::NameHeld { .. } => Status::already_exists(text),
        JoinRefusal::Address(_) | JoinRefusal::PlaceKept { .. } => Status::resource_exhausted(text),
    }
}
