//! Objects with one priority: upstream leaves open which of them decides.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::compile::PRECEDENCES;
use crate::rules::PolicyObject;

/// Of each object of administrators that has the tier and priority of another one: what comes of it.
pub fn shared_priorities<'a>(
    policies: impl Iterator<Item = &'a Arc<PolicyObject>>,
) -> impl Iterator<Item = String> {
    let mut holders: BTreeMap<u32, BTreeSet<&str>> = BTreeMap::new();
    for policy in policies {
        let sections = [&policy.ingress, &policy.egress].into_iter().flatten();
        let priorities = sections.flat_map(|section| &section.rules).map(|rule| rule.precedence);
        // The first rule of a direction. What stands for an object that was never valid has no such precedence.
        for priority in priorities.filter(|found| found % PRECEDENCES == PRECEDENCES - 1) {
            holders.entry(priority).or_default().insert(&policy.origin);
        }
    }
    holders.into_values().flat_map(|holders| {
        let mut holders = holders.into_iter();
        let first = holders.next().unwrap_or_default().to_owned();
        holders.map(move |other| {
            format!(
                "{other}: spec.priority: is that of {first} too: the earlier rule decides, and of rules of one place deny before pass before allow"
            )
        })
    })
}
