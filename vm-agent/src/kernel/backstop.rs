//! The mesh unreachable, where nothing can be enforced: rather than reached in clear by the default route.

use std::collections::BTreeSet;
use std::net::IpAddr;

use hostnet::{HostFacts, Kernel as _, Netlink, Operation, check_prefixes};
use ipnet::IpNet;

use super::KernelConfig;
use super::error::KernelError;
use super::network::gather;

/// Makes prefixes unreachable without touching anything else, except those that would cut the host off or that its
/// administrator does not allow; returns why those were left out.
///
/// # Errors
/// What netlink refuses.
pub async fn backstop(
    config: &KernelConfig,
    prefixes: &BTreeSet<IpNet>,
    protected: Vec<(String, IpAddr)>,
) -> Result<Vec<String>, KernelError> {
    if prefixes.is_empty() {
        return Ok(Vec::new());
    }
    let netlink = |operation| move |source| KernelError::Netlink { operation, source };
    let mut kernel = Netlink::connect().map_err(netlink("connect"))?;
    let inventory = kernel.inventory().await.map_err(netlink("read links, addresses and routes"))?;
    let facts = HostFacts { protected, ..gather().await? };
    let allowed = config.allowed_cidrs.as_deref();
    let checked = check_prefixes(prefixes, &inventory, &facts, allowed, &config.device);
    let refused = checked.err().unwrap_or_default();
    for prefix in prefixes.iter().filter(|prefix| refused.iter().all(|found| found.prefix != **prefix)) {
        kernel.apply(&Operation::AddUnreachable(*prefix)).await?;
    }
    Ok(refused.iter().map(ToString::to_string).collect())
}
