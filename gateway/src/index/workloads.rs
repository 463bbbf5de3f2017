//! External workloads and transit nodes as facts: records of the store with what their groups say.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use policy::facts::Workload as Fact;

use super::Index;
use super::holders::Holders;
use crate::store::{Claim, Target, Workload};

impl Index {
    pub(super) fn refresh_workloads(&mut self) {
        let mut warnings = BTreeSet::new();
        let names: BTreeMap<_, Arc<str>> =
            self.workloads.keys().map(|name| (name, name.to_string().into())).collect();
        let mut claims = Vec::new();
        for (name, workload) in self.workloads.iter() {
            let Some(name) = names.get(name) else { continue };
            let claim = |address| (Claim::rank(workload.claims.get(address)), address.to_canonical(), name);
            claims.extend(workload.underlay.iter().map(claim));
        }
        claims.sort_unstable();
        // The claims themselves say who came first: nothing is remembered here.
        self.underlay = Holders::default();
        for contested in self.underlay.settle(claims.into_iter().map(|(_, address, name)| (address, name))) {
            warnings.insert(format!(
                "external workload {} reports the underlay address {}, which {} has: it is not used",
                contested.claimant, contested.address, contested.holder
            ));
        }
        let mut facts = BTreeMap::new();
        for (name, text) in names {
            let Some(workload) = self.workloads.get(name) else { continue };
            let Some(fact) = self.fact_of(workload, &text, &mut warnings) else {
                let target = &workload.target;
                warnings.insert(format!("external workload {text} is left out: its {target} is not known"));
                continue;
            };
            let before = self.facts.workloads.get(&text).filter(|before| ***before == fact);
            facts.insert(text, before.map_or_else(|| Arc::new(fact), Arc::clone));
        }
        self.facts.workloads = facts;
        self.workload_warnings = warnings;
    }

    fn fact_of(&self, workload: &Workload, name: &str, warnings: &mut BTreeSet<String>) -> Option<Fact> {
        // A node's own address among its pods, such as that of their bridge, is no way to reach it.
        let usable = |address: &IpAddr| {
            self.underlay.holds(name, *address) && !self.in_pools(*address) && !self.among_pods(*address)
        };
        let reported = workload.underlay.iter().map(IpAddr::to_canonical);
        let tunnels: Vec<IpAddr> = reported.clone().filter(usable).collect();
        for address in reported.filter(|address| self.in_pools(*address)) {
            warnings.insert(format!(
                "external workload {name} reports the mesh address {address} as underlay address: it is not used"
            ));
        }
        let common = Fact {
            namespace: workload.name.namespace.clone(),
            addresses: workload.addresses.clone(),
            tunnels: Arc::new(tunnels),
            ..Fact::default()
        };
        match &workload.target {
            Target::TransitNode { .. } | Target::Node { .. } => {
                Some(Fact { role: workload.target.role(), ..common })
            }
            Target::Group { namespace, name } => {
                let group = self.groups.get(&(namespace.clone(), name.clone()))?;
                Some(Fact {
                    labels: group.labels.clone(),
                    service_account: group.service_account.clone(),
                    named_ports: group.ports.clone(),
                    ..common
                })
            }
        }
    }
}
