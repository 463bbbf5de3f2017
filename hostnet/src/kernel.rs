//! What executes operations: the kernel through netlink, or a double in memory.

use std::future::Future;
use std::io;

use crate::inventory::Inventory;
use crate::plan::Operation;

/// A kernel, as far as this crate needs one.
pub trait Kernel {
    /// Dumps links, addresses and routes.
    fn inventory(&mut self) -> impl Future<Output = io::Result<Inventory>> + Send;

    /// Does one operation. Doing what is already done is no error, so that an interrupted plan can be repeated.
    fn apply(&mut self, operation: &Operation) -> impl Future<Output = Result<(), ApplyError>> + Send;
}

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The UDP port is in use by a socket or by another external VXLAN device.
    #[error(
        "cannot {operation}: UDP port {port} is in use; the mesh needs a tunnel port of its own \
         (see `ss -lunp sport = {port}` and `ip -d link show type vxlan`)"
    )]
    PortInUse {
        /// What was attempted.
        operation: Operation,
        /// The port.
        port: u16,
    },
    /// The host has no IPv6.
    #[error(
        "cannot {0}: IPv6 is off on this host (sysctl net.ipv6.conf.*.disable_ipv6); the mesh address needs it"
    )]
    NoIpv6(Operation),
    /// Another route has the same destination and metric.
    #[error("cannot {0}: a route with this destination is there already and is not ours")]
    RouteTaken(Operation),
    /// The kernel refused.
    #[error("cannot {operation}: {source}")]
    Refused {
        /// What was attempted.
        operation: Operation,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Does the operations in order and stops at the first that fails.
///
/// # Errors
/// [`ApplyError`] of the operation that failed; those before it are done.
pub async fn apply<K: Kernel>(
    kernel: &mut K,
    operations: impl IntoIterator<Item = &Operation>,
) -> Result<(), ApplyError> {
    for operation in operations {
        kernel.apply(operation).await?;
        tracing::debug!(%operation, "applied");
    }
    Ok(())
}
