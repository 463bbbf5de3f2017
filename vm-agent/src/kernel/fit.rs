//! Which part of what a gateway asks of a host's network the host can take. Pure.
//!
//! A prefix that would cut the host off is left out alone; policy and the rest are in force without it. One that became
//! unsafe while it was in force stays as it is, because the host's own routes, where it has any, are the more specific
//! ones, and because a resolver file must not decide what leaves the host in clear. Only where it covers the host's own
//! underlay, or the administrator forbids it, it is withdrawn: it is then neither guarded nor routed, but unreachable.

use hostnet::{Cause, HostFacts, Inventory, Observed, Refused, check_prefixes, covers_underlay};
use ipnet::IpNet;
use policy::state::NodeSettings;

use super::Silent;
use super::error::KernelError;
use super::nic::NicImage;

#[cfg(test)]
mod tests;

/// The part of some settings that a host takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Fit {
    /// The prefixes that are routed and guarded.
    pub(super) prefixes: Vec<IpNet>,
    /// What is left out, and why.
    pub(super) missing: Vec<String>,
    /// What is in force although it would not be taken today.
    pub(super) doubtful: Vec<String>,
    /// What governs the NICs; `None` = nothing does.
    pub(super) nic: Option<NicImage>,
    /// Which transit nodes do not answer.
    pub(super) silent: Silent,
}

/// What a fit depends on besides the settings.
pub(super) struct Surroundings<'a> {
    /// The host's network now.
    pub(super) inventory: &'a Inventory,
    /// What it must reach.
    pub(super) facts: &'a HostFacts,
    /// What its administrator allows; `None` = whatever is safe.
    pub(super) allowed: Option<&'a [IpNet]>,
    /// The mesh device.
    pub(super) device: &'a str,
    /// The prefixes in force, as far as this process knows; what is routed to the device is in force as well.
    pub(super) held: &'a [IpNet],
}

impl Surroundings<'_> {
    /// What of the settings this host takes.
    ///
    /// # Errors
    /// [`KernelError::Unsafe`] for a mesh address that would take another machine's, or one of the host's, away: without
    /// its address a host is not in the mesh.
    pub(super) fn fit(&self, settings: &NodeSettings) -> Result<Fit, KernelError> {
        let there = Observed::of(self.inventory, self.device).device;
        let mut fit = Fit::default();
        let addresses: Vec<IpNet> = settings.addresses.iter().copied().map(IpNet::from).collect();
        let has =
            |address: &IpNet| there.as_ref().is_some_and(|device| device.addresses.contains(&address.addr()));
        let (known, new): (Vec<_>, Vec<_>) =
            self.refused(&addresses).into_iter().partition(|refused| has(&refused.prefix));
        if !new.is_empty() {
            return Err(KernelError::Unsafe(new));
        }
        fit.doubtful.extend(known.iter().map(ToString::to_string));

        let refused = self.refused(&settings.prefixes);
        fit.prefixes.clone_from(&settings.prefixes);
        for refused in &refused {
            let prefix = refused.prefix.trunc();
            let routed = there.as_ref().is_some_and(|device| device.routes.contains_key(&prefix));
            let in_force = routed || self.held.contains(&refused.prefix);
            if in_force && self.may_stay(refused) {
                fit.doubtful.push(refused.to_string());
                continue;
            }
            fit.prefixes.retain(|prefix| *prefix != refused.prefix);
            fit.missing.push(format!("{refused}: it is left out of the mesh of this host"));
        }
        Ok(fit)
    }

    fn refused(&self, blocks: &[IpNet]) -> Vec<Refused> {
        let checked = check_prefixes(blocks, self.inventory, self.facts, self.allowed, self.device);
        checked.err().unwrap_or_default()
    }

    fn may_stay(&self, refused: &Refused) -> bool {
        match refused.cause {
            Cause::NotAllowed { .. } | Cause::Special { .. } => false,
            Cause::Covers { .. } | Cause::CoversRoute { .. } => {
                !covers_underlay(&refused.prefix, self.inventory, self.device)
            }
        }
    }
}
