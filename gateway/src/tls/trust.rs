//! Whom TLS trusts: the roots as they are at each handshake.

use std::sync::Arc;

use pki::InvalidBundle;
use pki::tls::{ClientTrust, TlsError};
use telemetry::shutdown::Shutdown;

use crate::ca::Ca;

/// Roots that TLS cannot trust.
#[derive(Debug, thiserror::Error)]
pub enum UnusableRoots {
    /// They are none.
    #[error(transparent)]
    Bundle(#[from] InvalidBundle),
    /// TLS refuses them.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Trusts the roots as they are now.
///
/// # Errors
/// [`UnusableRoots`].
pub fn trust(ca: &Ca) -> Result<Arc<ClientTrust>, UnusableRoots> {
    Ok(Arc::new(ClientTrust::try_new(&ca.roots().bundle()?)?))
}

/// Keeps that in line with the roots until shutdown.
pub async fn follow_roots(trust: Arc<ClientTrust>, ca: Arc<Ca>, shutdown: Shutdown) {
    let mut roots = ca.watch();
    loop {
        let bundle = roots.borrow_and_update().bundle();
        let replaced = bundle.map_err(UnusableRoots::from).and_then(|bundle| Ok(trust.replace(&bundle)?));
        if let Err(error) = replaced {
            tracing::error!(%error, "the roots are not trusted as they are now");
        }
        tokio::select! {
            changed = roots.changed() => if changed.is_err() { return },
            () = shutdown.wait() => return,
        }
    }
}
