//! The gateway's own authority: its keys are in the store, and it signs in memory.

use std::sync::Arc;

use pki::{Asked, CertificateDer};
use tokio::sync::watch;

use super::{Roots, SignFailure, Signed, Signer};
use crate::store::RootError;

/// Signs with the root that is active.
pub(super) struct BuiltIn {
    pub(super) roots: watch::Receiver<Arc<Roots>>,
}

#[tonic::async_trait]
impl Signer for BuiltIn {
    fn name(&self) -> &'static str {
        "the gateway's own CA"
    }

    fn elsewhere(&self) -> &'static str {
        ""
    }

    async fn sign(&self, asked: &Asked<'_>) -> Result<Signed, SignFailure> {
        let roots = self.roots.borrow().clone();
        let active = roots.all().iter().find(|root| root.id == roots.active());
        let authority = active.and_then(|root| root.authority.as_ref());
        let authority =
            authority.ok_or_else(|| SignFailure::Unavailable(RootError::NoneActive.to_string()))?;
        let issued = authority.issue(asked.csr, asked.id, asked.now, asked.lifetime)?;
        Ok(Signed { chain: issued.chain, authorities: Vec::new() })
    }

    async fn authorities(&self) -> Result<Vec<CertificateDer<'static>>, SignFailure> {
        Ok(Vec::new())
    }
}
