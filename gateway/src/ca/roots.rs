//! The roots of the mesh at one moment.

use std::sync::Arc;

use pki::{
    Asked, Authority, CertificateDer, InvalidBundle, Issued, KeyHash, RootCertificate, TrustBundle,
    UnfitCertificate, UnixTime,
};

use super::rotation::RotationError;
use crate::store::{Given, KeptRoot, root_id, unix_time};

/// All roots at one moment.
#[derive(Debug, Default)]
pub struct Roots {
    /// The name of the one that signs; empty: nobody has signed yet.
    active: String,
    /// Oldest first.
    all: Vec<Root>,
}

/// A root.
#[derive(Clone)]
pub struct Root {
    /// Its name: the first digits of its key's hash.
    pub id: String,
    /// It.
    pub certificate: RootCertificate,
    /// It and its key; `None`: somebody else has that.
    pub authority: Option<Arc<Authority>>,
    /// When it was made, or first seen.
    pub added_at: UnixTime,
    /// Whether a file says that it is trusted.
    pub(super) listed: bool,
}

/// A certificate for somebody, and what comes with it.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// The certificate.
    pub issued: Issued,
    /// The name of its root.
    pub issuer: String,
    /// The roots now.
    pub roots: Arc<Roots>,
}

impl std::fmt::Debug for Root {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Root").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Root {
    pub(super) fn listed(certificate: RootCertificate) -> Self {
        let id = root_id(certificate.pin());
        Self { id, certificate, authority: None, added_at: unix_time(0), listed: true }
    }
}

impl From<KeptRoot> for Root {
    fn from(KeptRoot { id, certificate, authority, active: _, added_at }: KeptRoot) -> Self {
        let authority = authority.map(Arc::new);
        Self { id, certificate, authority, added_at: unix_time(added_at), listed: false }
    }
}

impl Certificate {
    /// What a host is given with it.
    #[must_use]
    pub fn given(&self) -> Given {
        Given {
            issuer: self.issuer.clone(),
            roots: self.roots.all.iter().map(|root| root.id.clone()).collect(),
            expires: self.issued.expires.as_secs(),
        }
    }

    /// Its chain with the root at the end: so that a host that joins can compare that with its pin.
    #[must_use]
    pub fn with_root(&self) -> Vec<CertificateDer<'static>> {
        let root = self.roots.all.iter().find(|root| root.id == self.issuer);
        let root = root.map(|root| root.certificate.certificate().clone());
        self.issued.chain.iter().cloned().chain(root).collect()
    }
}

impl Roots {
    pub(super) const fn new(active: String, all: Vec<Root>) -> Self {
        Self { active, all }
    }

    /// The name of the one that signs.
    #[must_use]
    pub fn active(&self) -> &str {
        &self.active
    }

    /// All of them, oldest first.
    #[must_use]
    pub fn all(&self) -> &[Root] {
        &self.all
    }

    /// All of them in DER, as hosts are given them.
    #[must_use]
    pub fn certificates(&self) -> Vec<Vec<u8>> {
        self.all.iter().map(|root| root.certificate.certificate().to_vec()).collect()
    }

    /// What tokens pin.
    #[must_use]
    pub fn pins(&self) -> Vec<KeyHash> {
        self.all.iter().map(|root| root.certificate.pin()).collect()
    }

    /// What peers are verified with.
    ///
    /// # Errors
    /// [`InvalidBundle::Empty`] where somebody else signs, and nobody was signed for yet.
    pub fn bundle(&self) -> Result<TrustBundle, InvalidBundle> {
        TrustBundle::try_new(self.all.iter().map(|root| root.certificate.certificate().clone()).collect())
    }

    /// Whether a host that was given this would be given the same again.
    #[must_use]
    pub fn are_as_given(&self, given: &Given) -> bool {
        given.issuer == self.active && given.roots.iter().eq(self.all.iter().map(|root| &root.id))
    }

    /// Verifies what was signed; the certificate and the name of its root.
    pub(super) fn verify(
        &self,
        chain: &[CertificateDer<'static>],
        asked: &Asked<'_>,
    ) -> Result<(Issued, String), UnfitCertificate> {
        let certificates: Vec<RootCertificate> =
            self.all.iter().map(|root| root.certificate.clone()).collect();
        let (issued, at) = pki::verify_issued(chain, asked, &certificates)?;
        Ok((issued, self.all.get(at).map(|root| root.id.clone()).unwrap_or_default()))
    }

    pub(super) fn find(&self, id: &str) -> Result<&Root, RotationError> {
        let found = self.all.iter().find(|root| root.id == id);
        found.ok_or_else(|| RotationError::Unknown(id.to_owned()))
    }
}
