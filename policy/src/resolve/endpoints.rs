//! Every address with its identity and tunnel endpoints.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::directory::Census;
use crate::facts::{Facts, Relabel};
use crate::identity::Identity;
use crate::state::{Endpoint, EndpointKind, canonical};

/// All endpoints. The gateway allocates the addresses of workloads, so a pod that claims one of them loses; an
/// address that several pods claim belongs to none of them, since either could be a stale one.
pub(super) fn endpoints(
    facts: &Facts,
    census: &Census<'_>,
    warnings: &mut BTreeSet<String>,
) -> BTreeMap<IpAddr, Arc<Endpoint>> {
    let mut endpoints = Endpoints { facts, warnings, pods: BTreeMap::new(), workloads: BTreeMap::new() };
    for (name, pod) in &facts.pods {
        let Some(identity) = census.of_pod(name) else { continue };
        let kind = EndpointKind::Pod { behind: Arc::clone(&pod.behind) };
        endpoints.add(name, &pod.addresses, &pod.tunnels, identity, &kind);
    }
    for (name, workload) in &facts.workloads {
        let Some(identity) = census.of_workload(name) else { continue };
        endpoints.add(name, &workload.addresses, &workload.tunnels, identity, &workload.role.into());
    }
    endpoints.settle()
}

type Claims = BTreeMap<IpAddr, Vec<Endpoint>>;

struct Endpoints<'a> {
    facts: &'a Facts,
    warnings: &'a mut BTreeSet<String>,
    pods: Claims,
    workloads: Claims,
}

impl Endpoints<'_> {
    fn add(
        &mut self,
        owner: &Arc<str>,
        addresses: &[IpAddr],
        tunnels: &Arc<Vec<IpAddr>>,
        identity: Identity,
        kind: &EndpointKind,
    ) {
        let distinct: BTreeSet<IpAddr> = addresses.iter().copied().map(canonical).collect();
        for address in distinct {
            let relabel = self.facts.relabels.get(&address);
            let endpoint = Endpoint::relabelled(identity, relabel, tunnels, kind.clone(), owner);
            let claims = match kind {
                EndpointKind::Pod { .. } => &mut self.pods,
                EndpointKind::Workload | EndpointKind::Transit | EndpointKind::Node => &mut self.workloads,
            };
            claims.entry(address).or_default().push(endpoint);
        }
    }

    fn settle(self) -> BTreeMap<IpAddr, Arc<Endpoint>> {
        let mut settled = BTreeMap::new();
        let Self { mut pods, workloads, warnings, .. } = self;
        for (address, claims) in &workloads {
            for pod in pods.remove(address).iter().flatten() {
                let (pod, owners) = (owner(pod), owners(claims));
                warnings.insert(format!(
                    "{address} belongs to external workload {owners}: the claim of pod {pod} is ignored"
                ));
            }
        }
        for (address, mut claims) in workloads.into_iter().chain(pods) {
            if claims.len() > 1 {
                warnings.insert(format!(
                    "{address} is claimed by {}: it belongs to none of them",
                    owners(&claims)
                ));
            } else if let Some(endpoint) = claims.pop() {
                settled.insert(address, Arc::new(endpoint));
            }
        }
        settled
    }
}

impl Endpoint {
    /// An endpoint whose identity may be being changed.
    pub(super) fn relabelled(
        identity: Identity,
        relabel: Option<&Relabel>,
        tunnels: &Arc<Vec<IpAddr>>,
        kind: EndpointKind,
        owner: &Arc<str>,
    ) -> Self {
        let written = relabel.into_iter().flat_map(|relabel| [relabel.previous, relabel.mark]);
        Self {
            identity,
            previous: written.into_iter().find(|written| *written != identity),
            mark: relabel.map_or(identity, |relabel| relabel.mark),
            tunnels: Arc::clone(tunnels),
            kind,
            owner: Some(Arc::clone(owner)),
        }
    }
}

fn owner(endpoint: &Endpoint) -> &str {
    endpoint.owner.as_deref().unwrap_or_default()
}

fn owners(claims: &[Endpoint]) -> String {
    claims.iter().map(owner).collect::<Vec<_>>().join(" and ")
}
