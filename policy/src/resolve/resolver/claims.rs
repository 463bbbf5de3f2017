//! Who claims which address, and the endpoints that follow. Decided anew only where something about an address changed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::members::Members;
use crate::facts::Relabel;
use crate::state::{Endpoint, canonical};

/// What claims an address; those of the last kind that does have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// A pod.
    Pod,
    /// An external workload or a transit node: the gateway gave it its addresses.
    Workload,
}

/// All claims.
#[derive(Debug, Default)]
pub(super) struct Claims {
    /// By address, in the order of kinds and names.
    claimants: BTreeMap<IpAddr, Vec<(Kind, Arc<str>)>>,
    endpoints: BTreeMap<IpAddr, Arc<Endpoint>>,
    warnings: BTreeMap<IpAddr, Vec<String>>,
    /// Addresses that are to be decided.
    open: BTreeSet<IpAddr>,
}

impl Claims {
    pub(super) const fn endpoints(&self) -> &BTreeMap<IpAddr, Arc<Endpoint>> {
        &self.endpoints
    }

    pub(super) fn warnings(&self) -> impl Iterator<Item = &String> {
        self.warnings.values().flatten()
    }

    /// Somebody has these addresses.
    pub(super) fn add(&mut self, kind: Kind, name: &Arc<str>, addresses: &[IpAddr]) {
        for address in addresses.iter().copied().map(canonical) {
            let claimants = self.claimants.entry(address).or_default();
            if let Err(place) = find(claimants, kind, name) {
                claimants.insert(place, (kind, Arc::clone(name)));
            }
            self.open.insert(address);
        }
    }

    /// Somebody has these addresses no more.
    pub(super) fn remove(&mut self, kind: Kind, name: &str, addresses: &[IpAddr]) {
        for address in addresses.iter().copied().map(canonical) {
            if let Some(claimants) = self.claimants.get_mut(&address)
                && let Ok(place) = find(claimants, kind, name)
            {
                claimants.remove(place);
                if claimants.is_empty() {
                    self.claimants.remove(&address);
                }
            }
            self.open.insert(address);
        }
    }

    /// Something about who has the address changed.
    pub(super) fn touch(&mut self, address: IpAddr) {
        self.open.insert(canonical(address));
    }

    /// Decides what is open.
    pub(super) fn settle(&mut self, members: &Members, relabels: &BTreeMap<IpAddr, Relabel>) {
        for address in std::mem::take(&mut self.open) {
            let mut warnings = Vec::new();
            let endpoint = self
                .owner(address, &mut warnings)
                .and_then(|(kind, name)| members.endpoint(*kind, name, relabels.get(&address)));
            match endpoint {
                Some(endpoint) if self.endpoints.get(&address).is_some_and(|known| **known == endpoint) => {}
                Some(endpoint) => drop(self.endpoints.insert(address, Arc::new(endpoint))),
                None => drop(self.endpoints.remove(&address)),
            }
            if warnings.is_empty() {
                self.warnings.remove(&address);
            } else {
                self.warnings.insert(address, warnings);
            }
        }
    }

    /// The one that has the address, if it is one.
    fn owner(&self, address: IpAddr, warnings: &mut Vec<String>) -> Option<&(Kind, Arc<str>)> {
        let claimants = self.claimants.get(&address)?;
        let pods = claimants.partition_point(|(kind, _)| *kind == Kind::Pod);
        let (pods, workloads) = claimants.split_at(pods);
        if !workloads.is_empty() {
            for (_, pod) in pods {
                let owners = names(workloads);
                warnings.push(format!(
                    "{address} belongs to external workload {owners}: the claim of pod {pod} is ignored"
                ));
            }
        }
        match if workloads.is_empty() { pods } else { workloads } {
            [owner] => Some(owner),
            several => {
                let owners = names(several);
                warnings.push(format!("{address} is claimed by {owners}: it belongs to none of them"));
                None
            }
        }
    }
}

fn find(claimants: &[(Kind, Arc<str>)], kind: Kind, name: &str) -> Result<usize, usize> {
    claimants.binary_search_by(|(other, found)| (*other, &**found).cmp(&(kind, name)))
}

fn names(claimants: &[(Kind, Arc<str>)]) -> String {
    claimants.iter().map(|(_, name)| &**name).collect::<Vec<_>>().join(" and ")
}
