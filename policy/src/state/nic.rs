//! What governs a host's NICs: its traffic outside of the mesh.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Default, DirectionPolicy, Mode, Peers, Policy, Rule};
use crate::identity::Identity;

/// Which traffic of a workload policy governs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Scope {
    /// What goes through the mesh.
    #[default]
    Mesh,
    /// Also what its NICs see, by the policies that select it as a host.
    Host,
    /// Also what its NICs see, by every policy that selects it.
    All,
}

/// What governs the NICs of a workload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nic {
    /// `Host` or `All`.
    pub scope: Scope,
    /// Whether it is enforced there or only reported.
    pub mode: Mode,
    /// The policy. Of identities it names reserved ones only: no other shows on a NIC.
    pub policy: Arc<Policy>,
}

impl Scope {
    /// The word in manifests.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mesh => "mesh",
            Self::Host => "host",
            Self::All => "all",
        }
    }
}

impl Policy {
    /// The policy of the NICs, of all these together. Pods and workloads are left out of it, so that it stays as it is
    /// when they come and go.
    #[must_use]
    pub fn of_nic<'a>(parts: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut whole = Self::unrestricted();
        for Self { ingress, egress } in parts {
            whole.ingress.add_outside(ingress);
            whole.egress.add_outside(egress);
        }
        for direction in [&mut whole.ingress, &mut whole.egress] {
            direction.rules.sort_by(|a, b| a.origin.cmp(&b.origin));
        }
        whole
    }
}

impl DirectionPolicy {
    fn add_outside(&mut self, other: &Self) {
        if let Default::Deny { by } = &other.default {
            match &mut self.default {
                Default::Deny { by: all } => all.extend(by.iter().cloned()),
                Default::Allow => self.default = other.default.clone(),
            }
        }
        self.rules.extend(other.rules.iter().filter_map(outside));
    }
}

/// What a rule says about peers outside of the mesh; `None` = nothing.
fn outside(rule: &Rule) -> Option<Rule> {
    let Peers::Only { identities, blocks } = &rule.peers else { return Some(rule.clone()) };
    let reserved: BTreeSet<Identity> = identities.iter().copied().filter(|id| id.is_reserved()).collect();
    if reserved.is_empty() && blocks.is_empty() {
        return None;
    }
    let peers = Peers::Only { identities: Arc::new(reserved), blocks: blocks.clone() };
    Some(Rule { peers, ..rule.clone() })
}

#[cfg(test)]
mod tests {
    use super::super::{Block, Ports, Reach, RuleAction};
    use super::*;

    fn rule(origin: &str, peers: Peers) -> Rule {
        let origin = Arc::from(origin);
        Rule { origin, peers, ports: Ports::Any, action: RuleAction::Allow, precedence: 1 }
    }

    fn only(identities: &[u32], cidrs: &[&str]) -> Peers {
        let block =
            |cidr: &&str| Block { cidr: cidr.parse().unwrap(), except: Vec::new(), reach: Reach::Everyone };
        Peers::Only {
            identities: Arc::new(identities.iter().map(|id| Identity::try_new(*id).unwrap()).collect()),
            blocks: cidrs.iter().map(block).collect(),
        }
    }

    fn ingress(default: Default, rules: Vec<Rule>) -> Policy {
        Policy { ingress: DirectionPolicy { default, rules }, ..Policy::unrestricted() }
    }

    #[test]
    fn a_nic_knows_nodes_and_addresses_but_no_pods() {
        let deny = |by: &str| Default::Deny { by: vec![by.to_owned()] };
        let first = ingress(
            deny("a"),
            vec![rule("a#ingress[0]", only(&[300], &[])), rule("a#ingress[1]", only(&[6, 300], &[]))],
        );
        let second = ingress(deny("b"), vec![rule("Z#ingress[0]", only(&[], &["192.0.2.0/24"]))]);
        let nic = Policy::of_nic([&first, &second]);
        assert_eq!(nic.ingress.default, Default::Deny { by: vec!["a".to_owned(), "b".to_owned()] });
        assert_eq!(
            nic.ingress.rules,
            [rule("Z#ingress[0]", only(&[], &["192.0.2.0/24"])), rule("a#ingress[1]", only(&[6], &[])),]
        );
        assert_eq!(nic.egress, Policy::unrestricted().egress);
    }
}
