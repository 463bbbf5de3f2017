//! The policies that an object is: its specifications stand behind it, as `origin#specs[0]`.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use policy::rules::PolicyObject;

use crate::manifest::ObjectKey;

/// Policies by their origins.
type Policies = BTreeMap<Arc<str>, Arc<PolicyObject>>;

/// The parts of an object.
pub(crate) fn of<'a>(
    policies: &'a Policies,
    key: &ObjectKey,
) -> impl Iterator<Item = &'a Arc<PolicyObject>> + use<'a> {
    let origin = key.to_string();
    let from = policies.range::<str, _>((Bound::Included(origin.as_str()), Bound::Unbounded));
    let is_part = move |name: &str| {
        name.strip_prefix(origin.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('#'))
    };
    from.take_while(move |(name, _)| is_part(name)).map(|(_, policy)| policy)
}

/// Puts an object's parts where those of its former version were; none: it is gone.
pub(crate) fn replace(policies: &mut Policies, key: &ObjectKey, parts: &[Arc<PolicyObject>]) {
    let former: Vec<Arc<str>> = of(policies, key).map(|policy| Arc::clone(&policy.origin)).collect();
    for origin in former {
        policies.remove(&origin);
    }
    policies.extend(parts.iter().map(|policy| (Arc::clone(&policy.origin), Arc::clone(policy))));
}
