//! An authority elsewhere: asked within a deadline, and its roots followed. A root that certificates lead to is kept in
//! the store from then on, until it is retired; one in the file of roots is trusted as long as it is there.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pki::{Asked, CertificateDer, RootCertificate, UnfitCertificate, UnixTime};
use tokio::time::timeout;

use super::{Ca, Certificate, External, Root, Roots, SignError, SignFailure, Signed, blocking};
use crate::audit::{Audit, Event};
use crate::clock::Clock;
use crate::store::{RootError, root_id};

/// The wait before an authority that was away is asked again; it triples.
const PAUSE: Duration = Duration::from_millis(200);
/// How often the roots are looked at.
const LOOK: Duration = Duration::from_secs(30);
/// The largest file of roots.
const LARGEST_BUNDLE: u64 = 1 << 20;

impl Ca {
    pub(super) async fn issue_elsewhere(
        &self,
        external: &External,
        asked: &Asked<'_>,
    ) -> Result<Certificate, SignError> {
        let ca = self.signer.name();
        if self.signer.signs_as_requested() && !asked.csr.names_only(asked.id) {
            return Err(SignError::Unnamed { ca: ca.to_owned(), id: asked.id.to_string() });
        }
        let mut last = String::new();
        let asking = self.ask(asked, &mut last);
        let signed = timeout(external.deadline, asking).await.unwrap_or_else(|_elapsed| {
            let waited = format!("no answer in {} s", external.deadline.as_secs());
            let last = if last.is_empty() { waited } else { format!("{waited}; {last}") };
            Err(SignFailure::Unavailable(last))
        });
        let signed = signed.map_err(|failure| failure.of(ca))?;
        let unfit = |fault| SignError::Unfit { ca: ca.to_owned(), fault };
        let roots = self.roots();
        let checked = roots.verify(&signed.chain, asked);
        let (issued, root) = match (checked, self.new_root(&signed.authorities)) {
            (Err(UnfitCertificate::Chain(_)), Some(new)) => {
                let alone = Roots::new(String::new(), vec![Root::listed(new.clone())]);
                let found = alone.verify(&signed.chain, asked).map_err(unfit)?;
                self.keep(new, asked.now).await?;
                found
            }
            (checked, _) => checked.map_err(unfit)?,
        };
        if self.roots().active() != root {
            self.signs_now(root.clone()).await?;
        }
        Ok(Certificate { issued, issuer: root, roots: self.roots() })
    }

    /// Asks until there is an answer that no later one would better.
    async fn ask(&self, asked: &Asked<'_>, last: &mut String) -> Result<Signed, SignFailure> {
        // The semaphore is never closed.
        let _permit =
            self.permits.acquire().await.map_err(|error| SignFailure::Unavailable(error.to_string()))?;
        let mut pause = PAUSE;
        loop {
            match self.signer.sign(asked).await {
                Err(SignFailure::Unavailable(reason)) => *last = reason,
                other => return other,
            }
            tokio::time::sleep(pause).await;
            pause = pause.saturating_mul(3);
        }
    }

    /// A certificate for the gateway itself. While hosts trust a root of the gateway's own and not the one of who signs, as
    /// where it has just been handed over, that one signs it: else they would be lost.
    ///
    /// # Errors
    /// [`SignError`].
    pub async fn issue_own(&self, asked: &Asked<'_>) -> Result<Certificate, SignError> {
        let certificate = self.issue(asked).await?;
        let roots = certificate.roots.clone();
        let own = roots.all().iter().rev().find_map(|root| Some((root, root.authority.as_ref()?)));
        match own.filter(|_own| self.is_external()) {
            Some((root, authority)) if self.is_unknown_to_hosts(&certificate.issuer)? => {
                let issued = authority.issue(asked.csr, asked.id, asked.now, asked.lifetime)?;
                Ok(Certificate { issued, issuer: root.id.clone(), roots })
            }
            _ => Ok(certificate),
        }
    }

    /// Looks which roots there are now.
    pub async fn refresh(&self, now: UnixTime) {
        let Some(external) = &self.external else { return };
        // Also where its roots are not asked for: it prolongs a login, and removes what was left behind.
        let told = timeout(external.deadline, self.signer.authorities()).await;
        if external.trust_bundle.is_some() {
            match self.external_roots(external) {
                Ok(roots) if roots.certificates() != self.roots().certificates() => {
                    self.roots.send_replace(Arc::new(roots));
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "the roots stay as they were"),
            }
            return;
        }
        match told {
            Ok(Ok(authorities)) => {
                let Some(new) = self.new_root(&authorities) else { return };
                if let Err(error) = self.keep(new, now).await {
                    tracing::warn!(%error, "a new root is not trusted");
                }
            }
            Ok(Err(error)) => tracing::info!(%error, ca = self.signer.name(), "its roots are not known"),
            Err(_elapsed) => tracing::info!(ca = self.signer.name(), "it does not say what its roots are"),
        }
    }

    /// Looks again and again where somebody else signs, for ever, and writes down which roots were found.
    pub async fn follow(self: Arc<Self>, audit: Arc<Audit>, clock: Clock) {
        if !self.is_external() {
            return;
        }
        let ids = |roots: &Roots| roots.all().iter().map(|root| root.id.clone()).collect::<BTreeSet<_>>();
        let mut changed = self.watch();
        let mut known = ids(&changed.borrow_and_update());
        let mut due = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                _ = due.tick() => self.refresh(clock.now()).await,
                // The sender is in this very struct.
                _changed = changed.changed() => {}
            }
            let now = ids(&changed.borrow_and_update());
            for root in now.difference(&known) {
                let by = self.signer.name().to_owned();
                tracing::info!(root, by, "a root is trusted from now on");
                let (root, what) = (root.clone(), "found");
                audit.record(&Event::RootsChanged { root, what, force: false, by }, clock.now());
            }
            known = now;
        }
    }

    /// The root of who signs, where nobody has said which ones are trusted and this one is not.
    fn new_root(&self, authorities: &[CertificateDer<'static>]) -> Option<RootCertificate> {
        if self.trust_bundle().is_some() {
            return None;
        }
        let read = |der: &CertificateDer<'static>| RootCertificate::try_new(der.clone()).ok();
        let all: Vec<RootCertificate> = authorities.iter().filter_map(read).collect();
        let top = all.iter().find(|one| one.is_self_issued()).or(all.last())?;
        let is_known = self.roots().all().iter().any(|root| root.certificate.pin() == top.pin());
        (!is_known).then(|| top.clone())
    }

    async fn keep(&self, root: RootCertificate, now: UnixTime) -> Result<(), SignError> {
        let store = self.store.clone();
        blocking(move || store.keep_root(&root, now)).await?;
        Ok(self.reload(now)?)
    }

    async fn signs_now(&self, id: String) -> Result<(), SignError> {
        let (store, root) = (self.store.clone(), id.clone());
        // One of the file is in no store.
        let _kept = blocking(move || store.activate_root(&root)).await?;
        let all = self.roots().all().to_vec();
        self.roots.send_replace(Arc::new(Roots::new(id, all)));
        Ok(())
    }

    pub(super) fn external_roots(&self, external: &External) -> Result<Roots, RootError> {
        let kept = self.store.kept_roots(&self.trust_domain)?;
        let signs = kept.iter().find(|root| root.active).map(|root| root.id.clone());
        let mut all: Vec<Root> = kept.into_iter().map(Root::from).collect();
        for certificate in external.trust_bundle.as_deref().map(listed).transpose()?.unwrap_or_default() {
            let id = root_id(certificate.pin());
            match all.iter_mut().find(|root| root.id == id) {
                Some(root) => root.listed = true,
                None => all.push(Root::listed(certificate)),
            }
        }
        let active = self.roots().active().to_owned();
        let is_there = all.iter().any(|root| root.id == active);
        let active = if is_there { active } else { signs.unwrap_or_default() };
        Ok(Roots::new(active, all))
    }
}

/// The roots of a file.
fn listed(path: &Path) -> Result<Vec<RootCertificate>, RootError> {
    let failed = |reason: String| RootError::Bundle { path: path.to_owned(), reason };
    let read = || -> std::io::Result<String> {
        use std::io::Read as _;
        let mut text = String::new();
        std::fs::File::open(path)?.take(LARGEST_BUNDLE).read_to_string(&mut text)?;
        Ok(text)
    };
    let text = read().map_err(|error| failed(error.to_string()))?;
    let certificates = pki::certificates_from_pem(&text).map_err(|error| failed(error.to_string()))?;
    let roots = certificates.into_iter().map(RootCertificate::try_new).collect::<Result<Vec<_>, _>>();
    roots.map_err(|error| failed(error.to_string()))
}
