//! Whether a peer may act as the workload its certificate names: the one place that decides it, for every service.

use std::sync::Arc;
use std::time::Duration;

use pki::{Svid, UnixTime};

use crate::store::{RenewRefusal, Store, StoreError, Workload, WorkloadError};
use crate::tls::PeerIdentity;

/// Why a peer may not act as a workload.
#[derive(Debug, thiserror::Error)]
pub enum Unauthorised {
    /// It showed no certificate.
    #[error("this call needs a workload's certificate: run `outrigger join`")]
    NoCertificate,
    /// Its certificate names something else.
    #[error("the certificate names {0}, which is no workload")]
    NoWorkload(String),
    /// Its certificate is too old.
    #[error(
        "the certificate of {id} expired at {}, the gateway's clock shows {}{advice}",
        pki::display_time(*expired_at), pki::display_time(*now)
    )]
    Expired {
        /// Whom it names.
        id: String,
        /// When it expired.
        expired_at: UnixTime,
        /// The gateway's clock.
        now: UnixTime,
        /// What to do about it.
        advice: &'static str,
    },
    /// The workload is gone, was revoked, or has another key.
    #[error(transparent)]
    Refused(#[from] RenewRefusal),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Unauthorised {
    /// The reason as one word, for the audit log and metrics.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::NoCertificate => "certificate-missing",
            Self::NoWorkload(_) => "certificate-foreign",
            Self::Expired { .. } => "certificate-expired",
            Self::Refused(refusal) => refusal.reason(),
            Self::Store(_) => "store",
        }
    }
}

impl From<Unauthorised> for tonic::Status {
    fn from(error: Unauthorised) -> Self {
        let text = error.to_string();
        match error {
            Unauthorised::NoCertificate | Unauthorised::Expired { .. } => Self::unauthenticated(text),
            Unauthorised::NoWorkload(_) | Unauthorised::Refused(_) => Self::permission_denied(text),
            Unauthorised::Store(_) => Self::unavailable(text),
        }
    }
}

/// The workload that a peer is. A certificate that expired is accepted for `grace` after its end.
///
/// # Errors
/// [`Unauthorised`], with what to do about it.
pub fn authorise(
    store: &Store,
    peer: &PeerIdentity,
    now: UnixTime,
    grace: Duration,
) -> Result<Arc<Workload>, Unauthorised> {
    let svid = peer.svid.as_ref().ok_or(Unauthorised::NoCertificate)?;
    let name = peer.workload().ok_or_else(|| Unauthorised::NoWorkload(svid.id().to_string()))?;
    if now.as_secs() > svid.not_after().as_secs().saturating_add(grace.as_secs()) {
        return Err(expired(svid, now, grace));
    }
    match store.authorise(&name, svid.key_hash()) {
        Ok(workload) => Ok(workload),
        Err(WorkloadError::Refused(refusal)) => Err(refusal.into()),
        Err(WorkloadError::Store(error)) => Err(error.into()),
    }
}

fn expired(svid: &Svid, now: UnixTime, grace: Duration) -> Unauthorised {
    let advice = if grace.is_zero() {
        "; renew it first, and compare the clocks of both machines"
    } else {
        ", which is beyond the grace time for renewal; ask for `outrigger-gateway workload replace` and join anew"
    };
    Unauthorised::Expired { id: svid.id().to_string(), expired_at: svid.not_after(), now, advice }
}
