//! What selects this host: for the end of a join, for `status` and for `policy list`.

use std::collections::BTreeSet;

use policy::state::{Default as Fallback, DirectionPolicy, Policy};

/// The policies that select the host, `Kind/namespace/name`, sorted.
#[must_use]
pub fn policies(policy: &Policy) -> Vec<String> {
    let directions = [&policy.ingress, &policy.egress];
    let defaults = directions.iter().flat_map(|direction| default_deny_by(direction)).cloned();
    let origins = directions.iter().flat_map(|direction| &direction.rules);
    let of_rules = origins.map(|rule| rule.origin.split('#').next().unwrap_or_default().to_owned());
    defaults.chain(of_rules).collect::<BTreeSet<_>>().into_iter().collect()
}

/// The policies that made a direction default-deny; empty where none did.
#[must_use]
pub fn default_deny_by(direction: &DirectionPolicy) -> &[String] {
    match &direction.default {
        Fallback::Deny { by } => by,
        Fallback::Allow => &[],
    }
}

/// Whether a flow of the direction that no rule matches is denied.
#[must_use]
pub const fn is_default_deny(direction: &DirectionPolicy) -> bool {
    matches!(direction.default, Fallback::Deny { .. })
}

#[cfg(test)]
mod tests {
    use policy::state::{Peers, Ports, Rule, RuleAction};

    use super::*;

    #[test]
    fn policies_with_and_without_rules_are_named_once() {
        let rule = |origin: &str| Rule {
            origin: origin.into(),
            peers: Peers::Any,
            ports: Ports::Any,
            action: RuleAction::Allow,
            precedence: policy::rules::precedence::NETWORK_POLICY,
        };
        let deny = Fallback::Deny {
            by: vec!["NetworkPolicy/shop/db".to_owned(), "NetworkPolicy/shop/none".to_owned()],
        };
        let mut policy = Policy::unrestricted();
        assert!(policies(&policy).is_empty());
        policy.ingress = DirectionPolicy {
            default: deny,
            rules: vec![rule("NetworkPolicy/shop/db#ingress[0]"), rule("NetworkPolicy/shop/db#ingress[1]")],
        };
        assert_eq!(policies(&policy), ["NetworkPolicy/shop/db", "NetworkPolicy/shop/none"]);
        assert!(is_default_deny(&policy.ingress) && !is_default_deny(&policy.egress));
    }
}
