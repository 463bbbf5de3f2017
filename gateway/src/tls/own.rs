//! The gateway's own certificate: issued by its own root at start, renewed in time, replaced while it serves.

use std::sync::Arc;
use std::time::Duration;

use pki::tls::{ServingCertificate, TlsError};
use pki::{Authority, CheckedCsr, InvalidCsr, InvalidKey, IssueError, KeyPair, SpiffeId, UnixTime};

use crate::ca::Ca;
use crate::clock::Clock;

/// How long a certificate of the gateway is valid.
const LIFETIME: Duration = Duration::from_hours(24);
/// How often it is looked at.
const LOOK: Duration = Duration::from_mins(10);

/// The gateway's certificate and what renews it.
pub struct OwnCertificate {
    ca: Arc<Ca>,
    /// The root that signed it.
    issuer: String,
    id: SpiffeId,
    serving: Arc<ServingCertificate>,
    renew_at: UnixTime,
}

/// A certificate that the gateway could not make for itself.
#[derive(Debug, thiserror::Error)]
pub enum OwnCertificateError {
    /// Its key.
    #[error(transparent)]
    Key(#[from] InvalidKey),
    /// Its request.
    #[error(transparent)]
    Request(#[from] InvalidCsr),
    /// Its certificate.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl OwnCertificate {
    /// Issues the first certificate.
    ///
    /// # Errors
    /// [`OwnCertificateError`] where the root has expired or the cryptography refuses.
    pub fn issue(ca: Arc<Ca>, id: SpiffeId, now: UnixTime) -> Result<Self, OwnCertificateError> {
        let roots = ca.roots();
        let root = roots.active();
        let (key, chain, renew_at) = fresh(&root.authority, &id, now)?;
        let serving = Arc::new(ServingCertificate::try_new(chain, &key)?);
        Ok(Self { ca, issuer: root.id.clone(), id, serving, renew_at })
    }

    /// What TLS shows.
    #[must_use]
    pub fn serving(&self) -> Arc<ServingCertificate> {
        self.serving.clone()
    }

    /// Renews it when half of its time is over, and at once when another root signs, for ever. A failure keeps the old
    /// one and is tried again.
    pub async fn keep_fresh(mut self, clock: Clock) {
        let mut roots = self.ca.watch();
        loop {
            // The sender is in this very struct.
            let _looked = tokio::time::timeout(LOOK, roots.changed()).await;
            self.renew_if_due(clock.now());
        }
    }

    fn renew_if_due(&mut self, now: UnixTime) {
        let roots = self.ca.roots();
        let root = roots.active();
        if now < self.renew_at && root.id == self.issuer {
            return;
        }
        let renewed = fresh(&root.authority, &self.id, now).and_then(|(key, chain, renew_at)| {
            self.serving.replace(chain, &key)?;
            Ok(renew_at)
        });
        match renewed {
            Ok(renew_at) => {
                self.renew_at = renew_at;
                self.issuer.clone_from(&root.id);
                tracing::info!(spiffe_id = %self.id, "gateway certificate renewed");
            }
            Err(error) => tracing::error!(%error, spiffe_id = %self.id, "gateway certificate not renewed"),
        }
    }
}

type Fresh = (KeyPair, Vec<pki::CertificateDer<'static>>, UnixTime);

/// A new key with its chain, the root at the end, and when to do it again.
fn fresh(authority: &Authority, id: &SpiffeId, now: UnixTime) -> Result<Fresh, OwnCertificateError> {
    let key = KeyPair::generate()?;
    let csr = CheckedCsr::from_der(&key.request()?)?;
    let issued = authority.issue(&csr, id, now, LIFETIME)?;
    let mut chain = issued.chain;
    chain.push(authority.certificate().clone());
    let half = issued.expires.as_secs().saturating_sub(now.as_secs()) / 2;
    Ok((key, chain, crate::store::unix_time(now.as_secs().saturating_add(half))))
}

#[cfg(test)]
mod tests {
    use pki::TrustDomain;

    use super::*;
    use crate::store::{Pools, Settings, Store, unix_time};

    #[test]
    fn it_is_renewed_at_half_of_its_time() {
        let domain = TrustDomain::try_new("outrigger.local").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let pools = Pools::try_new(&["10.9.0.0/24".parse().unwrap()]).unwrap();
        let settings = Settings { pools, cluster_id: 0, quarantine: LIFETIME };
        let store = Arc::new(Store::open(folder.path(), settings).unwrap());
        let ca = Arc::new(Ca::open(store, &domain, unix_time(1_000_000)).unwrap());
        let id = SpiffeId::gateway(&domain, "g").unwrap();
        let mut own = OwnCertificate::issue(Arc::clone(&ca), id, unix_time(1_000_000)).unwrap();
        let due = 1_000_000 + 12 * 3600;
        assert_eq!(own.renew_at, unix_time(due));
        own.renew_if_due(unix_time(due - 1));
        assert_eq!(own.renew_at, unix_time(due));
        own.renew_if_due(unix_time(due));
        assert_eq!(own.renew_at, unix_time(due + 12 * 3600));
        // Another root is no reason to wait.
        let now = unix_time(due + 1);
        let second = ca.add(now).unwrap();
        own.renew_if_due(now);
        assert_ne!(own.issuer, second);
        ca.activate(&second, false, now).unwrap();
        own.renew_if_due(now);
        assert_eq!((own.issuer.as_str(), own.renew_at), (second.as_str(), unix_time(due + 1 + 12 * 3600)));
    }
}
