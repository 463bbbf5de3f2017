//! Who signs certificates: the gateway itself, or an authority elsewhere, which is slow, may be away, and may sign something
//! else than it was asked to.

use pki::{Asked, CertificateDer, IssueError, UnfitCertificate};
use tonic::Status;

use crate::store::{RootError, StoreError};

/// Who signs. What it signs is verified by whoever asked.
#[tonic::async_trait]
pub trait Signer: Send + Sync {
    /// What messages call it, with where it is.
    fn name(&self) -> &str;

    /// Where its roots are changed, for who tries to do that here.
    fn elsewhere(&self) -> &str;

    /// Whether the request itself has to name the id, because it is signed as it is.
    fn signs_as_requested(&self) -> bool {
        false
    }

    /// Signs.
    async fn sign(&self, asked: &Asked<'_>) -> Result<Signed, SignFailure>;

    /// The chain of the authority as it is now, as in [`Signed`]; empty: it is known with a certificate only.
    async fn authorities(&self) -> Result<Vec<CertificateDer<'static>>, SignFailure>;
}

/// What was signed.
#[derive(Clone, Debug)]
pub struct Signed {
    /// The certificate first, then what is between it and a root, in any order.
    pub chain: Vec<CertificateDer<'static>>,
    /// The authority that signed, then who signed for it, up to the root where that is known.
    pub authorities: Vec<CertificateDer<'static>>,
}

/// Why something was not signed, in the signer's words.
#[derive(Debug, thiserror::Error)]
pub enum SignFailure {
    /// For now: later it may be.
    #[error("{0}")]
    Unavailable(String),
    /// Until a person changes something.
    #[error("{0}")]
    Refused(String),
    /// The gateway's own authority failed.
    #[error(transparent)]
    Issue(#[from] IssueError),
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// Who signs is away.
    #[error("{ca} is not available: {reason}")]
    Unavailable {
        /// Who.
        ca: String,
        /// What was tried.
        reason: String,
    },
    /// Who signs does not want to.
    #[error("{ca} does not sign: {reason}")]
    Refused {
        /// Who.
        ca: String,
        /// Its words.
        reason: String,
    },
    /// Something else was signed.
    #[error("{ca} signed something else than it was asked for: {fault}")]
    Unfit {
        /// Who.
        ca: String,
        /// What is wrong.
        fault: UnfitCertificate,
    },
    /// The request does not name who it is for.
    #[error("{ca} signs requests as they are, and this one does not name {id} alone")]
    Unnamed {
        /// Who.
        ca: String,
        /// Whom it has to name.
        id: String,
    },
    /// The gateway's own authority failed.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// A root was not kept.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The roots cannot be read.
    #[error(transparent)]
    Root(#[from] RootError),
}

impl SignFailure {
    pub(super) fn of(self, ca: &str) -> SignError {
        let ca = ca.to_owned();
        match self {
            Self::Unavailable(reason) => SignError::Unavailable { ca, reason },
            Self::Refused(reason) => SignError::Refused { ca, reason },
            Self::Issue(error) => SignError::Issue(error),
        }
    }
}

impl SignError {
    /// The reason as one word, for the audit log and metrics.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Unavailable { .. } => "ca-unavailable",
            Self::Refused { .. } => "ca-refused",
            Self::Unfit { .. } => "ca-unfit",
            Self::Unnamed { .. } => "request",
            Self::Issue(_) => "issue",
            Self::Store(_) | Self::Root(_) => "store",
        }
    }

    /// What the caller is told. Hosts try again after each of these: a person changes the authority, not the host.
    #[must_use]
    pub fn status(&self, text: String) -> Status {
        match self {
            Self::Unavailable { .. } | Self::Store(_) | Self::Root(_) => Status::unavailable(text),
            Self::Refused { .. } | Self::Unfit { .. } | Self::Unnamed { .. } => {
                Status::failed_precondition(text)
            }
            Self::Issue(_) => Status::internal(text),
        }
    }
}
