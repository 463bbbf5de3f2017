//! The gateway's own certificate: issued at start, renewed in time, replaced while it serves.

use std::sync::Arc;
use std::time::Duration;

use pki::tls::{ServingCertificate, TlsError};
use pki::{Asked, CheckedCsr, InvalidCsr, InvalidKey, KeyPair, SpiffeId, UnixTime};

use crate::ca::{Ca, SignError};
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
    /// Then it is, whoever does not trust the root that signs.
    latest: UnixTime,
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
    Sign(#[from] SignError),
    /// TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl OwnCertificate {
    /// Issues the first certificate.
    ///
    /// # Errors
    /// [`OwnCertificateError`] where nobody signs it, or the cryptography refuses.
    pub async fn issue(ca: Arc<Ca>, id: SpiffeId, now: UnixTime) -> Result<Self, OwnCertificateError> {
        let Fresh { key, chain, issuer, renew_at, latest } = fresh(&ca, &id, now).await?;
        let serving = Arc::new(ServingCertificate::try_new(chain, &key)?);
        Ok(Self { ca, issuer, id, serving, renew_at, latest })
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
            self.renew_if_due(clock.now()).await;
        }
    }

    async fn renew_if_due(&mut self, now: UnixTime) {
        if !self.is_due(now) {
            return;
        }
        let renewed = match fresh(&self.ca, &self.id, now).await {
            Ok(fresh) => self.take(fresh),
            Err(error) => Err(error),
        };
        match renewed {
            Ok(()) => tracing::info!(spiffe_id = %self.id, "gateway certificate renewed"),
            Err(error) => tracing::error!(%error, spiffe_id = %self.id, "gateway certificate not renewed"),
        }
    }

    /// An authority elsewhere changes its root without asking: then the certificate of the old one is shown as long as hosts
    /// do not trust the new one.
    fn is_due(&self, now: UnixTime) -> bool {
        let roots = self.ca.roots();
        let is_old = now >= self.renew_at;
        if roots.active() == self.issuer || !self.ca.is_external() {
            return is_old || roots.active() != self.issuer;
        }
        let is_missed = self.ca.is_unknown_to_hosts(roots.active()).unwrap_or(true);
        !is_missed || now >= self.latest
    }

    fn take(&mut self, fresh: Fresh) -> Result<(), OwnCertificateError> {
        let Fresh { key, chain, issuer, renew_at, latest } = fresh;
        self.serving.replace(chain, &key)?;
        (self.issuer, self.renew_at, self.latest) = (issuer, renew_at, latest);
        Ok(())
    }
}

/// A new key with its chain, the root at the end, and when to do it again.
struct Fresh {
    key: KeyPair,
    chain: Vec<pki::CertificateDer<'static>>,
    issuer: String,
    renew_at: UnixTime,
    latest: UnixTime,
}

async fn fresh(ca: &Ca, id: &SpiffeId, now: UnixTime) -> Result<Fresh, OwnCertificateError> {
    let key = KeyPair::generate()?;
    let csr = CheckedCsr::from_der(&key.request_for(id)?)?;
    let certificate = ca.issue_own(&Asked { csr: &csr, id, now, lifetime: LIFETIME }).await?;
    let quarter = certificate.issued.expires.as_secs().saturating_sub(now.as_secs()) / 4;
    let after = |quarters: u64| crate::store::unix_time(now.as_secs().saturating_add(quarter * quarters));
    let chain = certificate.with_root();
    Ok(Fresh { key, chain, issuer: certificate.issuer, renew_at: after(2), latest: after(3) })
}

#[cfg(test)]
mod tests {
    use pki::TrustDomain;

    use super::*;
    use crate::store::{Pools, Settings, Store, unix_time};

    #[tokio::test]
    async fn it_is_renewed_at_half_of_its_time() {
        let domain = TrustDomain::try_new("outrigger.local").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let pools = Pools::try_new(&["10.9.0.0/24".parse().unwrap()]).unwrap();
        let settings = Settings { pools, cluster_id: 0, quarantine: LIFETIME };
        let store = Arc::new(Store::open(folder.path(), settings).unwrap());
        let ca = Arc::new(Ca::open(store, &domain, unix_time(1_000_000)).unwrap());
        let id = SpiffeId::gateway(&domain, "g").unwrap();
        let mut own = OwnCertificate::issue(Arc::clone(&ca), id, unix_time(1_000_000)).await.unwrap();
        let due = 1_000_000 + 12 * 3600;
        assert_eq!(own.renew_at, unix_time(due));
        own.renew_if_due(unix_time(due - 1)).await;
        assert_eq!(own.renew_at, unix_time(due));
        own.renew_if_due(unix_time(due)).await;
        assert_eq!(own.renew_at, unix_time(due + 12 * 3600));
        // Another root is no reason to wait.
        let now = unix_time(due + 1);
        let second = ca.add(now).unwrap();
        own.renew_if_due(now).await;
        assert_ne!(own.issuer, second);
        ca.activate(&second, false, now).unwrap();
        own.renew_if_due(now).await;
        assert_eq!((own.issuer.as_str(), own.renew_at), (second.as_str(), unix_time(due + 1 + 12 * 3600)));
    }
}
