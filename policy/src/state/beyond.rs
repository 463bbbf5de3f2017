//! What policies say about traffic that does not go through the mesh.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::{Default, Peers, Policy};

/// What policies say about traffic that the scope `mesh` leaves out: of those that select as endpoints the rules about addresses
/// outside of these prefixes, and all that select as hosts. One sentence for each.
#[must_use]
pub fn beyond_mesh(policy: Option<&Policy>, of_host: Option<&Policy>, prefixes: &[IpNet]) -> Vec<String> {
    let is_beyond = |cidr: &IpNet| !prefixes.iter().any(|prefix| prefix.contains(cidr));
    let mut found = BTreeSet::new();
    for rule in policy.iter().flat_map(|policy| policy.ingress.rules.iter().chain(&policy.egress.rules)) {
        let Peers::Only { blocks, .. } = &rule.peers else { continue };
        if let Some(block) = blocks.iter().find(|block| is_beyond(&block.cidr)) {
            found.insert(format!("{}: {} is outside of the mesh", rule.origin, block.cidr));
        }
    }
    for direction in of_host.iter().flat_map(|policy| [&policy.ingress, &policy.egress]) {
        let isolating = match &direction.default {
            Default::Deny { by } => by.as_slice(),
            Default::Allow => &[],
        };
        let named = direction.rules.iter().map(|rule| object(&rule.origin));
        let objects: BTreeSet<&str> = isolating.iter().map(String::as_str).chain(named).collect();
        found.extend(objects.iter().map(|object| format!("{object}: selects the host, not the endpoint")));
    }
    found.into_iter().collect()
}

/// The object of a rule.
fn object(origin: &str) -> &str {
    origin.rsplit_once('#').map_or(origin, |(object, _)| object)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::{Block, DirectionPolicy, Ports, Reach, Rule, RuleAction};
    use super::*;
    use crate::identity::Identity;

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
    fn what_the_mesh_does_not_carry_is_told() {
        let prefixes = ["100.64.0.0/16".parse().unwrap()];
        let policy = ingress(
            Default::Allow,
            vec![
                rule("K/a#ingress[0]", only(&[300], &["100.64.1.0/24"])),
                rule("K/a#ingress[1]", only(&[], &["192.0.2.0/24"])),
                rule("K/a#ingress[2]", Peers::Any),
            ],
        );
        let host =
            ingress(Default::Deny { by: vec!["C/h".to_owned()] }, vec![rule("C/h#ingress[0]", Peers::Any)]);
        assert_eq!(
            beyond_mesh(Some(&policy), Some(&host), &prefixes),
            [
                "C/h: selects the host, not the endpoint",
                "K/a#ingress[1]: 192.0.2.0/24 is outside of the mesh"
            ]
        );
        assert!(beyond_mesh(None, None, &prefixes).is_empty());
    }
}
