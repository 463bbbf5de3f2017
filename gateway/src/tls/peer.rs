//! Who is at the other end of a TLS connection, as its certificate proves it.

use std::net::{IpAddr, SocketAddr};

use pki::{KeyHash, Principal, SpiffeId, Svid, UnixTime};

use super::Cut;
use crate::store::WorkloadName;

/// A peer, found in the extensions of every request. Its certificate chain and trust domain were verified in the
/// handshake; expiry and revocation are decided at each call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerIdentity {
    /// What the certificate says; `None`: it showed none.
    pub svid: Option<Svid>,
    /// Where the connection comes from; IPv4 in its own form also on a dual-stack socket.
    pub remote: SocketAddr,
    /// Whether that is a proxy, behind which the peer may be anywhere.
    pub by_proxy: bool,
    /// What cuts the connection.
    pub cut: Cut,
}

impl PeerIdentity {
    /// The underlay address that it has, since it connects from there. A connection over loopback comes from the
    /// gateway's own machine, and tells nothing; neither does one through a proxy.
    #[must_use]
    pub fn source(&self) -> Option<IpAddr> {
        Some(self.remote.ip().to_canonical()).filter(|source| !source.is_loopback() && !self.by_proxy)
    }

    /// Whom the certificate names.
    #[must_use]
    pub fn spiffe_id(&self) -> Option<&SpiffeId> {
        self.svid.as_ref().map(Svid::id)
    }

    /// The hash of the key that the peer proved.
    #[must_use]
    pub fn key_hash(&self) -> Option<KeyHash> {
        self.svid.as_ref().map(Svid::key_hash)
    }

    /// Whether its certificate is no longer valid.
    #[must_use]
    pub fn expired(&self, now: UnixTime) -> bool {
        self.svid.as_ref().is_some_and(|svid| now > svid.not_after())
    }

    /// The external workload it is.
    #[must_use]
    pub fn workload(&self) -> Option<WorkloadName> {
        match self.spiffe_id()?.principal() {
            Principal::Workload { namespace, name } => WorkloadName::try_new(namespace, name).ok(),
            Principal::Gateway { .. } | Principal::Admin { .. } => None,
        }
    }

    /// The administrator it is.
    #[must_use]
    pub fn admin(&self) -> Option<&str> {
        match self.spiffe_id()?.principal() {
            Principal::Admin { name } => Some(name),
            Principal::Gateway { .. } | Principal::Workload { .. } => None,
        }
    }
}
