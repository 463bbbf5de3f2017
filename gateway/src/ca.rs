//! The authority of the mesh while the gateway runs: which roots are trusted, and certificates by whoever signs. What was
//! signed is verified here before anybody is given it. Nothing here is called while the store is locked.

mod built_in;
pub mod cert_manager;
mod external;
mod metrics;
mod roots;
mod rotation;
mod signer;
pub mod vault;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pki::{Asked, TrustDomain, UnixTime};
use tokio::sync::{Semaphore, watch};

use crate::store::{Given, RootError, Store, StoreError, WorkloadName};

use built_in::BuiltIn;
pub use metrics::CaMetrics;
pub use roots::{Certificate, Root, Roots};
pub use rotation::{RotationError, Standing};
pub use signer::{SignError, SignFailure, Signed, Signer};

/// Requests to an authority elsewhere at a time.
const AT_A_TIME: usize = 16;

/// The roots, where they are kept, and who signs.
pub struct Ca {
    store: Arc<Store>,
    trust_domain: TrustDomain,
    roots: watch::Sender<Arc<Roots>>,
    signer: Arc<dyn Signer>,
    /// `None`: the gateway signs itself.
    external: Option<External>,
    permits: Semaphore,
    /// Why nothing is signed at the moment.
    trouble: Mutex<Option<String>>,
    metrics: CaMetrics,
}

/// An authority elsewhere.
pub struct External {
    /// Who signs.
    pub signer: Arc<dyn Signer>,
    /// A file with the roots to trust; `None`: those that certificates come with.
    pub trust_bundle: Option<PathBuf>,
    /// How long a certificate may take.
    pub deadline: Duration,
}

impl Ca {
    /// The gateway signs itself, with the roots of the store; the first one is made with it.
    ///
    /// # Errors
    /// [`RootError`].
    pub fn open(store: Arc<Store>, trust_domain: &TrustDomain, now: UnixTime) -> Result<Self, RootError> {
        let roots = watch::Sender::new(Arc::default());
        let signer = Arc::new(BuiltIn { roots: roots.subscribe() });
        let ca = Self::new(store, trust_domain, signer, None, roots);
        ca.reload(now)?;
        Ok(ca)
    }

    /// Somebody else signs. Which roots there are is known with the first certificate, unless the store or a file says it.
    ///
    /// # Errors
    /// [`RootError`].
    pub fn open_external(
        store: Arc<Store>,
        trust_domain: &TrustDomain,
        external: External,
        now: UnixTime,
    ) -> Result<Self, RootError> {
        let signer = external.signer.clone();
        let ca = Self::new(store, trust_domain, signer, Some(external), watch::Sender::new(Arc::default()));
        ca.reload(now)?;
        Ok(ca)
    }

    fn new(
        store: Arc<Store>,
        trust_domain: &TrustDomain,
        signer: Arc<dyn Signer>,
        external: Option<External>,
        roots: watch::Sender<Arc<Roots>>,
    ) -> Self {
        Self {
            store,
            trust_domain: trust_domain.clone(),
            roots,
            signer,
            external,
            permits: Semaphore::new(AT_A_TIME),
            trouble: Mutex::default(),
            metrics: CaMetrics::default(),
        }
    }

    /// The roots now.
    #[must_use]
    pub fn roots(&self) -> Arc<Roots> {
        self.roots.borrow().clone()
    }

    /// The roots, always the latest.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Arc<Roots>> {
        self.roots.subscribe()
    }

    /// What counts certificates and failures.
    #[must_use]
    pub const fn metrics(&self) -> &CaMetrics {
        &self.metrics
    }

    /// Why nothing is signed at the moment, if something is known to be wrong.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether somebody else signs.
    #[must_use]
    pub const fn is_external(&self) -> bool {
        self.external.is_some()
    }

    /// Whether a request that does not name whom it is for is signed for nobody.
    #[must_use]
    pub fn signs_as_requested(&self) -> bool {
        self.signer.signs_as_requested()
    }

    fn signer(&self) -> &dyn Signer {
        &*self.signer
    }

    fn trust_bundle(&self) -> Option<&Path> {
        self.external.as_ref()?.trust_bundle.as_deref()
    }

    /// A certificate for somebody else's key, verified. An authority that is away for a moment is asked again.
    ///
    /// # Errors
    /// [`SignError`].
    pub async fn issue(&self, asked: &Asked<'_>) -> Result<Certificate, SignError> {
        let issued = match &self.external {
            None => self.issue_here(asked).await,
            Some(external) => self.issue_elsewhere(external, asked).await,
        };
        self.metrics.signed(issued.as_ref().map_or_else(SignError::reason, |_certificate| "ok"));
        match &issued {
            Ok(_) => self.note(None),
            // That is no fault of who signs.
            Err(SignError::Unnamed { .. } | SignError::Store(_) | SignError::Root(_)) => {}
            Err(
                error @ (SignError::Unavailable { .. }
                | SignError::Refused { .. }
                | SignError::Unfit { .. }
                | SignError::Issue(_)),
            ) => self.note(Some(error.to_string())),
        }
        issued
    }

    async fn issue_here(&self, asked: &Asked<'_>) -> Result<Certificate, SignError> {
        let signed = self.signer.sign(asked).await.map_err(|failure| failure.of(self.signer.name()))?;
        let roots = self.roots();
        let (issued, root) = roots
            .verify(&signed.chain, asked)
            .map_err(|fault| SignError::Unfit { ca: self.signer.name().to_owned(), fault })?;
        Ok(Certificate { issued, issuer: root, roots })
    }

    /// Learns what is wrong, or that nothing is.
    fn note(&self, trouble: Option<String>) {
        let mut known = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if *known == trouble {
            return;
        }
        if let Some(trouble) = &trouble {
            tracing::warn!(trouble, "certificates cannot be signed");
        } else {
            tracing::info!(ca = self.signer.name(), "certificates are signed again");
        }
        self.metrics.available(trouble.is_none());
        *known = trouble;
    }

    fn reload(&self, now: UnixTime) -> Result<(), RootError> {
        let roots = match &self.external {
            None => {
                let kept = self.store.roots(&self.trust_domain, now)?;
                let active = kept.iter().find(|root| root.active).ok_or(RootError::NoneActive)?.id.clone();
                Roots::new(active, kept.into_iter().map(Root::from).collect())
            }
            Some(external) => self.external_roots(external)?,
        };
        self.roots.send_replace(Arc::new(roots));
        Ok(())
    }
}

impl fmt::Debug for Ca {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ca").finish_non_exhaustive()
    }
}

/// Records what a workload was given. A failure is no reason to refuse it: then a rotation waits for its next renewal.
pub fn record(store: &Store, name: &WorkloadName, given: Given) {
    if let Err(error) = store.gave(name, given) {
        tracing::warn!(%error, workload = %name, "what the host trusts is not recorded");
    }
}

/// Runs what waits for the disk where it holds up nobody.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(StoreError::Database(error.to_string())))
}

#[cfg(test)]
mod tests;
