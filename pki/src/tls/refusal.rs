//! Why a peer was refused in a handshake, in words for the person who must act.

use std::error::Error;
use std::sync::Arc;

use rustls::{CertificateError, OtherError};
use rustls_pki_types::UnixTime;

use crate::display_time;
use crate::spiffe::{SpiffeId, TrustDomain};
use crate::svid::{InvalidSvid, Svid};

/// A peer that was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerRefusal {
    /// Its chain ends in no pinned root.
    #[error(
        "the server's certificate ends in no root that the token pins: it is not the gateway that made the token, or something intercepts the connection"
    )]
    Pin,
    /// Its chain ends in no trusted root, or is broken.
    #[error("the certificate of {id} is not signed by a trusted root: {reason}")]
    Chain {
        /// Whom it claims to be.
        id: SpiffeId,
        /// What is wrong.
        reason: String,
    },
    /// It is no SVID.
    #[error(transparent)]
    Svid(#[from] InvalidSvid),
    /// It is of another trust domain.
    #[error("the certificate of {id} is not of trust domain {expected}")]
    TrustDomain {
        /// Whom it names.
        id: SpiffeId,
        /// The trust domain expected.
        expected: TrustDomain,
    },
    /// It is no gateway.
    #[error("the server is {0}, which is no gateway")]
    NotGateway(SpiffeId),
    /// It is not valid yet: a clock is wrong.
    #[error(
        "the certificate of {id} is valid from {} on, the clock here shows {}: set the clock of one of the two machines",
        display_time(*not_before), display_time(*clock)
    )]
    NotYetValid {
        /// Whom it names.
        id: SpiffeId,
        /// From when it is valid; five minutes before the issuer's clock at its issue.
        not_before: UnixTime,
        /// The time here.
        clock: UnixTime,
    },
    /// It expired, or a clock is wrong.
    #[error(
        "the certificate of {id} expired at {}, the clock here shows {}: set the clock of one of the two machines",
        display_time(*not_after), display_time(*clock)
    )]
    Expired {
        /// Whom it names.
        id: SpiffeId,
        /// Until when it was valid.
        not_after: UnixTime,
        /// The time here.
        clock: UnixTime,
    },
}

impl From<PeerRefusal> for rustls::Error {
    fn from(refusal: PeerRefusal) -> Self {
        Self::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(refusal))))
    }
}

/// Whether a certificate is valid at a time.
pub(super) fn check_time(svid: &Svid, clock: UnixTime) -> Result<(), PeerRefusal> {
    let id = || svid.id().clone();
    if clock < svid.not_before() {
        Err(PeerRefusal::NotYetValid { id: id(), not_before: svid.not_before(), clock })
    } else if clock > svid.not_after() {
        Err(PeerRefusal::Expired { id: id(), not_after: svid.not_after(), clock })
    } else {
        Ok(())
    }
}

/// The refusal within an error of a connection, however deep it is wrapped; `None`: something else went wrong.
#[must_use]
pub fn refusal(error: &(dyn Error + 'static)) -> Option<PeerRefusal> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(refusal) = error.downcast_ref::<PeerRefusal>() {
            return Some(refusal.clone());
        }
        if let Some(rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(inner)))) =
            error.downcast_ref::<rustls::Error>()
        {
            return inner.downcast_ref::<PeerRefusal>().cloned();
        }
        // An I/O error hides its content from `source`.
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        next = match inner {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}
